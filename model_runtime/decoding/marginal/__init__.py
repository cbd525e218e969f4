"""How probable a text is, whichever tokens spell it."""
