"""Searches codes with a C++ kernel, which uses AVX-512, AVX2, NEON or plain C++ at run time.

May import the modules of ``gpq.scan``, ``gpq.native``, ``gpq.system`` and ``gpq.errors``.
"""

from gpq.scan.native.library import instructions, missing
from gpq.scan.native.scanner import NativeScanner

__all__ = ["NativeScanner", "describe", "missing"]


def describe() -> str:
    """Names the instructions that the engine would use."""
    return f"with {instructions()} instructions"
