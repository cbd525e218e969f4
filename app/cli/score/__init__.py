"""``chainrule score``: files of requests in, lines of scores out."""
