"""Calls syncfs(2) of Linux, which writes a whole file system to its disk."""

import ctypes
import os
import platform
import re

SINCE = (5, 8)  # older versions of Linux do not report failures of syncfs


def _find() -> "ctypes._NamedFuncPointer | None":
    release = re.match(r"(\d+)\.(\d+)", platform.release())
    if platform.system() != "Linux" or not release or tuple(map(int, release.groups())) < SINCE:
        return None
    return getattr(ctypes.CDLL(None, use_errno=True), "syncfs", None)


_SYNCFS = _find()


def syncfs(descriptor: int) -> bool:
    """Writes the file system of an open file to its disk, and returns whether that is supported.

    Also waits for what other programs have written to the file system. Raises OSError if the
    write fails.
    """
    if _SYNCFS is None:
        return False
    if _SYNCFS(descriptor) != 0:
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number))
    return True
