"""Finished models that a training starts from or learns from."""

from dataclasses import dataclass
from pathlib import Path
from typing import cast

from torch import nn

from gpq.engine import engines
from gpq.engine.engines import Options
from gpq.engine.torch_network import TorchNetwork
from gpq.model import artifact, golden
from gpq.model.artifact import Artifact


@dataclass(frozen=True)
class Source:
    """An artifact and its network, which is ready to compute features and has no gradients."""

    artifact: Artifact
    network: nn.Module

    @property
    def id(self) -> str:
        return self.artifact.id

    @property
    def size(self) -> int:
        """Pixels a side of the images that it was made for."""
        return self.artifact.rules.size


def read(folder: Path) -> Source:
    """Reads and verifies an artifact. Raises ArtifactError, also if torch cannot run it."""
    found = artifact.load(folder)
    model = engines.start(
        found, Options(engine="torch"), lambda model: golden.verify(model, folder)
    )
    return Source(found, cast(TorchNetwork, model.network).module)
