"""POST /v1/audit: what a score is made of, and what decides between candidates.

``collect`` asks the service, as any caller might, and the rest takes the answers apart. Nothing
here computes a log-probability.
"""
