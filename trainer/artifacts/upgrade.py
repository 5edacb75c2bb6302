"""Adds the graph of the network to models of formats 1 to 3, which keep their ids."""

import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from tempfile import TemporaryDirectory

from gpq.engine import engines
from gpq.model import artifact
from gpq.model.graph import GRAPH
from gpq.model.weights import WEIGHTS
from trainer.artifacts import graph
from trainer.components.source import read
from trainer.errors import TrainerError, writing

SERVICE = [sys.executable, "-m", "service", "models"]


def upgrade(folder: Path) -> bool:
    """Adds the graph to an artifact; returns False if it has one already.

    model.safetensors stays the same to the byte. Raises TrainerError and ArtifactError; the
    artifact stays as it is then.
    """
    if artifact.load(folder).cost is not None:
        return False
    if reason := graph.missing():
        raise TrainerError(f"{folder}: no graph can be made, because {reason}")
    source = read(folder)
    made = graph.serialise(
        graph.export(source.network, source.size), source.artifact.weights.places
    )
    with TemporaryDirectory(prefix="gpq-upgrade-") as parent:
        draft = Path(parent)
        for name in (artifact.CONFIG, WEIGHTS):
            shutil.copy(folder / name, draft)  # engines refuse links
        (draft / GRAPH).write_bytes(made)
        engines.load(draft, engines.Options(engine="onnxruntime"))  # verifies the golden vectors
    with writing(folder):
        artifact.add_graph(folder, made)
    return True


def upgrade_database(url: str) -> Iterator[str]:
    """Upgrades every model of a service's database; yields the id of each that was upgraded.

    The service's own commands read and write the database. Raises TrainerError and ArtifactError.
    """
    for line in _models(url, "list").splitlines():
        id = line.partition(" ")[0]
        if len(id) != 64:  # "there are no models yet"
            continue
        with TemporaryDirectory(prefix="gpq-upgrade-") as parent:
            folder = Path(parent) / "model"
            _models(url, "save", id, str(folder))
            if upgrade(folder):
                _models(url, "add", str(folder))
                yield id


def _models(url: str, *words: str) -> str:
    environment = {**os.environ, "GPQ_DATABASE_URL": url}
    done = subprocess.run(
        [*SERVICE, *words], capture_output=True, text=True, env=environment, check=False
    )
    if done.returncode:
        line = done.stderr.strip().rpartition("\n")[2]
        raise TrainerError(f"--database: {line.removeprefix('error: ')}")
    return done.stdout
