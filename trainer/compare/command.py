"""The command ``compare``: measures every method on the images of a user."""

import argparse
import sys
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

from gpq.system import device as gpq_device
from trainer.compare import show
from trainer.compare.artifacts import Artifacts
from trainer.compare.backbone import Backbone
from trainer.compare.material import Material, name_of, of_user
from trainer.compare.reference import of_floats
from trainer.compare.runs import Results, Wanted, run_all
from trainer.config import EVERY_METHOD
from trainer.errors import TrainerError, writing
from trainer.frozen.cache import GB
from trainer.frozen.cache import folder as cache_folder
from trainer.methods import METHODS, Method
from trainer.options import DEFAULT_SIZE, DEFAULT_SIZES

LINES = "compared.jsonl"
MINUTE = 60


def compare(options: argparse.Namespace) -> None:
    """Measures methods on images of the user; writes a table and a plot of each folder or table of
    images. Raises TrainerError."""
    methods = chosen(options.methods)
    bits, limit = sorted(set(options.bits)), MINUTE * options.minutes
    wanted = Wanted(methods, bits, range(options.seeds), limit)
    names = Counter(name_of(source) for source in options.data)
    if twice := [name for name, count in names.items() if count > 1]:
        raise TrainerError(
            f"--data: two folders or tables have the name {twice[0]}, by which results are called: "
            "compare them in two commands, with another --out each"
        )
    with backbone_of(options) as backbone:
        for source in options.data:
            _compare(options, source, wanted, backbone)


def _compare(options: argparse.Namespace, source: Path, wanted: Wanted, backbone: Backbone) -> None:
    material = of_user(source, backbone, options.labels or 0)
    labels = f"{options.labels} labels of each class" if options.labels else "all labels"
    about = f"{backbone.name} at {backbone.size} pixels, {labels}"
    path = options.out / LINES
    if options.artifacts:
        kept = Artifacts(backbone, material, options.out / material.name)
        found = run_all(material, about, wanted, path, kept.write, kept.has)
    else:
        found = run_all(material, about, wanted, path)
    _show(found, material, wanted, about, options.out)


def chosen(names: Sequence[str]) -> dict[str, Method]:
    """Returns the methods with these names, in any case of letters. Raises TrainerError."""
    if [name.lower() for name in names] == [EVERY_METHOD]:
        return dict(METHODS)
    known = {name.lower(): name for name in METHODS}
    wrong = [name for name in names if name.lower() not in known]
    if wrong:
        raise TrainerError(
            f"--methods: there is no {', '.join(wrong)}; known are {', '.join(METHODS)}, and "
            f"{EVERY_METHOD} alone"
        )
    return {known[name.lower()]: METHODS[known[name.lower()]] for name in names}


def backbone_of(options: argparse.Namespace) -> Backbone:
    """Returns the network that the options name. Raises TrainerError."""
    device = str(gpq_device.pick(options.device))
    place, limit = cache_folder(), round(options.cache_gb * GB)
    name = options.network
    size = options.size or DEFAULT_SIZES.get(name, DEFAULT_SIZE)
    return Backbone(name, size, device, place, limit)


def _show(results: Results, material: Material, wanted: Wanted, about: str, out: Path) -> None:
    bytes_each = 4 * material.queries.shape[1]
    labelled, unlabelled = material.learnt_from
    heading = (
        f"{material.name}: {len(material.queries):,} queries over {len(material.database):,} "
        f"images of {len(material.classes)} classes, learnt from {labelled:,} "
        f"labelled and {unlabelled:,} unlabelled others; {about}; the mAP of a "
        f"random order is about {material.chance:.3f}, that of the float features themselves, of "
        f"{bytes_each:,} bytes, {of_floats(material, out):.3f}"
    )
    found = results.figures
    bits = [length for length in wanted.bits if any(each.bits == length for each in found)]
    tables = [show.costs(found, length) for length in bits]
    sentences = [show.advice(found, length) for length in bits]
    sentences += [
        f"{name} is left out from {length} bits on: it learns for more than "
        f"{wanted.limit / MINUTE:g} minutes (--minutes)."
        for name, length in results.too_slow
    ]
    text = "\n".join([heading, "", *tables, *sentences, ""])
    print(text)
    with writing(out):
        (out / f"{material.name}.md").write_text(text)
        path = out / f"{material.name}.png"
        path.unlink(missing_ok=True)  # of other lengths
        if len(bits) > 1:
            show.plot(found, bits, material.name).savefig(path, dpi=110)
            print(f"wrote {path}", file=sys.stderr)
