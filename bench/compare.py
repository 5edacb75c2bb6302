"""Compares the retrieval quality of our codes with floats, PQ, OPQ, ITQ and LSH.

.venv/bin/pip install -c constraints.txt -e .[bench]
.venv/bin/python -m bench.compare --data CIFAR10        protocol 1 of the paper
.venv/bin/python -m bench.compare --data DATA --dataset folder --model models/mine

All methods get the same float features of one model and rank the whole database for every query.
An image is relevant if it has a class of the query; the figures take ties into account. The other
codes are faiss's: they have as many bits per image as ours, and are trained without labels on the
features of the database. Results are written to bench/results/compare-<model folder>.json.
"""

import argparse
from collections.abc import Callable
from pathlib import Path

import faiss
import numpy as np
import torch
from numpy.typing import NDArray
from tqdm import tqdm

from bench.machine import describe
from bench.output import RESULTS, save
from gpq.engine import engines
from gpq.model.codebook import intra_normalise, pack, unpack
from gpq.model.model import Model
from harness.models import SHIPPED
from trainer.data import datasets
from trainer.data.image_sets import retrieval_set
from trainer.evaluation.collection import embed, of_retrieval_set
from trainer.evaluation.metrics import mean_metrics
from trainer.evaluation.ranking import ranked

Floats = NDArray[np.float32]
# Packed codes of the database (N,bytes), and a function that returns the scores (Q,U) of all
# queries for U unique packed codes (U,bytes).
Codes = tuple[NDArray[np.uint8], Callable[[NDArray[np.uint8]], Floats]]


def unit(model: Model, raw: Floats) -> Floats:
    """Divides each sub-vector of features (N,D) by its length.

    The dot product of two features is then M times the mean cosine of their sub-vectors.
    """
    return intra_normalise(raw, model.codebook.M).reshape(len(raw), -1)


def ours(model: Model, queries: Floats, database: Floats) -> Codes:
    """Encodes the database with the model's codebooks; queries score codes by look-up tables."""
    packed = pack(model.codebook.encode(database))
    lut = model.codebook.lut(queries)

    def score(unique: NDArray[np.uint8]) -> Floats:
        codes = unpack(unique, model.codebook.M)
        return np.sum([lut[:, m, codes[:, m]] for m in range(lut.shape[1])], axis=0)

    return packed, score


def product_quantiser(index: faiss.Index, queries: Floats, database: Floats) -> Codes:
    """Encodes the database by PQ or OPQ. Queries are not quantised (asymmetric distances)."""
    index.train(database)
    return index.sa_encode(database), lambda unique: queries @ index.sa_decode(unique).T


def signs(transform: faiss.VectorTransform, queries: Floats, database: Floats) -> Codes:
    """Encodes the database by the signs of a projection.

    The score is the number of bits minus twice the Hamming distance.
    """
    transform.train(database)
    packed = np.packbits(transform.apply(database) > 0, axis=1)
    own = np.where(transform.apply(queries) > 0, 1, -1).astype(np.float32)

    def score(unique: NDArray[np.uint8]) -> Floats:
        bits = np.unpackbits(unique, axis=1, count=own.shape[1]).astype(np.float32)
        return own @ (2 * bits - 1).T

    return packed, score


def measure(
    scores: Floats,
    of_row: NDArray[np.int64],
    shared: NDArray[np.bool_],
    own_rows: NDArray[np.int64] | None,
) -> dict[str, float]:
    """Returns the tie-aware mAP and precision at 10 of a ranking.

    ``scores`` (Q,U): scores of the unique codes. ``of_row`` (N,): index of each image's code among
    them. ``shared`` (Q,N): whether an image shares a class with a query. ``own_rows`` (Q,): the
    queries' own rows in the database, which are left out; None if queries are not in it.
    """
    metrics = []
    progress = tqdm(scores, desc="ranking", leave=False)
    for query, (line, right) in enumerate(zip(progress, shared, strict=True)):
        own = None if own_rows is None else int(own_rows[query])
        metrics.append(ranked(query, line[of_row], right, own).metrics)
    means = mean_metrics(metrics)
    return {
        "mAP_tie_aware": round(means.tie_aware_average_precision, 4),
        "precision_at_10": round(means.precision_at_10, 4),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument(
        "--dataset",
        choices=(datasets.FOLDER, *datasets.NAMES),
        default="cifar10",
        help="layout of --data (default: %(default)s)",
    )
    parser.add_argument("--model", type=Path, default=SHIPPED)
    options = parser.parse_args()

    model = engines.load(options.model)
    images = retrieval_set(options.data, options.dataset, model.rules)
    embedded = embed(model, of_retrieval_set(images))
    queries, database = unit(model, embedded.queries), unit(model, embedded.database)
    shared = (images.query_labels.float() @ images.database_labels.float().T).numpy() > 0

    own_rows = None if images.own_rows is None else images.own_rows.numpy()
    D, M, bits = database.shape[1], model.codebook.M, model.bits
    metric = faiss.METRIC_INNER_PRODUCT
    opq = faiss.IndexPreTransform(faiss.OPQMatrix(D, M), faiss.IndexPQ(D, M, 4, metric))
    methods: dict[str, Callable[[], Codes]] = {
        "ours": lambda: ours(model, queries, database),
        "OPQ": lambda: product_quantiser(opq, queries, database),
        "PQ": lambda: product_quantiser(faiss.IndexPQ(D, M, 4, metric), queries, database),
        "ITQ": lambda: signs(faiss.ITQTransform(D, bits, True), queries, database),
        "LSH": lambda: signs(faiss.RandomRotationMatrix(D, bits), queries, database),
    }
    exact = measure(queries @ database.T, np.arange(len(database)), shared, own_rows)
    found: dict[str, dict[str, float]] = {"float": {"bytes": 4 * D, **exact}}
    for name, method in methods.items():
        packed, score = method()
        unique, of_row = np.unique(packed, axis=0, return_inverse=True)
        figures = measure(score(unique), of_row.ravel(), shared, own_rows)
        found[name] = {"bytes": packed.shape[1], **figures, "unique_codes": len(unique)}
        print(f"{name:<6} {found[name]}", flush=True)

    results = {
        "model": model.id,
        "dataset": options.dataset,
        "n_query": len(queries),
        "n_database": len(database),
        "methods": found,
        "machine": describe(),
        "versions": {"torch": str(torch.__version__), "faiss": faiss.__version__},
    }
    save(results, RESULTS / f"compare-{options.model.name}.json")


if __name__ == "__main__":
    main()
