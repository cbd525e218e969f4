"""``chainrule score --ray``: datasets of many files, on a cluster."""
