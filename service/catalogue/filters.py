"""Filters choose images by their metadata.

    {"brand": "acme", "price": {"lt": 20}, "tags": {"any": ["red", "sale"]},
     "sold": {"exists": false}, "or": [{"size.width": 3}, {"not": {"made": {"lt": {"date": …}}}}]}

A filter is a JSON object. All of its parts must hold. ``and`` and ``or`` take lists of filters,
``not`` takes one; every other key names a field, with dots between the keys of nested objects, and
has a value or an object of operators (``OPERATORS``). A backslash before a character of a field's
name takes it literally.

A condition on an array holds if it holds for one of its elements. Numbers compare as float64,
strings by code point, and values of different types never match. ``{"date": TEXT}`` compares
moments: it is written, and the field must be written, as in ISO 8601; without an offset in UTC.
"""

import json
import math
import operator
import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from functools import lru_cache
from typing import Any, Literal

import orjson

from service.database.records import Bound, FieldValue
from service.errors import InvalidFilter

MAX_DEPTH = 8  # filters inside one another
MAX_CONDITIONS = 100
MAX_OPERANDS = 1000  # values of all conditions together
MAX_TEXT = 1000  # characters of a name or of a value
MAX_KEYS = 16  # of the objects inside one another that a field's name goes through

Kind = Literal["number", "text", "moment"]
Values = list[Any]  # of one field of one image: strings, numbers, booleans and objects
Condition = Callable[[Values], bool]
Test = Callable[[Mapping[str, Any]], bool]
COMPARISONS: dict[str, Callable[[Any, Any], bool]] = {
    "lt": operator.lt, "lte": operator.le, "gt": operator.gt, "gte": operator.ge,
}  # fmt: skip
OPERATORS = ("eq", *COMPARISONS, "any", "all", "prefix", "exists")


@dataclass(frozen=True)
class Filter:
    """A filter that was checked.

    ``text``: its JSON; filters with equal texts are equal. ``bounds``: what must hold, at least.
    """

    text: str
    bounds: tuple[Bound, ...] = field(compare=False)
    _test: Test = field(compare=False)

    def matches(self, metadata: str | None) -> bool:
        """Returns whether an image with this metadata, a JSON object as text, is chosen."""
        return self._test({} if metadata is None else _parsed(metadata))


def parse(value: Any, where: str = "filter") -> Filter:
    """Returns a filter. Raises InvalidFilter; the message begins with the place of the error."""
    parser = _Parser()
    test = parser.filter(value, where, MAX_DEPTH, certain=True)
    return Filter(json.dumps(value, sort_keys=True), tuple(parser.bounds), test)


def field_name(name: str, where: str) -> str:
    """Returns the one way to write the name of a field. Raises InvalidFilter."""
    return _joined(_keys(name, where))


def values_of(name: str, metadata: str | None) -> list[FieldValue]:
    """Returns the values of a field, which ``Bound`` compares, in metadata as JSON text."""
    if metadata is None:
        return []
    found = _values(_parsed(metadata), list(_keys_of(name)))
    values = [_field_value(value) for value in found]
    return list(dict.fromkeys(value for value in values if value is not None))


