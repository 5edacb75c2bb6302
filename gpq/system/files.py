"""Writes files atomically and durably."""

import os
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import BinaryIO

from gpq.system.syncfs import syncfs

# From this many files or folders on, one syncfs call is cheaper than one fsync call for each,
# although it also waits for what other programs have written to the file system.
MANY = 4


def sync_folder(folder: Path) -> None:
    """Writes the entries of a folder to the disk, so that renames in it survive a crash."""
    sync_folders([folder])


def sync_folders(folders: Sequence[Path]) -> None:
    """Writes the entries of several folders to the disk."""
    with ExitStack() as stack:
        descriptors = []
        for folder in folders:
            descriptors.append(os.open(folder, os.O_RDONLY))
            stack.callback(os.close, descriptors[-1])
        _sync(descriptors)


@contextmanager
def replacing(path: Path, temporary: Path | None = None) -> Iterator[BinaryIO]:
    """Yields a temporary file that replaces ``path`` on the disk when the block ends.

    If the block raises, ``path`` keeps its content and the temporary file is removed.
    ``temporary``: a path in the same folder that no other writer uses; by default ``path`` with
    the suffix .tmp.
    """
    temporary = temporary or path.with_name(path.name + ".tmp")
    try:
        with temporary.open("wb") as file:
            yield file
            file.flush()
            _sync([file.fileno()])
        temporary.replace(path)
        sync_folder(path.parent)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise


def write_together(files: Mapping[Path, bytes], suffix: str) -> None:
    """Writes new files. Their names are on the disk after ``sync_folders`` of their folders.

    All files are written before the first is synced, which is less work for the disk than
    writing and syncing them one after another.
    ``suffix``: suffix of the temporary files beside them, which no other writer uses. No
    temporary file is left behind if writing fails.
    """
    temporary = {path: path.with_name(path.name + suffix) for path in files}
    try:
        with ExitStack() as stack:
            opened = []
            for path, data in files.items():
                opened.append(stack.enter_context(temporary[path].open("wb")))
                opened[-1].write(data)
            for file in opened:
                file.flush()
            _sync([file.fileno() for file in opened])
        for path in files:
            temporary[path].replace(path)
    except BaseException:
        for path in temporary.values():
            path.unlink(missing_ok=True)
        raise


def _sync(descriptors: Sequence[int]) -> None:
    systems = {os.fstat(descriptor).st_dev for descriptor in descriptors}
    if len(descriptors) < MANY or len(systems) > 1 or not syncfs(descriptors[0]):
        for descriptor in descriptors:
            os.fsync(descriptor)
