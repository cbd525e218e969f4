"""Named questions about a state, in the shape of System One."""
