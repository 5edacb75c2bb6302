"""Triton kernels, one a file: the same on a card and, without one, in Triton's interpreter."""
