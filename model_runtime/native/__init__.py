"""Kernels of our own in C for steps of few rows, with the same bits on every instruction set."""
