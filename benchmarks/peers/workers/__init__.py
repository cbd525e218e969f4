"""One script a peer, run by the peer's own Python. Standard library and the peer, nothing else."""
