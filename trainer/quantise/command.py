"""The command ``quantise``: learns codes for a published network and writes an artifact."""

import argparse
import shlex
import sys
import time
from collections.abc import Sequence
from contextlib import closing
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from gpq import __version__
from gpq.engine import torch_architectures
from gpq.engine.torch_architectures import DEFAULT_WIDTHS
from gpq.model.codebook import Codebook
from gpq.system import device as gpq_device
from trainer.artifacts.export import EXAMPLES, MAX_AVERAGED, finished
from trainer.artifacts.saving import require_free, save
from trainer.components import pretrained
from trainer.config import QUANTISED_BITS, QUANTISED_DIMENSION, Architecture
from trainer.data.datasets import FOLDER, provenance
from trainer.data.image_sets import spread
from trainer.data.sampling import sample, sample_pixels
from trainer.data.skipped import print_skipped
from trainer.device import describe
from trainer.errors import TrainerError, writing
from trainer.frozen.cache import GB, FeatureCache
from trainer.frozen.cache import folder as cache_folder
from trainer.frozen.features import ViewFeatures
from trainer.frozen.part import FrozenNetwork
from trainer.initial.rotation import Differences, learn
from trainer.options import DEFAULT_SIZE, DEFAULT_SIZES, rules_for

ITERATIONS = 12
LEAST_IMAGES = 1000  # fewer say too little about how features vary


@dataclass(frozen=True)
class Folder:
    """A folder of images, and the side in pixels that they are scaled to."""

    path: Path
    size: int

    @classmethod
    def parse(cls, text: str, size: int) -> "Folder":
        """Reads DIR or DIR@PIXELS; ``size`` is the default of PIXELS. Raises TrainerError."""
        path, at, pixels = text.rpartition("@")
        if not at or not pixels.isdecimal():
            return cls(Path(text), size)
        if not 32 <= int(pixels) <= size:
            raise TrainerError(f"--data {text}: give 32 to {size} pixels after the @")
        return cls(Path(path), int(pixels))


def quantise(options: argparse.Namespace) -> None:
    """Learns codes for a published network and writes its artifact. Raises TrainerError."""
    started = time.monotonic()
    require_free(options.out, overwrite=options.overwrite)
    name, M = options.network, options.bits // 4
    size = options.size or DEFAULT_SIZES.get(name, DEFAULT_SIZE)
    built = Architecture(name, DEFAULT_WIDTHS.get(name, 0), size)
    folders = [Folder.parse(text, size) for text in options.data]
    d = QUANTISED_DIMENSION
    network = torch_architectures.build(name, M * d, built.width).eval()
    if network.get_submodule("project").in_features < M * d:
        raise TrainerError(f"--bits {options.bits} is more than the features of {name} can fill")
    pretrained.load_pretrained(network, name)
    classifier, _ = pretrained.imagenet_classifier(name)
    features, kinds, examples = _features(options, built, network, folders)
    differences = Differences(classifier, kinds if options.kinds else None)
    length = float(features.norm(dim=1).mean())
    found = learn(features / length, M, d, groups_of(M), ITERATIONS, options.seed, differences)
    last = network.get_submodule("project")
    last.load_state_dict({"weight": found.W, "bias": -length * found.W @ found.mean})
    with torch.no_grad():
        averaged = last(features[spread(len(features), MAX_AVERAGED)]).numpy()
    codebook = Codebook(found.words.numpy())
    training = {
        "recipe": "quantise",
        "network": name,
        "size": size,
        "bits": options.bits,
        "seed": options.seed,
        "command": _command(options),
        "seconds": round(time.monotonic() - started),
        "device": describe(torch.device("cpu")),
        "date": time.strftime("%Y-%m-%d"),
        "versions": {"gpq": __version__, "torch": str(torch.__version__)},
    }
    about: dict[str, Any] = {
        "classes": [],
        "training": training,
        "data": {**_provenance(options.source), **_counted(len(features), options)},
        "measured": None,
    }
    whole = finished(network, built)
    compute = {"network": whole.described, "preprocess": asdict(rules_for(name, size))}
    codebook = replace(codebook, means=codebook.means_of(averaged))
    with writing(options.out):
        model_id = save(
            options.out, whole.tensors, codebook, whole.make_graph, compute, about, examples
        )
    print(f"wrote {options.out}: model {model_id}", file=sys.stderr)


