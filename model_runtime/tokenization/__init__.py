"""Text to token ids and back, and where a context ends."""
