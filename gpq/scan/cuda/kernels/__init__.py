"""Triton kernels, one a file. They run on a GPU, or in Triton's interpreter if there is none.

May import only one another.
"""