def _counted(images: int, options: argparse.Namespace) -> dict[str, int]:
    """Returns how many of the images have labels, and how many have none."""
    labelled = images if options.kinds else 0
    return {"labelled": labelled, "unlabelled": images - labelled}


def _provenance(sources: Sequence[dict[str, str]]) -> dict[str, str]:
    """Returns the name and the licence of all ``sources`` together."""
    if not sources:
        return provenance(FOLDER)
    names = "; ".join(source["name"] for source in sources)
    return {"name": names, "licence": "; ".join(f"{s['name']}: {s['licence']}" for s in sources)}


def groups_of(M: int) -> list[int]:
    """Divides M codebooks into groups, so that the nested lengths end with a group."""
    groups: list[int] = []
    for bits in QUANTISED_BITS:
        count = bits // 4 - sum(groups)
        if 0 < 2 * count <= M - sum(groups):
            groups.append(count)
    return [*groups, M - sum(groups)]


def _features(
    options: argparse.Namespace, built: Architecture, network: nn.Module, folders: Sequence[Folder]
) -> tuple[Tensor, Tensor, NDArray[np.uint8]]:
    """Returns pooled features (N,E) float32, their kinds (N,) int64, and examples (X,3,S,S) uint8.

    The features are in random order. The kind of an image is its folder within the one that was
    given, so that folders that are given twice have the same kinds.
    """
    parts, examples = [], []
    kinds: list[int] = []
    numbers: dict[Path, int] = {}
    with closing(FeatureCache(cache_folder(), round(options.cache_gb * GB))) as cache:
        for folder in folders:
            rules = rules_for(built.network, folder.size)
            images = sample(folder.path, options.most, rules)
            part = FrozenNetwork(network, None, replace(built, size=folder.size), rules)
            with part.running(str(gpq_device.pick(options.device))) as running:
                compute = ViewFeatures(running, cache, options.seed)
                found = compute.of_images(images, 1, f"{folder.path.name} at {folder.size}")
            print_skipped(found.skipped)
            parts.append(found.values[:, 0].float())
            for row in found.rows.tolist():
                inside = images.files[row].relative_to(folder.path).parts[:-1][:1]
                kinds.append(numbers.setdefault(folder.path.joinpath(*inside), len(numbers)))
            if not options.examples and folder.size == built.size and len(found.rows):
                rows = found.rows[spread(len(found.rows), EXAMPLES // len(folders))]
                examples.append(images.pixels(rows).numpy())
    features = torch.cat(parts)
    if len(features) < LEAST_IMAGES:
        raise TrainerError(
            f"{len(features)} images can be read: at least {LEAST_IMAGES} are needed, of which at "
            "most 20,000 of each --data are used"
        )
    if options.examples:
        rules = rules_for(built.network, built.size)
        examples = [sample_pixels(options.examples, EXAMPLES, rules)]
    if not examples:
        raise TrainerError(f"no --data has images of the network's own size, {built.size} pixels")
    order = torch.randperm(len(features), generator=torch.Generator().manual_seed(options.seed))
    return features[order], torch.tensor(kinds)[order], np.concatenate(examples)


def _command(options: argparse.Namespace) -> str:
    """Returns the command line as given, without the places of this machine."""
    places = {"--data": "DATA", "--examples": "EXAMPLES", "--out": "OUT"}
    words: list[str] = []
    for word in options.words:
        before = words[-1] if words else ""
        _, at, pixels = word.partition("@")
        words.append(f"{places[before]}{at}{pixels}" if before in places else word)
    return shlex.join(["python", "-m", "trainer", *words])
