"""The best candidates of a closed set."""
