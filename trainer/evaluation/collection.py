"""Collections of images that are searched: labels, pictures, and the features that a model gives.

A collection does not depend on a model. Its pictures are read when they are needed, because they
may stay on the disk.
"""

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from functools import cached_property
from typing import Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from tqdm import tqdm

from gpq.model.codebook import Codebook
from gpq.model.model import Model
from trainer.data.image_sets import RetrievalSet, TrainingSet, spread
from trainer.data.images import ArrayImages, Images
from trainer.evaluation.holdout import HeldOut

BATCH = 256
MAX_QUERIES = 1000
MAX_UNLABELLED = 50_000

Floats = NDArray[np.float32]
Rows = NDArray[np.int64]


class Pictures(Protocol):
    """Images that are read by their rows: rows (R,) -> pixels (R,3,S,S) uint8."""

    def __len__(self) -> int: ...
    def pixels(self, rows: Rows) -> Tensor: ...


@dataclass(frozen=True)
class Stored:
    """The pictures of a training set or of a retrieval set, in memory or in files."""

    images: Images

    def __len__(self) -> int:
        return len(self.images)

    def pixels(self, rows: Rows) -> Tensor:
        return self.images.pixels(torch.from_numpy(rows))


@dataclass(frozen=True)
class Chosen:
    """Some rows of other pictures."""

    whole: Pictures
    rows: Rows

    def __len__(self) -> int:
        return len(self.rows)

    def pixels(self, rows: Rows) -> Tensor:
        return self.whole.pixels(self.rows[rows])


@dataclass(frozen=True)
class Joined:
    """The pictures of several parts, one part after the other."""

    parts: tuple[Pictures, ...]

    def __len__(self) -> int:
        return sum(map(len, self.parts))

    def pixels(self, rows: Rows) -> Tensor:
        found: dict[int, Tensor] = {}
        first = 0
        for part in self.parts:
            places = np.flatnonzero((rows >= first) & (rows < first + len(part)))
            if len(places):
                pixels = part.pixels(rows[places] - first)
                found.update(zip(places.tolist(), pixels, strict=True))
            first += len(part)
        return torch.stack([found[place] for place in range(len(rows))])


@dataclass(frozen=True)
class Collection:
    """Queries and the database they are searched in; a hit is right if it shares a class.

    query_labels (Q,C) and database_labels (N,C) uint8. known (N,) bool: whether the classes of an
    image are known; others count neither as right nor as wrong. own_rows (Q,): the database rows
    of the queries themselves, which are no hits; None if the queries are not in the database.
    ``of_unlabelled``: how many unlabelled images there are, of which the database has all or some.
    """

    classes: tuple[str, ...]
    queries: Pictures
    query_labels: NDArray[np.uint8]
    database: Pictures
    database_labels: NDArray[np.uint8]
    known: NDArray[np.bool_]
    own_rows: Rows | None = None
    of_unlabelled: int = 0

    @cached_property
    def known_rows(self) -> Rows:
        return np.flatnonzero(self.known)

    @property
    def labelled(self) -> int:
        """How many labelled images each query is searched among."""
        return len(self.known_rows) - (self.own_rows is not None)

    @property
    def unlabelled(self) -> int:
        return len(self.known) - len(self.known_rows)

    @cached_property
    def query_colours(self) -> Floats:
        """The mean colour (Q,3) of each query, 0-255."""
        return mean_colours(self.queries, np.arange(len(self.queries)))

    @cached_property
    def database_colours(self) -> Floats:
        """The mean colour (N,3) of each image whose classes are known, 0-255; else zeros."""
        colours = np.zeros((len(self.known), 3), dtype=np.float32)
        colours[self.known] = mean_colours(self.database, self.known_rows)
        return colours

    def names(self, query: int) -> str:
        return ", ".join(self.classes[c] for c in np.flatnonzero(self.query_labels[query]))


@dataclass(frozen=True)
class Embedded:
    """What a model makes of a collection: features queries (Q,D) and database (N,D)."""

    model: str  # id
    codebook: Codebook
    queries: Floats
    database: Floats


def of_retrieval_set(images: RetrievalSet) -> Collection:
    """Returns a collection in which all classes are known."""
    return Collection(
        images.classes,
        Stored(ArrayImages(images.queries)),
        images.query_labels.numpy(),
        Stored(ArrayImages(images.database)),
        images.database_labels.numpy(),
        np.ones(len(images.database), dtype=np.bool_),
        None if images.own_rows is None else images.own_rows.numpy(),
    )


