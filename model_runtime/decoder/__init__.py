"""A causal decoder that native kernels run: what it consists of, and its forward."""
