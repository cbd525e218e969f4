"""How much memory there is, how much a forward takes, and what follows."""
