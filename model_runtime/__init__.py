"""Token ids in, log-probabilities out. Knows no HTTP."""
