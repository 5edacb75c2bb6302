"""Walks a folder of files: symbolic links followed, hidden names skipped, in a fixed order."""

import os
from collections.abc import Callable, Iterator
from pathlib import Path


def _never(path: Path) -> bool:
    return False


def files_below(
    root: Path, *, once: bool = False, closed: Callable[[Path], bool] = _never
) -> Iterator[Path]:
    """Yields every file below ``root``; dangling links and special files count as files.

    The files of a folder come in the order of their names, then those of its folders, again in
    the order of their names. Files and folders whose name begins with a dot are skipped. A link
    to a folder is followed unless that folder was entered before, so links cannot form a cycle.

    ``once``: enters no folder twice. Without it a folder that a link led to earlier is entered
    again under its own name, so that every file is found under the name without links.
    ``closed``: says for each folder whether it must not be entered; such a folder is yielded
    itself, before the files beside it.

    Raises OSError if a folder cannot be read, because its files would be missing silently.
    """

    def fail(error: OSError) -> None:
        raise error

    entered = {os.path.realpath(root)}
    for folder, folders, files in os.walk(root, onerror=fail, followlinks=True):
        below = [Path(folder, name) for name in sorted(folders) if not name.startswith(".")]
        folders.clear()
        for path in below:
            place = os.path.realpath(path)
            if closed(path):
                yield path
            elif place not in entered or not (once or path.is_symlink()):
                entered.add(place)
                folders.append(path.name)
        yield from (Path(folder, name) for name in sorted(files) if not name.startswith("."))
