"""Opens files of which none may be outside of a folder."""

import os
import stat
from pathlib import Path

from service.errors import SourceError

LEADS_AWAY = "it leads out of the import folder"
NO_FILE = "there is no such file"


def opened(path: Path, within: Path | None) -> int:
    """Opens a regular file; the caller closes the descriptor. Raises SourceError.

    A link may be replaced after it was looked at, so the descriptor is checked, not the path.
    """
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
    except (FileNotFoundError, NotADirectoryError) as error:
        raise SourceError(NO_FILE) from error
    except OSError as error:
        raise SourceError(error.strerror or "it cannot be opened") from error
    except ValueError as error:
        raise SourceError(str(error)) from error
    try:
        if not stat.S_ISREG(os.fstat(descriptor).st_mode):
            raise SourceError(NO_FILE)
        if within is not None and not is_within(_place(descriptor, path), within):
            raise SourceError(LEADS_AWAY)
    except BaseException:
        os.close(descriptor)
        raise
    return descriptor


def _place(descriptor: int, path: Path) -> Path:
    """Returns where an opened file is. Without /proc this is where its path leads now."""
    link = Path(f"/proc/self/fd/{descriptor}")
    return link.readlink() if link.is_symlink() else path


def is_within(path: Path, folder: Path) -> bool:
    """Returns whether ``path`` is in ``folder`` once links are followed.

    A path that cannot be resolved is outside.
    """
    try:
        return path.resolve().is_relative_to(folder.resolve())
    except (OSError, RuntimeError):  # the path is too long, or links form a cycle
        return False
