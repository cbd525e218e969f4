"""What the process says of itself: log lines, metrics, stacks."""
