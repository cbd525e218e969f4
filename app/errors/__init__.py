"""What went wrong, as a status and a body."""
