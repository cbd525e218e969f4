"""Products, activations and how torch is set up for them."""
