"""POST /v1/audit: what a score is made of, and whether the server computes it as it says.

``gathering`` asks the service the same things in other ways, ``checks`` compare the answers,
and the rest takes scores apart. Nothing here computes a log-probability.
"""
