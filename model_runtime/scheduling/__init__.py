"""Which requests run when."""
