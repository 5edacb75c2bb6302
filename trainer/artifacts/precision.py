"""Measures what bfloat16 costs a model, and makes a model for bfloat16 if it costs little.

Stored codes and queries may be computed in different precisions: by different processors, or by a
service that was set to another precision.
"""

import sys
from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from gpq.engine import engines, openvino_network
from gpq.errors import ArtifactError
from gpq.model import artifact
from gpq.model.artifact import Precision
from gpq.model.codebook import pack
from gpq.model.model import Model
from trainer.artifacts.saving import derive, require_free
from trainer.data.image_sets import RetrievalSet
from trainer.errors import TrainerError, writing
from trainer.evaluation.collection import embed, of_retrieval_set
from trainer.evaluation.evaluate import measure, require_searchable

FLOAT32: Final = "float32"
BFLOAT16: Final = "bfloat16"
BOTH: tuple[Precision, ...] = (FLOAT32, BFLOAT16)
MOST_LOST = 0.002  # of the mAP and of the precision at 10


@dataclass(frozen=True)
class Combination:
    """The figures of stored codes and queries, each computed in a precision.

    The changes are those from float32 for both.
    """

    codes: str
    queries: str
    mAP_tie_aware: float
    mAP_change: float
    precision_at_10: float
    precision_at_10_change: float

    @property
    def loses_much(self) -> bool:
        return min(self.mAP_change, self.precision_at_10_change) < -MOST_LOST


@dataclass(frozen=True)
class Comparison:
    """The four combinations of precisions, float32 for both first.

    ``changed_codes``: share of the database's images whose code differs between the precisions.
    """

    combinations: tuple[Combination, ...]
    changed_codes: float

    def as_dict(self) -> dict[str, Any]:
        return {
            "combinations": [asdict(each) for each in self.combinations],
            "changed_codes": self.changed_codes,
        }


def load(folder: Path) -> dict[str, Model]:
    """Loads an artifact in each precision. Raises TrainerError if that is impossible here."""
    if artifact.load(folder).cost is None:
        raise TrainerError(
            f"{folder} has no graph, which OpenVINO needs: run `python -m trainer upgrade {folder}`"
        )
    if reason := openvino_network.missing():
        raise TrainerError(f"no precision can be measured: {reason}")
    if not openvino_network.supports(BFLOAT16):
        raise TrainerError(
            "this processor does not compute in bfloat16: use one with AVX512_BF16 or AMX"
        )
    try:
        models = {FLOAT32: engines.load(folder, engines.Options("openvino", FLOAT32))}
    except ArtifactError as error:
        raise TrainerError(f"the model cannot be used in {FLOAT32}: {error}") from error
    # Golden codes may differ in bfloat16. They are not verified: the searches tell the cost.
    rounded = engines.start(artifact.load(folder), engines.Options("openvino", BFLOAT16))
    return {**models, BFLOAT16: rounded}


def compare(models: Mapping[str, Model], images: RetrievalSet, engine: str = "auto") -> Comparison:
    """Searches with each combination of precisions. ``engine``: of the scan.

    Raises TrainerError if there is nothing to search.
    """
    collection = of_retrieval_set(images)
    require_searchable(collection)
    by = {name: embed(model, collection, f"encoding, {name}") for name, model in models.items()}
    model = models[FLOAT32]
    found: list[Combination] = []
    for codes in BOTH:
        for asked in BOTH:
            searched = replace(by[FLOAT32], queries=by[asked].queries, database=by[codes].database)
            measured = measure(searched, model.codebook.M, collection, engine)
            mAP, precision = measured.mAP_tie_aware, measured.precision_at_10
            if not found:  # float32 for both
                base = mAP, precision
            changes = round(mAP - base[0], 4), round(precision - base[1], 4)
            found.append(Combination(codes, asked, mAP, changes[0], precision, changes[1]))
    return Comparison(
        tuple(found), _changed(model, {name: found.database for name, found in by.items()})
    )


def require_makeable(source: Path, folder: Path, *, overwrite: bool) -> None:
    """Raises TrainerError if ``source`` is made for bfloat16 already, or ``folder`` is not free."""
    require_free(folder, overwrite=overwrite)
    precision = artifact.load(source).precision
    if precision != FLOAT32:
        raise TrainerError(f"{source} is made for {precision} already")


def make(
    source: Path,
    comparison: Comparison,
    protocol: str,
    folder: Path,
    *,
    examples: NDArray[np.uint8] | None = None,
    overwrite: bool = False,
) -> str:
    """Writes ``source`` as a model for bfloat16; returns its id.

    ``protocol``: of the images that were searched, in words. ``examples``: images (N,3,S,S) for the
    golden vectors, in place of those of ``source``. Raises TrainerError if a combination loses more
    than MOST_LOST, and as ``require_makeable`` does.
    """
    require_makeable(source, folder, overwrite=overwrite)
    found = artifact.load(source)
    worst = [each for each in comparison.combinations if each.loses_much]
    if worst:
        figures = "; ".join(
            f"{each.codes} codes and {each.queries} queries: mAP {each.mAP_change:+.4f}, "
            f"precision at 10 {each.precision_at_10_change:+.4f}"
            for each in worst
        )
        raise TrainerError(
            f"{source} loses more than {MOST_LOST} in bfloat16, so no model is written: {figures}"
        )
    about = {
        **found.about,
        "measured": None,
        "precision": {
            "from": {"id": found.id},
            "protocol": protocol,
            **comparison.as_dict(),
        },
    }
    with writing(folder):
        made = derive(found, folder, found.codebook, about, precision=BFLOAT16, examples=examples)
    _warn_if_refused(folder)
    return made


def _warn_if_refused(folder: Path) -> None:
    """Says so if services will compute a model in float32, because golden codes differ."""
    try:
        engines.load(folder, engines.Options("openvino", BFLOAT16))
    except ArtifactError:
        print(
            f"{folder}: services will compute in float32, because the code of no golden image is "
            "the same in bfloat16: give a folder with more images with --examples",
            file=sys.stderr,
        )


def table(comparison: Comparison) -> str:
    """Formats a line per combination, with its changes from float32 for both."""
    lines = [
        f"{'codes':<9} {'queries':<9} {'mAP_tie_aware':>14} {'change':>8}"
        f" {'precision_at_10':>16} {'change':>8}"
    ]
    lines += [
        f"{each.codes:<9} {each.queries:<9} {each.mAP_tie_aware:>14.4f} {each.mAP_change:>+8.4f}"
        f" {each.precision_at_10:>16.4f} {each.precision_at_10_change:>+8.4f}"
        for each in comparison.combinations
    ]
    changed = f"{100 * comparison.changed_codes:.2f} %"
    return "\n".join([*lines, f"images whose code differs between the precisions: {changed}"])


def _changed(model: Model, database: Mapping[str, NDArray[np.float32]]) -> float:
    first, second = (pack(model.codebook.encode(database[name])) for name in BOTH)
    return round(float((first != second).any(axis=1).mean()), 6)
