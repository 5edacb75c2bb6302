"""Draws how mAP on held-out images grows with the seconds of training.

.venv/bin/python -m bench.curves modern=runs/modern/log.jsonl paper=runs/paper/log.jsonl

Each log comes from a training with --held-out. Seconds count the training steps, without the time
for measuring mAP. The plot is written to docs/training.png, its data to bench/results/curves.json.
"""

import argparse
import json
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from matplotlib.figure import Figure

from bench import plots
from bench.output import RESULTS
from harness import ROOT

WRITTEN = RESULTS / "curves.json"
DRAWN = ROOT / "docs" / "training.png"
SHARES = (0.5, 0.8, 0.9, 0.95)  # of the best mAP of a training
COLOURS = ("#2457a6", "#c8502d", "#22a054", "#8a5bb5", "#8a8a84")


@dataclass(frozen=True)
class Curve:
    """The measurements of one training in order of their steps; every list has one entry for each.

    ``seconds``: time of training until then. ``mAP``: on the held-out images.
    """

    name: str
    steps: list[int]
    seconds: list[float]
    mAP: list[float]

    def seconds_to(self, mAP: float) -> float | None:
        """Returns the seconds until mAP is first at least that high, or None if it never is."""
        reached = (s for s, found in zip(self.seconds, self.mAP, strict=True) if found >= mAP)
        return next(reached, None)

    def as_dict(self) -> dict[str, object]:
        """Returns the entry of this training in bench/results/curves.json."""
        best = max(self.mAP)
        shares = {f"{share:.0%}": self.seconds_to(share * best) for share in SHARES}
        checks = [
            {"step": step, "seconds": s, "mAP": found}
            for step, s, found in zip(self.steps, self.seconds, self.mAP, strict=True)
        ]
        return {"name": self.name, "best": best, "seconds_to_share": shares, "checks": checks}


def read(name: str, path: Path) -> Curve:
    """Reads the measurements from the log.jsonl of a training.

    If a resumed training repeated a step, its last line counts. Raises ValueError if the log has
    no measurements.
    """
    lines = [json.loads(text) for text in path.read_text().splitlines() if text.endswith("}")]
    checks = {line["step"]: line for line in lines if "held_out_mAP" in line}
    if not checks:
        raise ValueError(f"{path} has no line with held_out_mAP; train with --held-out")
    ordered = [checks[step] for step in sorted(checks)]
    return Curve(
        name,
        [line["step"] for line in ordered],
        [line["seconds"] for line in ordered],
        [line["held_out_mAP"] for line in ordered],
    )


def draw(curves: list[Curve]) -> Figure:
    """Draws all curves in one plot, in minutes if any training took more than five."""
    drawn = Figure(figsize=(8, 4.4), layout="constrained")
    axes = drawn.subplots()
    minutes = max(max(curve.seconds) for curve in curves) > 300
    for curve, colour in zip(curves, np.resize(COLOURS, len(curves)), strict=True):
        times = np.array(curve.seconds) / (60 if minutes else 1)
        axes.plot(times, curve.mAP, marker="o", markersize=4, color=colour, label=curve.name)
        axes.annotate(f"{curve.mAP[-1]:.3f}", (times[-1], curve.mAP[-1]), xytext=(5, 0),
                      textcoords="offset points", va="center", color=colour)  # fmt: skip
    axes.set(xlabel="minutes of training" if minutes else "seconds of training")
    axes.set(ylabel="mAP on held-out images", ylim=(0, 1), xlim=(0, None))
    axes.margins(x=0.08)
    plots.hide_frame(axes)
    axes.legend(frameon=False, loc="upper left" if len(curves) == 1 else "best")
    return drawn


def main(arguments: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("logs", nargs="+", type=_named, metavar="NAME=log.jsonl")
    parser.add_argument("--out", type=Path, default=WRITTEN, help="JSON file (%(default)s)")
    parser.add_argument("--drawn", type=Path, default=DRAWN, help="plot (%(default)s)")
    options = parser.parse_args(arguments)
    try:
        curves = [read(name, path) for name, path in options.logs]
    except (OSError, ValueError) as error:
        parser.error(str(error))
    draw(curves).savefig(options.drawn, dpi=110)
    runs = [curve.as_dict() for curve in curves]
    options.out.write_text(json.dumps({"runs": runs}, indent=1) + "\n")
    print(f"wrote {options.out} and {options.drawn}")


def _named(text: str) -> tuple[str, Path]:
    name, equals, path = text.partition("=")
    if not (name and equals and path):
        raise argparse.ArgumentTypeError(f"{text}: expected NAME=log.jsonl")
    return name, Path(path)


if __name__ == "__main__":
    main()
