"""Which known mistakes reproduce numbers that another system reported.

::

    evidence ── inputs ──> rows (asked of the service) ──> recipes ── search ──> verdict

An input is a way to put context and candidates before the model; a row is what the model says at
one place of it; a recipe makes scores of rows, rightly or with mistakes. Everything is computed
from log-probabilities that the service gives; nothing here computes one.
"""