class _Parser:
    """Parses one filter, and counts its parts."""

    def __init__(self) -> None:
        self.bounds: list[Bound] = []
        self._conditions = self._operands = 0

    def filter(self, value: Any, where: str, depth: int, *, certain: bool) -> Test:
        """``certain``: whether this part must hold for the whole filter to hold."""
        if not isinstance(value, dict):
            raise InvalidFilter(f"{where}: expected an object")
        if depth == 0:
            raise InvalidFilter(f"{where}: filters may be nested {MAX_DEPTH} deep")
        tests = [
            self._part(name, part, f"{where}.{name[:MAX_TEXT]}", depth, certain)
            for name, part in value.items()
        ]
        return tests[0] if len(tests) == 1 else lambda metadata: all(t(metadata) for t in tests)

    def _part(self, name: str, value: Any, where: str, depth: int, certain: bool) -> Test:
        if name == "not":
            test = self.filter(value, where, depth - 1, certain=False)
            return lambda metadata: not test(metadata)
        if name in ("and", "or"):
            if not isinstance(value, list) or not value:
                raise InvalidFilter(f"{where}: expected a list of filters")
            certain = certain and (name == "and" or len(value) == 1)
            tests = [
                self.filter(each, f"{where}[{n}]", depth - 1, certain=certain)
                for n, each in enumerate(value)
            ]
            joined = all if name == "and" else any
            return lambda metadata: joined(test(metadata) for test in tests)
        self._conditions += 1
        if self._conditions > MAX_CONDITIONS:
            raise InvalidFilter(f"{where}: a filter has at most {MAX_CONDITIONS} conditions")
        keys, condition = _keys(name, where), self._condition(value, where)
        if certain:
            self.bounds += _bounds(_joined(keys), value)
        return _at(keys, condition)

    def _condition(self, value: Any, where: str) -> Condition:
        if value is None:
            return lambda values: not values
        if isinstance(value, list):
            raise InvalidFilter(f"{where}: use any or all with a list")
        if not isinstance(value, dict) or "date" in value:
            return self._equal([value], where)
        if not value:
            raise InvalidFilter(f"{where}: expected one of {', '.join(OPERATORS)}")
        parts = [
            self._operator(name, operand, f"{where}.{name[:MAX_TEXT]}")
            for name, operand in value.items()
        ]
        return parts[0] if len(parts) == 1 else lambda values: all(part(values) for part in parts)

    def _operator(self, name: str, operand: Any, where: str) -> Condition:
        if name == "eq":
            return self._equal([operand], where)
        if name in COMPARISONS:
            convert, wanted = self._operand(operand, where)
            if isinstance(wanted, bool):
                raise InvalidFilter(f"{where}: expected a number, a string or a date")
            compare = COMPARISONS[name]
            return lambda values: any(compare(found, wanted) for found in convert(values))
        if name == "any":
            return self._equal(_list(operand, where), where)
        if name == "all":
            parts = [self._equal([each], where) for each in _list(operand, where)]
            return lambda values: all(part(values) for part in parts)
        if name == "prefix":
            convert, begin = self._operand(operand, where)
            if not isinstance(begin, str):
                raise InvalidFilter(f"{where}: expected a string")
            return lambda values: any(found.startswith(begin) for found in convert(values))
        if name == "exists":
            if not isinstance(operand, bool):
                raise InvalidFilter(f"{where}: expected true or false")
            return lambda values: bool(values) is operand
        raise InvalidFilter(f"{where}: unknown; the operators are {', '.join(OPERATORS)}")

    def _equal(self, operands: list[Any], where: str) -> Condition:
        wanted: dict[Callable[[Values], Iterable[Any]], set[Any]] = {}
        for operand in operands:
            convert, value = self._operand(operand, where)
            wanted.setdefault(convert, set()).add(value)
        (convert, equals), *more = wanted.items()
        if not more:
            return lambda values: any(found in equals for found in convert(values))
        return lambda values: any(
            found in equals for convert, equals in wanted.items() for found in convert(values)
        )

    def _operand(
        self, value: Any, where: str
    ) -> tuple[Callable[[Values], Iterable[Any]], str | float | bool]:
        """Returns what selects the values of its type, and the value to compare them with."""
        self._operands += 1
        if self._operands > MAX_OPERANDS:
            raise InvalidFilter(f"{where}: a filter has at most {MAX_OPERANDS} values")
        if isinstance(value, dict) and value.keys() == {"date"}:
            moment = _moment(value["date"]) if isinstance(value["date"], str) else None
            if moment is None:
                raise InvalidFilter(f"{where}.date: expected a date as in ISO 8601")
            return _moments, moment
        if isinstance(value, str):
            if len(value) > MAX_TEXT:
                raise InvalidFilter(f"{where}: a value has at most {MAX_TEXT} characters")
            return _strings, value
        if isinstance(value, bool):
            return _booleans, value
        if isinstance(value, int | float) and math.isfinite(number := _float(value)):
            return _numbers, number
        raise InvalidFilter(f"{where}: expected a string, a number, true, false or a date")


