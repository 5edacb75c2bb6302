"""Files that are whole or not there."""

import os
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import BinaryIO

from gpq.system.syncfs import syncfs

# From so many files or folders on, all of their file system is written at once: less work than one
# after another, and others' writes to it are waited for.
MANY = 4


def sync_folder(folder: Path) -> None:
    """Have the names of its files on the disk too."""
    sync_folders([folder])


def sync_folders(folders: Sequence[Path]) -> None:
    """The same of each."""
    with ExitStack() as stack:
        descriptors = []
        for folder in folders:
            descriptors.append(os.open(folder, os.O_RDONLY))
            stack.callback(os.close, descriptors[-1])
        _sync(descriptors)


@contextmanager
def replacing(path: Path, temporary: Path | None = None) -> Iterator[BinaryIO]:
    """A file to write what is to stand at ``path``; it takes its place on leaving, on the disk.

    Until then, and where anything is raised, what stands there stays. temporary: in the same
    folder, of this writer alone; ``path`` and .tmp if not given.
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
    """Write new files, whose names are on the disk once their folders are synced.

    All are written before the first is synced: less work for the disk than one after another.
    suffix: of temporary files beside them, of this writer alone; none is left where anything is
    raised.
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