def of_training(data: TrainingSet, held_out: HeldOut | None) -> Collection:
    """Returns the collection that shows what a training achieved.

    The queries are the held-out images, or those trained on if there are none, at most
    MAX_QUERIES of them. The database has all labelled images and the unlabelled ones, at most
    MAX_UNLABELLED of them. A query without a right answer is left out.
    """
    parts: list[Pictures] = [Stored(data.labelled_images or ArrayImages(data.labelled))]
    of_parts = [data.labels.cpu().numpy()]
    first = 0
    if held_out:
        first = len(data.labels)
        parts.append(Stored(held_out.images or ArrayImages(held_out.pixels)))
        of_parts.append(held_out.labels.cpu().numpy())
    asked = first + spread(len(of_parts[-1]), MAX_QUERIES).numpy()
    known = sum(map(len, of_parts))
    unlabelled = 0 if data.all_labelled else len(data.unlabelled)
    if unlabelled:
        rows = spread(unlabelled, MAX_UNLABELLED).numpy()
        parts.append(Chosen(Stored(data.unlabelled_images or ArrayImages(data.unlabelled)), rows))
        of_parts.append(np.zeros((len(rows), len(data.classes)), dtype=np.uint8))
    labels = np.concatenate(of_parts).astype(np.uint8)
    shared = labels[asked].astype(np.float32) @ labels[:known].T.astype(np.float32) > 0
    asked = asked[shared.sum(axis=1) > 1]  # one of them is the query itself
    database = Joined(tuple(parts))
    return Collection(
        data.classes,
        Chosen(database, asked),
        labels[asked],
        database,
        labels,
        np.arange(len(labels)) < known,
        asked,
        unlabelled,
    )


def embed(model: Model, collection: Collection, what: str = "encoding") -> Embedded:
    """Computes the features of a collection. ``what``: a name for the progress bar.

    A query that is in the database is encoded once. Pictures of another size than the model's are
    scaled to it.
    """
    database = np.concatenate(
        [
            model.features(_scaled(pixels, model.rules.size).numpy())
            for pixels in _batches(collection.database, np.arange(len(collection.known)), what)
        ]
    )
    if collection.own_rows is not None:
        queries = database[collection.own_rows]
    else:
        rows = np.arange(len(collection.queries))
        queries = np.concatenate(
            [
                model.features(_scaled(pixels, model.rules.size).numpy())
                for pixels in _batches(collection.queries, rows, f"{what} queries")
            ]
        )
    D = model.codebook.D
    return Embedded(model.id, model.codebook, queries[:, :D], database[:, :D])


@torch.no_grad()
def embed_features(
    model: Model,
    compute: Callable[[Tensor], Tensor],
    data: TrainingSet,
    held_out: HeldOut | None,
    collection: Collection,
) -> Embedded:
    """Does what ``embed`` does, with the layers after the frozen part alone.

    ``data``, ``held_out``: the arguments of ``of_training``, whose images are features (N,V,E) of
    that part. ``compute``: what follows it in the model, (B,V,E) -> (B,D).
    """
    parts = [data.labelled, *([held_out.pixels] if held_out else [])]
    if not data.all_labelled:
        parts.append(data.unlabelled[spread(len(data.unlabelled), MAX_UNLABELLED)])
    found = [compute(part).cpu() for of_all in parts for part in torch.split(of_all, BATCH)]
    database = torch.cat(found).numpy()[:, : model.codebook.D]
    assert collection.own_rows is not None  # the queries of a training are in the database
    return Embedded(model.id, model.codebook, database[collection.own_rows], database)


def mean_colours(pictures: Pictures, rows: Rows) -> Floats:
    """Returns the mean colour (R,3) of some pictures, 0-255."""
    found = [pixels.float().mean(dim=(2, 3)) for pixels in _batches(pictures, rows, "colours")]
    return torch.cat(found).numpy() if found else np.zeros((0, 3), dtype=np.float32)


def _batches(pictures: Pictures, rows: Rows, what: str) -> Iterable[Tensor]:
    for first in tqdm(range(0, len(rows), BATCH), desc=what, unit="batch", leave=False):
        yield pictures.pixels(rows[first : first + BATCH])


def _scaled(pixels: Tensor, size: int) -> Tensor:
    if pixels.shape[-1] == size:
        return pixels
    scaled = torch.nn.functional.interpolate(
        pixels.float(), size=(size, size), mode="bilinear", antialias=True, align_corners=False
    )
    return scaled.round().clamp(0, 255).to(torch.uint8)
