"""Reads the values of fields in the metadata of an image, as filters compare them."""

import json
import math
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from datetime import UTC, datetime
from functools import lru_cache
from typing import Any

import orjson

from service.database.records import FieldValue
from service.errors import InvalidFilter

MAX_NAME = 1000  # characters of the name of a field
EXACT = 2**53  # integers below it are exact as float64
MAX_KEYS = 16  # of the objects inside one another that a name goes through

Key = tuple[str, ...]  # the keys of a field, from the outermost object
Select = Callable[["Values"], Sequence[Any]]


class Values:
    """The values of one field of one image; each element of an array is one, null is none."""

    __slots__ = ("_sorted", "found")

    def __init__(self, found: list[Any]) -> None:
        self.found = found
        self._sorted: dict[Select, Sequence[Any]] = {}

    def select(self, select: Select, each: Callable[[Any], Any]) -> Sequence[Any]:
        """Returns those that ``each`` does not turn into None, in order; many are sorted once."""
        if len(self.found) == 1:
            value = each(self.found[0])
            return () if value is None else (value,)
        if select not in self._sorted:
            values = (each(value) for value in self.found)
            self._sorted[select] = sorted(value for value in values if value is not None)
        return self._sorted[select]


class Metadata:
    """The metadata of one image. ``text``: a JSON object, or None."""

    __slots__ = ("_fields", "_top")

    def __init__(self, text: str | None) -> None:
        self._top: Mapping[str, Any] = {} if text is None else _parsed(text)
        self._fields: dict[Key, Values] = {}

    def field(self, keys: Key) -> Values:
        value = self._top.get(keys[0])
        if len(keys) == 1 and type(value) is not list:
            return Values([] if value is None else [value])
        if keys not in self._fields:
            self._fields[keys] = Values(_below(value, keys[1:]))
        return self._fields[keys]


def strings(values: Values) -> Sequence[str]:
    return values.select(strings, _string)


def booleans(values: Values) -> Sequence[bool]:
    return values.select(booleans, _boolean)


def numbers(values: Values) -> Sequence[float]:
    return values.select(numbers, _number)


def moments(values: Values) -> Sequence[float]:
    """The moments that strings name, in seconds since 1970."""
    return values.select(moments, _moment_of)


def keys_of(name: str, where: str) -> Key:
    """Splits the name of a field at its dots. Raises InvalidFilter."""
    parts = re.findall(r"(?:\\.|[^.\\])+|\\", name, re.DOTALL)
    if len(name) > MAX_NAME or len(parts) > MAX_KEYS:
        raise InvalidFilter(f"{where}: a name has at most {MAX_NAME} characters, {MAX_KEYS} keys")
    if "\0" in name or not is_storable(name):
        raise InvalidFilter(f"{where}: a name cannot have NUL or a lone surrogate")
    keys = [re.sub(r"\\(.)", r"\1", part, flags=re.DOTALL) for part in parts]
    if ".".join(parts) != name or not parts or parts[-1] == "\\":
        raise InvalidFilter(f"{where}: a key is missing beside a dot, or after a backslash")
    return tuple(keys)


def name_of(keys: Key) -> str:
    """Returns the one way to write the name of a field."""
    return ".".join(re.sub(r"([.\\])", r"\\\1", key) for key in keys)


def field_values(names: Sequence[str], text: str | None) -> list[list[FieldValue]]:
    """Returns the different values of fields in metadata, which ``Bound`` compares."""
    metadata = Metadata(text)
    return [list(dict.fromkeys(_field_values(metadata.field(_known_keys(name))))) for name in names]


def _field_values(values: Values) -> Iterable[FieldValue]:
    for value in values.found:
        if type(value) is str:
            yield FieldValue(text=value, moment=moment(value))
        elif type(value) in (int, float, bool):
            yield FieldValue(to_float(value))


def to_float(value: float) -> float:
    """Returns a number as float64; one that is too large is infinite."""
    try:
        return float(value)
    except OverflowError:
        return math.inf if value > 0 else -math.inf


def moment(text: str) -> float | None:
    """Returns seconds since 1970, or None if the text is no date."""
    try:
        found = datetime.fromisoformat(text)
        return (found if found.tzinfo else found.replace(tzinfo=UTC)).timestamp()
    except (ValueError, OverflowError):
        return None


def distinct(found: Iterable[Any]) -> list[tuple[Any, Any]]:
    """Returns the different strings, numbers and booleans among values, each with a key before it
    that equal values share: numbers that are equal as float64 are equal, and look alike."""
    by_key: dict[Any, Any] = {}
    for value in found:
        if type(value) in (str, bool):
            by_key.setdefault((type(value), value), value)
        elif type(value) in (int, float):
            number = to_float(value)
            exact = number.is_integer() and abs(number) < EXACT
            shown = int(number) if exact else number if math.isfinite(number) else value
            by_key.setdefault((float, number), shown)
    return list(by_key.items())


def is_storable(text: str) -> bool:
    """Returns whether the text has no lone surrogates."""
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True


@lru_cache(100)
def _known_keys(name: str) -> Key:
    return keys_of(name, "field")


def _string(value: Any) -> str | None:
    return value if type(value) is str else None


def _boolean(value: Any) -> bool | None:
    return value if type(value) is bool else None


def _number(value: Any) -> float | None:
    return to_float(value) if type(value) in (int, float) else None


def _moment_of(value: Any) -> float | None:
    return moment(value) if type(value) is str else None


def _below(value: Any, keys: Key) -> list[Any]:
    """Returns the values below a value; each element of an array counts."""
    level = [value]
    for key in keys:
        objects = [each for each in _elements(level) if type(each) is dict]
        level = [each[key] for each in objects if key in each]
    return [each for each in _elements(level) if each is not None]


def _elements(values: Iterable[Any]) -> Iterable[Any]:
    for value in values:
        if type(value) is list:
            yield from value
        else:
            yield value


def _parsed(metadata: str) -> Mapping[str, Any]:
    try:
        value = orjson.loads(metadata)
    except orjson.JSONDecodeError:  # a number beyond float64
        value = json.loads(metadata)
    return value if isinstance(value, dict) else {}
