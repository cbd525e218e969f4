"""A batch through the model."""
