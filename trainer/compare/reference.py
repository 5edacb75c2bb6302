"""Ranks images by the cosines of their float features, which no method has made shorter."""

from pathlib import Path

import numpy as np
from tqdm import tqdm

from trainer import lines as files
from trainer.compare.material import Material
from trainer.evaluation.metrics import of_scores
from trainer.methods.shallow.reduction import unit

LINES = "floats.jsonl"
TOGETHER = 32  # queries at a time


def of_floats(material: Material, folder: Path) -> float:
    """Returns the mAP of the float features; once computed, it is read from ``folder``."""
    path, digest = folder / LINES, material.digest
    lines = files.read(path)
    for line in lines:
        if line.get("digest") == digest:
            return float(line["mAP"])
    stored, database = material.database_labels.T.astype(np.float32), unit(material.database).T
    found = []
    for first in tqdm(range(0, len(material.queries), TOGETHER), desc="floats", leave=False):
        some = slice(first, first + TOGETHER)
        scores = unit(material.queries[some]) @ database
        relevant = material.query_labels[some].astype(np.float32) @ stored > 0
        found += [of_scores(*pair)[0] for pair in zip(scores, relevant, strict=True)]
    mAP = round(float(np.mean(found)), 4)
    files.write(path, [*lines, {"material": material.name, "digest": digest, "mAP": mAP}])
    return mAP
