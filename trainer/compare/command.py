"""The command ``compare``: measures every method on the images of a user."""

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from gpq.system import device as gpq_device
from trainer.compare import show
from trainer.compare.material import Backbone, Material, of_folder
from trainer.compare.measure import Figures
from trainer.compare.runs import run_all
from trainer.errors import TrainerError, writing
from trainer.frozen.cache import GB
from trainer.frozen.cache import folder as cache_folder
from trainer.methods import METHODS
from trainer.options import DEFAULT_SIZE, DEFAULT_SIZES

LINES = "compared.jsonl"
EVERY = "all"


def compare(options: argparse.Namespace) -> None:
    """Measures methods on folders of images; writes a table and a plot of each. Raises
    TrainerError."""
    methods = chosen(options.methods)
    backbone = backbone_of(options)
    for folder in options.data:
        material = of_folder(folder, backbone, options.labels or 0)
        labels = f"{options.labels} labels of each class" if options.labels else "all labels"
        about = f"{backbone.name} at {backbone.size} pixels, {labels}"
        seeds, bits = range(options.seeds), sorted(set(options.bits))
        lines = run_all(material, about, methods, bits, seeds, options.out / LINES)
        _show([line.figures for line in lines], material, bits, about, options.out)


def chosen(names: Sequence[str]) -> list[str]:
    """Returns the methods with these names, in any case of letters. Raises TrainerError."""
    if [name.lower() for name in names] == [EVERY]:
        return list(METHODS)
    known = {name.lower(): name for name in METHODS}
    wrong = [name for name in names if name.lower() not in known]
    if wrong:
        raise TrainerError(
            f"--methods: there is no {', '.join(wrong)}; known are {', '.join(METHODS)}"
        )
    return list(dict.fromkeys(known[name.lower()] for name in names))


def backbone_of(options: argparse.Namespace) -> Backbone:
    """Returns the network that the options name. Raises TrainerError."""
    device = str(gpq_device.pick(options.device))
    place, limit = cache_folder(), round(options.cache_gb * GB)
    name = options.network
    size = options.size or DEFAULT_SIZES.get(name, DEFAULT_SIZE)
    return Backbone(name, size, device, place, limit)


def _show(
    found: Sequence[Figures], material: Material, bits: Sequence[int], about: str, out: Path
) -> None:
    heading = (
        f"{material.name}: {len(material.queries):,} queries over {len(material.database):,} "
        f"images of {len(material.classes)} classes, {about}"
    )
    tables = [show.costs(found, length) for length in bits]
    sentences = [show.advice(found, length) for length in bits]
    text = "\n".join([heading, "", *tables, *sentences, ""])
    print(text)
    with writing(out):
        (out / f"{material.name}.md").write_text(text)
        if len(bits) > 1:
            path = out / f"{material.name}.png"
            show.plot(found, bits, material.name).savefig(path, dpi=110)
            print(f"wrote {path}", file=sys.stderr)