def _bounds(field: str, value: Any) -> Iterable[Bound]:
    """Yields what a condition, which was checked, asks of the values of a field, at least."""
    operators = value if isinstance(value, dict) and "date" not in value else {"eq": value}
    for name, operand in operators.items():
        if name in ("eq", "any", "all"):
            operands = operand if isinstance(operand, list) else [operand]
            found = [_part_of(each) for each in operands[: 1 if name == "all" else None]]
            kinds = {kind for kind, _ in found}
            if len(kinds) == 1 and (kind := kinds.pop()) is not None:
                yield Bound(field, kind, equal=tuple(part for _, part in found))
        elif name in COMPARISONS:
            kind, part = _part_of(operand)
            if kind is not None:
                low = name in ("gt", "gte")
                yield Bound(field, kind, low=part if low else None, high=None if low else part)
        elif name == "prefix":
            yield Bound(field, "text", prefix=operand)


def _part_of(operand: Any) -> tuple[Kind | None, Any]:
    """Returns the part of a ``FieldValue`` that an operand is compared with, and its value."""
    if isinstance(operand, dict):
        return "moment", _moment(operand["date"])
    if isinstance(operand, str):
        return "text", operand
    return ("number", _float(operand)) if isinstance(operand, int | float) else (None, None)


def _field_value(value: Any) -> FieldValue | None:
    if type(value) is str:
        return FieldValue(text=value, moment=_moment(value))
    return FieldValue(_float(value)) if type(value) in (int, float, bool) else None


def _list(value: Any, where: str) -> list[Any]:
    if not isinstance(value, list) or not value:
        raise InvalidFilter(f"{where}: expected a list of values")
    return value


def _keys(name: str, where: str) -> list[str]:
    """Splits the name of a field at its dots."""
    parts = re.findall(r"(?:\\.|[^.\\])+|\\", name, re.DOTALL)
    if len(name) > MAX_TEXT or len(parts) > MAX_KEYS:
        raise InvalidFilter(
            f"{where}: a name has at most {MAX_TEXT} characters and {MAX_KEYS} keys"
        )
    keys = [re.sub(r"\\(.)", r"\1", part, flags=re.DOTALL) for part in parts]
    if ".".join(parts) != name or not parts or parts[-1] == "\\":
        raise InvalidFilter(f"{where}: a key is missing beside a dot, or after a backslash")
    return keys


@lru_cache(MAX_CONDITIONS)
def _keys_of(name: str) -> tuple[str, ...]:
    return tuple(_keys(name, "field"))


def _joined(keys: Iterable[str]) -> str:
    return ".".join(re.sub(r"([.\\])", r"\\\1", key) for key in keys)


def _at(keys: list[str], condition: Condition) -> Test:
    """Applies a condition to the values of a field."""
    first, *rest = keys

    def test(metadata: Mapping[str, Any]) -> bool:
        value = metadata.get(first)
        if rest:
            return condition(_values(value, rest))
        if type(value) is list:
            return condition([each for each in value if each is not None])
        return condition([] if value is None else [value])

    return test


def _values(value: Any, keys: list[str]) -> Values:
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


def _strings(values: Values) -> Iterable[str]:
    return [value for value in values if type(value) is str]


def _booleans(values: Values) -> Iterable[bool]:
    return [value for value in values if type(value) is bool]


def _numbers(values: Values) -> Iterable[float]:
    return [_float(value) for value in values if type(value) in (int, float)]


def _moments(values: Values) -> Iterable[float]:
    moments = (_moment(value) for value in values if type(value) is str)
    return [moment for moment in moments if moment is not None]


def _float(value: float) -> float:
    try:
        return float(value)
    except OverflowError:
        return math.inf if value > 0 else -math.inf


def _moment(text: str) -> float | None:
    """Returns seconds since 1970, or None if the text is no date."""
    try:
        moment = datetime.fromisoformat(text)
        return (moment if moment.tzinfo else moment.replace(tzinfo=UTC)).timestamp()
    except (ValueError, OverflowError):
        return None


def _parsed(metadata: str) -> Mapping[str, Any]:
    try:
        value = orjson.loads(metadata)
    except orjson.JSONDecodeError:  # a number beyond float64
        value = json.loads(metadata)
    return value if isinstance(value, dict) else {}
