"""What a completion may be."""
