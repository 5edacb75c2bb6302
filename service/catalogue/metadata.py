"""Checks the metadata of images: a JSON object, stored as text."""

import json
from typing import Any

from service.errors import InvalidMetadata, MetadataTooLarge

MAX_METADATA_BYTES = 16 * 2**10  # of one image, as JSON
MAX_METADATA_DEPTH = 64  # objects and arrays inside one another


def encode_metadata(value: Any, where: str) -> str | None:
    """Returns a JSON object as compact JSON text, and None as None.

    Raises InvalidMetadata or MetadataTooLarge; the message begins with ``where``.
    """
    if value is None:
        return None
    if not isinstance(value, dict):
        raise InvalidMetadata(f"{where}: expected an object or null")
    if _deeper_than(value, MAX_METADATA_DEPTH):
        raise InvalidMetadata(f"{where}: nested more than {MAX_METADATA_DEPTH} levels deep")
    try:
        text = json.dumps(value, ensure_ascii=False, separators=(",", ":"), allow_nan=False)
        size = len(text.encode())
    except (ValueError, RecursionError) as error:  # NaN, or a lone surrogate
        raise InvalidMetadata(f"{where}: {error}") from error
    if size > MAX_METADATA_BYTES:
        raise MetadataTooLarge(f"{where}: {size} bytes; at most {MAX_METADATA_BYTES}")
    return text


def decode_metadata(text: str | None) -> Any:
    """Returns the JSON object of a stored text, and None as None."""
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
