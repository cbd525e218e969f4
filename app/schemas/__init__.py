"""Wire types of the native API. JSON stops here: nothing below knows it."""
