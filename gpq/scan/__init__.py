"""Finds the k best codes for a query exactly, with one of several engines.

May import ``gpq.model``, ``gpq.native``, ``gpq.system`` and ``gpq.errors``.
"""

from gpq.scan.engines import ENGINES, build, choose
from gpq.scan.mask import Mask
from gpq.scan.scanner import Scanner

__all__ = ["ENGINES", "Mask", "Scanner", "build", "choose"]
