"""Questions with a closed set of answers, about one input: prompts, orders and probabilities.

What every wire for such questions shares; it knows none of them.
"""
