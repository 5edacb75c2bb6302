"""Says which classes of the model an image resembles, and what a hit owes to them."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from gpq.model.model import Model
from service.models.classes import ClassShare, classes_of, names_of, probabilities
from service.search.exact import scores
from service.search.hit import Hit


@dataclass(frozen=True)
class Explanation:
    """``classes``: those that the query resembles, the likeliest first. ``due_to``: the class that
    ``Hit.of_class`` is about."""

    classes: tuple[ClassShare, ...]
    due_to: str


def explained(
    features: NDArray[np.float32], hits: Sequence[Hit], codes: Mapping[int, bytes], model: Model
) -> tuple[Explanation, list[Hit]]:
    """Returns what features (D,) resemble, and the hits with their part of the likeliest class.

    ``codes``: of the hits, by seq. The model must know classes.
    """
    likeliest = int(probabilities(features, model).argmax())
    table = model.codebook.lut_of_class(features[None], likeliest)
    seqs = sorted(codes)
    parts = dict(zip(seqs, scores(table, [codes[seq] for seq in seqs])[0].tolist(), strict=True))

    def with_part(hit: Hit) -> Hit:
        others = tuple(map(with_part, hit.others))
        return replace(hit, of_class=parts.get(hit.seq), others=others)

    explanation = Explanation(classes_of(features, model), names_of(model)[likeliest])
    return explanation, [with_part(hit) for hit in hits]
