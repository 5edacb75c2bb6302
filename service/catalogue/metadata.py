"""What people say of a picture: a JSON object, kept as text."""

import json
from typing import Any

from service.problems import Problem
from service.settings import MAX_METADATA_BYTES, MAX_METADATA_DEPTH


def encode_metadata(value: Any, where: str) -> str | None:
    """A JSON object or None -> compact JSON text. Raises Problem 422, which says ``where``."""
    if value is None:
        return None
    if not isinstance(value, dict):
        raise Problem(422, "invalid-metadata", f"{where}: expected an object or null")
    if _deeper_than(value, MAX_METADATA_DEPTH):
        raise Problem(422, "invalid-metadata", f"{where}: nested deeper than {MAX_METADATA_DEPTH}")
    try:
        text = json.dumps(value, ensure_ascii=False, separators=(",", ":"), allow_nan=False)
        size = len(text.encode())
    except (ValueError, RecursionError) as error:  # NaN, or a lone surrogate
        raise Problem(422, "invalid-metadata", f"{where}: {error}") from error
    if size > MAX_METADATA_BYTES:
        raise Problem(
            422, "metadata-too-large", f"{where}: {size} bytes; at most {MAX_METADATA_BYTES}"
        )
    return text


def decode_metadata(text: str | None) -> Any:
    """Stored text -> the JSON object, or None."""
    return None if text is None else json.loads(text)


def _deeper_than(value: Any, depth: int) -> bool:
    level = [value]
    for _ in range(depth):
        level = [
            child
            for parent in level
            for child in (parent.values() if isinstance(parent, dict) else parent)
            if isinstance(child, dict | list)
        ]
        if not level:
            return False
    return True
