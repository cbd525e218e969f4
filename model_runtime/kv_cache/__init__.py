"""Keys, values and log-probability rows that are computed already."""
