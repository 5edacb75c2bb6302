"""All that was written to a file system, on its disk at once: syncfs(2) of Linux."""

import ctypes
import os
import platform
import re

SINCE = (5, 8)  # before, Linux tells nothing of a failure


def _find() -> "ctypes._NamedFuncPointer | None":
    release = re.match(r"(\d+)\.(\d+)", platform.release())
    if platform.system() != "Linux" or not release or tuple(map(int, release.groups())) < SINCE:
        return None
    return getattr(ctypes.CDLL(None, use_errno=True), "syncfs", None)


_SYNCFS = _find()


def syncfs(descriptor: int) -> bool:
    """Whether that could be done, for the file system of an open file; raises OSError where it
    failed. What others have written there is waited for too."""
    if _SYNCFS is None:
        return False
    if _SYNCFS(descriptor) != 0:
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number))
    return True
