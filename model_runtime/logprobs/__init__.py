"""From hidden states to log-probabilities."""
