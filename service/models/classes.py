"""Says which of a model's classes an image resembles."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from gpq.model.codebook import intra_normalise
from gpq.model.model import Model

MOST_CLASSES = 5
LEAST_PROBABILITY = 0.01


@dataclass(frozen=True)
class ClassShare:
    """A class of the model, and the probability with which an image belongs to it."""

    name: str
    probability: float


def names_of(model: Model) -> list[str]:
    """Returns the names of the classes that a model was trained with; [] if it knows none."""
    classes, names = model.codebook.classes, model.about.get("classes")
    if classes is None or not isinstance(names, list) or len(names) != classes.shape[1]:
        return []
    return [str(name) for name in names]


def probabilities(features: NDArray[np.float32], model: Model) -> NDArray[np.float32]:
    """Returns the probability (L,) of each class for features (D,), as ``Codebook.expanded`` has
    it. The rest to 1 is the probability of none of them."""
    p: NDArray[np.float32] = model.codebook.probabilities(
        intra_normalise(features[None], model.codebook.M)
    )[0]
    return p


def classes_of(features: NDArray[np.float32], model: Model) -> tuple[ClassShare, ...]:
    """Returns the classes that features (D,) resemble, the likeliest first, if any."""
    names = names_of(model)
    if not names:
        return ()
    p = probabilities(features, model)
    best = np.argsort(-p, kind="stable")[:MOST_CLASSES]
    return tuple(
        ClassShare(names[n], round(float(p[n]), 4)) for n in best if p[n] >= LEAST_PROBABILITY
    )
