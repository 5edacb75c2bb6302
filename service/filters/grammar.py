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
from bisect import bisect_left
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from typing import Any, Literal

from service.database.records import Bound
from service.errors import InvalidFilter
from service.filters import values as of
from service.filters.values import Key, Metadata, Select, Values

MAX_DEPTH = 8  # filters inside one another
MAX_PARTS = 200  # filters, and lists of filters
MAX_CONDITIONS = 100
MAX_OPERANDS = 1000  # values of all conditions together
MAX_TEXT = 1000  # characters of a string
MAX_DECLARED = 200  # characters of the name of a filter field

Kind = Literal["number", "text", "moment"]
Condition = Callable[[Values], bool]
Test = Callable[[Metadata], bool]
# How to compare, and whether with the smallest or the largest of the values of a field.
COMPARISONS: dict[str, tuple[Callable[[Any, Any], bool], int]] = {
    "lt": (operator.lt, 0), "lte": (operator.le, 0),
    "gt": (operator.gt, -1), "gte": (operator.ge, -1),
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
        return self._test(Metadata(metadata))


def parse(value: Any, where: str = "filter") -> Filter:
    """Returns a filter. Raises InvalidFilter; the message begins with the place of the error."""
    parser = _Parser()
    test = parser.filter(value, where, MAX_DEPTH, certain=True)
    return Filter(json.dumps(value, sort_keys=True), tuple(parser.bounds), test)


def field_name(name: str, where: str) -> str:
    """Returns the one way to write the name of a filter field. Raises InvalidFilter."""
    written = of.name_of(of.keys_of(name, where))
    if len(written) > MAX_DECLARED:
        raise InvalidFilter(f"{where}: a filter field has at most {MAX_DECLARED} characters")
    return written


class _Parser:
    """Parses one filter, and counts its parts."""

    def __init__(self) -> None:
        self.bounds: list[Bound] = []
        self._parts = self._conditions = self._operands = 0

    def filter(self, value: Any, where: str, depth: int, *, certain: bool) -> Test:
        """``certain``: whether this part must hold for the whole filter to hold."""
        self._count(where)
        if not isinstance(value, dict):
            raise InvalidFilter(f"{where}: expected an object")
        if depth == 0:
            raise InvalidFilter(f"{where}: filters may be nested {MAX_DEPTH} deep")
        if not value and depth < MAX_DEPTH:
            raise InvalidFilter(f"{where}: expected a condition")
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
            return self._joined(name, value, where, depth, certain)
        self._conditions += 1
        if self._conditions > MAX_CONDITIONS:
            raise InvalidFilter(f"{where}: a filter has at most {MAX_CONDITIONS} conditions")
        keys, condition = of.keys_of(name, where), self._condition(value, where)
        if certain:
            self.bounds += _bounds(of.name_of(keys), value)
        return _at(keys, condition)

    def _joined(self, name: str, value: Any, where: str, depth: int, certain: bool) -> Test:
        self._count(where)
        if not isinstance(value, list) or not value:
            raise InvalidFilter(f"{where}: expected a list of filters")
        certain = certain and (name == "and" or len(value) == 1)
        tests = [
            self.filter(each, f"{where}[{n}]", depth - 1, certain=certain)
            for n, each in enumerate(value)
        ]
        joined = all if name == "and" else any
        return lambda metadata: joined(test(metadata) for test in tests)

    def _count(self, where: str) -> None:
        self._parts += 1
        if self._parts > MAX_PARTS:
            raise InvalidFilter(f"{where}: a filter consists of at most {MAX_PARTS} filters")

    def _condition(self, value: Any, where: str) -> Condition:
        if value is None:
            return lambda values: not values.found
        if isinstance(value, list):
            raise InvalidFilter(f"{where}: use any or all with a list")
        if not isinstance(value, dict) or "date" in value:
            return self._any([value], where)
        if not value:
            raise InvalidFilter(f"{where}: expected one of {', '.join(OPERATORS)}")
        parts = [
            self._operator(name, operand, f"{where}.{name[:MAX_TEXT]}")
            for name, operand in value.items()
        ]
        return parts[0] if len(parts) == 1 else lambda values: all(part(values) for part in parts)

    def _operator(self, name: str, operand: Any, where: str) -> Condition:
        if name == "eq":
            return self._any([operand], where)
        if name == "any":
            return self._any(_list(operand, where), where)
        if name == "all":
            return self._all(_list(operand, where), where)
        if name in COMPARISONS:
            return self._comparison(name, operand, where)
        if name == "prefix":
            return self._prefix(operand, where)
        if name == "exists":
            if not isinstance(operand, bool):
                raise InvalidFilter(f"{where}: expected true or false")
            return lambda values: bool(values.found) is operand
        raise InvalidFilter(f"{where}: unknown; the operators are {', '.join(OPERATORS)}")

    def _comparison(self, name: str, operand: Any, where: str) -> Condition:
        select, wanted = self._operand(operand, where)
        if isinstance(wanted, bool):
            raise InvalidFilter(f"{where}: expected a number, a string or a date")
        compare, place = COMPARISONS[name]

        def holds(values: Values) -> bool:
            found = select(values)
            return bool(found) and compare(found[place], wanted)

        return holds

    def _prefix(self, operand: Any, where: str) -> Condition:
        select, begin = self._operand(operand, where)
        if not isinstance(begin, str) or select is not of.strings:
            raise InvalidFilter(f"{where}: expected a string")

        def holds(values: Values) -> bool:
            found = select(values)
            place = bisect_left(found, begin)  # where those that begin so are, if there are any
            return place < len(found) and found[place].startswith(begin)

        return holds

    def _any(self, operands: list[Any], where: str) -> Condition:
        (select, wanted), *more = self._by_type(operands, where)
        if not more:
            return lambda values: not wanted.isdisjoint(select(values))
        parts = [(select, wanted), *more]
        return lambda values: any(not each.isdisjoint(of_type(values)) for of_type, each in parts)

    def _all(self, operands: list[Any], where: str) -> Condition:
        parts = self._by_type(operands, where)
        return lambda values: all(wanted.issubset(select(values)) for select, wanted in parts)

    def _by_type(self, operands: list[Any], where: str) -> list[tuple[Select, set[Any]]]:
        wanted: dict[Select, set[Any]] = {}
        for operand in operands:
            select, value = self._operand(operand, where)
            wanted.setdefault(select, set()).add(value)
        return list(wanted.items())

    def _operand(self, value: Any, where: str) -> tuple[Select, str | float | bool]:
        """Returns what selects the values of its type, and the value to compare them with."""
        self._operands += 1
        if self._operands > MAX_OPERANDS:
            raise InvalidFilter(f"{where}: a filter has at most {MAX_OPERANDS} values")
        if isinstance(value, dict) and value.keys() == {"date"}:
            moment = of.moment(value["date"]) if isinstance(value["date"], str) else None
            if moment is None:
                raise InvalidFilter(f"{where}.date: expected a date as in ISO 8601")
            return of.moments, moment
        if isinstance(value, str):
            if len(value) > MAX_TEXT or not of.is_storable(value):
                limit = f"at most {MAX_TEXT} characters, and no lone surrogate"
                raise InvalidFilter(f"{where}: a string has {limit}")
            return of.strings, value
        if isinstance(value, bool):
            return of.booleans, value
        if isinstance(value, int | float) and math.isfinite(number := of.to_float(value)):
            return of.numbers, number
        raise InvalidFilter(f"{where}: expected a string, a number, true, false or a date")


def _at(keys: Key, condition: Condition) -> Test:
    """Applies a condition to the values of a field."""
    return lambda metadata: condition(metadata.field(keys))


def _bounds(name: str, value: Any) -> Iterable[Bound]:
    """Yields what a condition, which was checked, asks of the values of a field, at least."""
    operators = value if isinstance(value, dict) and "date" not in value else {"eq": value}
    for operation, operand in operators.items():
        if operation in ("eq", "any", "all"):
            operands = operand if isinstance(operand, list) else [operand]
            found = [_part_of(each) for each in operands[: 1 if operation == "all" else None]]
            kinds = {kind for kind, _ in found}
            if len(kinds) == 1 and (kind := kinds.pop()) is not None:
                yield Bound(name, kind, equal=tuple(part for _, part in found))
        elif operation in COMPARISONS:
            kind, part = _part_of(operand)
            if kind is not None:
                low = operation in ("gt", "gte")
                yield Bound(name, kind, low=part if low else None, high=None if low else part)
        elif operation == "prefix":
            yield Bound(name, "text", prefix=operand)


def _part_of(operand: Any) -> tuple[Kind | None, Any]:
    """Returns the part of a ``FieldValue`` that an operand is compared with, and its value."""
    if isinstance(operand, dict):
        return "moment", of.moment(operand["date"])
    if isinstance(operand, str):
        return "text", operand
    return ("number", of.to_float(operand)) if isinstance(operand, int | float) else (None, None)


def _list(value: Any, where: str) -> list[Any]:
    if not isinstance(value, list) or not value:
        raise InvalidFilter(f"{where}: expected a list of values")
    return value
