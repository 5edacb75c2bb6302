"""Keeps the codes in a local file, so that a start need not read all of them from the database.

The database stays the source of truth: the feed brings the codes of the file up to date. If the
feed does not reach back to the file, or if the file is damaged or belongs to another database or
model, all codes are read from the database.
"""

import hashlib
import json
import logging
import math
import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from gpq.system.files import replacing
from service.database.records import Mark
from service.index.index import Codes

FORMAT = 1
HEADER_BYTES = 1024  # JSON, padded with spaces
log = logging.getLogger("gpq.service")


@dataclass(frozen=True)
class Origin:
    """What the codes belong to: the identity of a database, a model id, and the bytes of a code."""

    database: str
    model: str
    code_bytes: int


def save(path: Path, origin: Origin, mark: Mark, codes: Codes) -> None:
    """Replaces the file atomically. The arrays of ``codes`` must be contiguous. Raises OSError."""
    header = json.dumps(
        {**_described(origin, len(codes.seqs)), **vars(mark), "sha256": _sum(codes)}
    )
    temporary = path.with_name(f"{path.name}.{os.getpid()}.tmp")
    path.parent.mkdir(parents=True, exist_ok=True)
    with replacing(path, temporary) as file:
        file.write(header.encode().ljust(HEADER_BYTES))
        file.write(codes.seqs.data)
        file.write(codes.packed.data)


def load(path: Path, origin: Origin) -> tuple[Mark, Codes] | None:
    """Maps the saved codes of ``origin`` into memory. If it cannot, logs why and returns None."""
    if not path.is_file():
        return None
    try:
        return _read(path, origin)
    except (OSError, ValueError, KeyError, TypeError, OverflowError, RecursionError) as error:
        log.warning("%s is not used; the codes are read from the database instead: %s", path, error)
        return None


def _read(path: Path, origin: Origin) -> tuple[Mark, Codes]:
    with path.open("rb") as file:
        header = json.loads(file.read(HEADER_BYTES))
    rows = int(header["rows"])
    for name, value in _described(origin, rows).items():
        if header[name] != value:
            raise ValueError(f"its {name} is {header[name]}, not {value}")
    size = HEADER_BYTES + rows * (8 + origin.code_bytes)
    if path.stat().st_size != size:
        raise ValueError(f"it has {path.stat().st_size} bytes, not {size}")
    body = np.memmap(path, mode="r", offset=HEADER_BYTES) if rows else np.empty(0, dtype=np.uint8)
    codes = Codes(
        body[: 8 * rows].view(np.int64), body[8 * rows :].reshape(rows, origin.code_bytes)
    )
    if _sum(codes) != header["sha256"]:
        raise ValueError("its checksum is wrong")
    created = float(header["created"])
    if not math.isfinite(created):
        raise ValueError(f"it was created at {created}")
    return Mark(int(header["seq"]), created), codes


def _described(origin: Origin, rows: int) -> dict[str, Any]:
    return {"format": FORMAT, **vars(origin), "rows": rows}


def _sum(codes: Codes) -> str:
    digest = hashlib.sha256(codes.seqs.data)
    digest.update(codes.packed.data)
    return digest.hexdigest()
