"""Reads, loads and verifies artifacts, from folders and from the database."""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory

from gpq.engine import engines
from gpq.engine.engines import Options
from gpq.errors import ArtifactError
from gpq.model import artifact
from gpq.model.model import Model
from service.settings import MODELS, ROOT


def find(folder: Path) -> Path:
    """Returns the folder of a model, relative to the current folder or else to the program's.

    Raises ArtifactError if neither exists.
    """
    elsewhere = ROOT / folder
    if folder.exists() or folder.absolute() == elsewhere:
        return folder
    if not elsewhere.exists():
        raise ArtifactError(
            f"there is no model in {folder.absolute()}, and none in {elsewhere}; name the "
            "folder of a model"
        )
    return elsewhere


def shipped(id: str) -> Path | None:
    """Returns the folder of the shipped model with an id, or None."""
    folders = sorted(path.parent for path in MODELS.glob(f"*/{artifact.CONFIG}"))
    return next((folder for folder in folders if artifact.load(folder).id == id), None)


def read(folder: Path) -> dict[str, bytes]:
    """Reads the files of an artifact, by name; one of an earlier format lacks the graph.

    Raises OSError.
    """
    paths = [folder / name for name in artifact.NAMES]
    return {path.name: path.read_bytes() for path in paths if path.exists()}


def write(files: Mapping[str, bytes], folder: Path) -> None:
    """Writes the files of an artifact into a new folder. Raises OSError."""
    folder.mkdir(parents=True)
    for name in artifact.NAMES:
        if name in files:
            (folder / name).write_bytes(files[name])


def load(files: Mapping[str, bytes], options: Options) -> Model:
    """Loads and verifies an artifact from its files. Raises ArtifactError."""
    with unpacked(files) as folder:
        return engines.load(folder, options)


@contextmanager
def unpacked(files: Mapping[str, bytes]) -> Iterator[Path]:
    """Writes the files of an artifact into a temporary folder.

    An ArtifactError that is raised meanwhile loses the name of the folder, which means nothing to
    the caller. Raises OSError.
    """
    with TemporaryDirectory(prefix="gpq-model-") as parent:
        folder = Path(parent) / "model"
        write(files, folder)
        try:
            yield folder
        except ArtifactError as error:
            raise ArtifactError(
                str(error).replace(f"{folder}/", "").replace(str(folder), "the model")
            ) from error
