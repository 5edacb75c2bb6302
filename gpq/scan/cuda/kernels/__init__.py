"""Triton kernels, one a file. They run on a GPU, or in Triton's interpreter on the CPU.

May import only one another.
"""
