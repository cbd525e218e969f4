"""One long list of candidates over several requests."""
