"""What is wrong with a recipe."""


class RecipeError(ValueError):
    """A recipe that cannot be read or followed. The message is one line and names the file."""
