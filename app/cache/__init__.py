"""Answers that are known or under way: none is computed twice at a time."""
