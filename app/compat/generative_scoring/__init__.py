"""Generative scoring, in the shapes of vLLM and SGLang: label tokens, and pairs of texts."""
