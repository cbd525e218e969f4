"""Probabilities of decisions that mean what they say, and sets of options that hold the right one
as often as was asked for: fitted to labelled questions, kept by name, applied to answers."""
