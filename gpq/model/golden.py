"""Chooses and verifies golden vectors: images whose codes every engine must compute.

They stand in config.json as PNG files with their codes, and are far from any other code, so that a
difference means that the weights are damaged or the engine is wrong.
"""

import base64
import io
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from gpq.errors import ArtifactError, ImageError
from gpq.model.artifact import CONFIG
from gpq.model.model import Model
from gpq.model.weights import WEIGHTS
from gpq.pixels import decode
from gpq.pixels.preprocess import Preprocess

GOLDEN_MARGIN = 1e-3  # difference in cosine between the best and the second codeword
GOLDEN_COUNT = 8


def choose(
    model: Model, examples: NDArray[np.uint8], rounded: Model | None = None
) -> list[dict[str, Any]]:
    """Returns golden vectors: the images (N,3,S,S) with the largest margins, one for each code.

    ``rounded``: the same model in bfloat16. Images whose code it computes too are preferred, so
    that a service may use either. Raises ArtifactError if no image's code is at least
    GOLDEN_MARGIN away from another code.
    """
    features = model.features(examples)
    margins = model.codebook.margin(features)
    codes = model.codebook.encode(features)
    if rounded:
        same = (model.codebook.encode(rounded.features(examples)) == codes).all(axis=1)
        if (margins[same] >= GOLDEN_MARGIN).any():
            margins = np.where(same, margins, 0)
    chosen: list[dict[str, Any]] = []
    for row in np.argsort(-margins, kind="stable"):
        code = codes[row].tolist()
        if margins[row] < GOLDEN_MARGIN or len(chosen) == GOLDEN_COUNT:
            break
        if code in [vector["code"] for vector in chosen]:
            continue
        png = io.BytesIO()
        Image.fromarray(examples[row].transpose(1, 2, 0)).save(png, "PNG")
        chosen.append({"png": base64.b64encode(png.getvalue()).decode(), "code": code})
    if not chosen:
        raise ArtifactError(
            f"no example's code is at least {GOLDEN_MARGIN} away from another code: the largest "
            f"margin of {len(examples)} is {margins.max().item():.2g}; the codewords coincide"
        )
    return chosen


def images(rules: Preprocess, about: dict[str, Any], folder: Path) -> NDArray[np.uint8]:
    """Returns the pixels (N,3,S,S) of the golden images in ``about``. Raises ArtifactError."""
    return np.stack([pixels for pixels, _ in _vectors(rules, about, folder)])


def verify(model: Model, folder: Path) -> None:
    """Encodes the golden images, alone and in batches, and raises ArtifactError if a code differs
    from the stored one.

    ``folder``: the folder of the artifact, for the message.
    """
    vectors, place = _vectors(model.rules, model.about, folder), str(folder / CONFIG)
    for number, (pixels, expected) in enumerate(vectors):
        code = _encoded(model, pixels[None], place)[0].tolist()
        if code != expected:
            raise ArtifactError(
                f"{folder / WEIGHTS}: golden vector {number} encodes to {code}, not {expected}: "
                "the weights are damaged, or this machine computes other values"
            )
    pixels, codes = (np.stack(column) for column in zip(*vectors, strict=True))
    _require_same_in_batches(model, pixels, codes, place)


def require_same_alone(model: Model, examples: NDArray[np.uint8]) -> None:
    """Raises ArtifactError if images (N,3,S,S) get other codes in batches than alone.

    Images that are near another code don't count.
    """
    some, engine = examples[:GOLDEN_COUNT], model.network.engine
    features = np.concatenate([_features(model, image[None], engine) for image in some])
    sure = model.codebook.margin(features) >= GOLDEN_MARGIN
    if sure.any():
        codes = model.codebook.encode(features[sure])
        _require_same_in_batches(model, some[sure], codes, engine)


def _require_same_in_batches(
    model: Model, pixels: NDArray[np.uint8], codes: NDArray[np.integer], place: str
) -> None:
    """Raises ArtifactError unless images (N,3,S,S) have these codes (N,M) at every place of every
    batch. For one network, OpenVINO 2026.4 computed the last eight rows of 32 wrongly."""
    for size in model.network.batches:
        rows = np.arange(size) % len(pixels)
        found = _encoded(model, pixels[rows], place)
        wrong = np.flatnonzero((found != codes[rows]).any(axis=1))
        if len(wrong):
            raise ArtifactError(
                f"{model.network.engine} computes other codes in batches than for single images: "
                f"row {wrong[0]} of {size} has {found[wrong[0]].tolist()}, not "
                f"{codes[rows[wrong[0]]].tolist()}"
            )


def _encoded(model: Model, pixels: NDArray[np.uint8], place: str) -> NDArray[np.uint8]:
    return model.codebook.encode(_features(model, pixels, place))


def _features(model: Model, pixels: NDArray[np.uint8], place: str) -> NDArray[np.float32]:
    """Computes features. Raises ArtifactError, whose message begins with ``place``."""
    try:
        return model.features(pixels)
    except RuntimeError as error:
        raise ArtifactError(
            f"{place}: the network cannot encode {len(pixels)} image(s): {error}"
        ) from error


def _vectors(
    rules: Preprocess, about: dict[str, Any], folder: Path
) -> list[tuple[NDArray[np.uint8], list[int]]]:
    path = folder / CONFIG
    golden = about.get("golden")
    if not isinstance(golden, list) or not golden:
        raise ArtifactError(f"{path}: 'about' has no golden vectors to verify the model with")
    vectors = []
    for number, vector in enumerate(golden):
        try:
            image = decode.load(base64.b64decode(vector["png"], validate=True))
            vectors.append((rules.prepare(image), [int(c) for c in vector["code"]]))
        except (ImageError, KeyError, TypeError, ValueError, OverflowError) as error:
            raise ArtifactError(f"{path}: golden vector {number} is damaged: {error}") from error
    return vectors
