"""What every request has: a context, a deadline, bounds, a prompt."""
