"""Our codes against other ways to store the same features: floats, PQ, OPQ, ITQ, LSH.

.venv/bin/pip install -c constraints.txt -e .[bench]
.venv/bin/python -m bench.compare --data CIFAR10        protocol 1 of the paper
.venv/bin/python -m bench.compare --data DATA --dataset folder --model models/mine

All methods see the same float features of one model and rank the whole database for every
query; relevant = same class; ties taken into account. The four peers are faiss's, as many
bits a picture as ours, learnt without labels on the database's features. Results go to
bench/results/compare-<model folder>.json.
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
from gpq.model import artifact
from gpq.model.codebook import intra_normalise, pack, unpack
from gpq.model.model import Model
from harness.models import SHIPPED
from trainer.data import datasets
from trainer.data.arrays import retrieval_set
from trainer.evaluation.evaluate import features
from trainer.evaluation.metrics import tie_aware_average_precision, tie_aware_mean_at

Floats = NDArray[np.float32]
# Packed codes (N,bytes) of the database, and what scores (Q,U) of unique ones.
Codes = tuple[NDArray[np.uint8], Callable[[NDArray[np.uint8]], Floats]]


def unit_features(model: Model, pictures: torch.Tensor, what: str) -> Floats:
    """(N,D), every sub-vector of unit length, so that a dot product is M × the mean cosine."""
    raw = features(model, pictures, what)
    return intra_normalise(raw, model.codebook.M).flatten(1).numpy()


def ours(model: Model, queries: Floats, database: Floats) -> Codes:
    packed = pack(model.codebook.encode(torch.from_numpy(database))).numpy()
    lut = model.codebook.lut(torch.from_numpy(queries)).numpy()

    def score(unique: NDArray[np.uint8]) -> Floats:
        codes = unpack(torch.from_numpy(unique), model.codebook.M).numpy()
        return np.sum([lut[:, m, codes[:, m]] for m in range(lut.shape[1])], axis=0)

    return packed, score


def product_quantiser(index: faiss.Index, queries: Floats, database: Floats) -> Codes:
    """PQ or OPQ with asymmetric distances: the query is not quantised."""
    index.train(database)
    return index.sa_encode(database), lambda unique: queries @ index.sa_decode(unique).T


def signs(transform: faiss.VectorTransform, queries: Floats, database: Floats) -> Codes:
    """Binary codes, the signs of a projection; the score is minus the Hamming distance."""
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
    """scores (Q,U) of unique codes, of_row (N,) which of them each picture has, shared
    (Q,N) true where a picture has a class of the query's, own_rows (Q,) the queries' own."""
    figures = []
    progress = tqdm(scores, desc="ranking", leave=False)
    for query, (line, right) in enumerate(zip(progress, shared, strict=True)):
        each = line[of_row]
        order = np.argsort(-each, kind="stable")
        if own_rows is not None:
            order = order[order != own_rows[query]]
        relevant, ranked = right[order], each[order]
        figures.append(
            (
                tie_aware_average_precision(relevant, ranked),
                tie_aware_mean_at(relevant, ranked, 10),
            )
        )
    mean_ap, precision = np.mean(figures, axis=0)
    return {"mAP_tie_aware": round(mean_ap, 4), "precision_at_10": round(precision, 4)}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument(
        "--dataset",
        choices=(datasets.FOLDER, *datasets.NAMES),
        default="cifar10",
        help="(%(default)s)",
    )
    parser.add_argument("--model", type=Path, default=SHIPPED)
    options = parser.parse_args()

    model = artifact.load(options.model)
    pictures = retrieval_set(options.data, options.dataset, model.rules)
    queries = unit_features(model, pictures.queries, "queries")
    database = unit_features(model, pictures.database, "database")
    shared = (pictures.query_labels.float() @ pictures.database_labels.float().T).numpy() > 0

    own_rows = None if pictures.own_rows is None else pictures.own_rows.numpy()
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
