"""``chainrule diagnose``: which known mistake made the numbers of a file."""
