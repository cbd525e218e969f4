"""``chainrule verify``: whether the scores of a receipt hold."""
