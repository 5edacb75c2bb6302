"""Tests of the grammar of filters, and of what they choose."""

import json
import time
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from service.catalogue.metadata import encode_metadata
from service.errors import InvalidFilter, InvalidRequest
from service.filters.grammar import OPERATORS, parse

SHOE = {
    "brand": "acme", "price": 19.5, "tags": ["red", "sale"], "sold": None, "new": True, "n": 2**53,
    "size": {"width": 3, "unit": "cm"}, "made": "2026-03-01T12:00:00+02:00", "a.b": 1,
    "parts": [{"of": "cork", "share": [1, 2]}, {"of": "felt"}, 7], "empty": [], "and": "x",
    "back\\": 5, "large": 10**400,
}  # fmt: skip
DAY = {"date": "2026-03-01"}


@pytest.mark.parametrize(
    "chosen",
    [
        {"brand": "acme"},
        {"brand": "acme", "price": {"lt": 20}},
        {"price": {"gt": 19, "lte": 19.5}},
        {"price": 19.5},
        {"n": 2**53 + 1},  # both are the same float64
        {"tags": "red"},
        {"tags": {"any": ["blue", "sale"]}},
        {"tags": {"all": ["sale", "red"]}},
        {"tags": {"prefix": "sa"}},
        {"new": True},
        {"sold": None},
        {"sold": {"exists": False}},
        {"none": {"exists": False}},
        {"empty": {"exists": False}},
        {"size": {"exists": True}},
        {"size.width": 3},
        {"size.width": {"any": ["cm", 3]}},
        {"parts.of": "felt"},
        {"parts.share": 2},
        {"parts": 7},
        {"a\\.b": 1},
        {"\\and": "x"},
        {"back\\\\": 5},
        {"large": {"gt": 1e308}},
        {"made": {"gt": DAY, "lt": {"date": "2026-03-01T10:00:01"}}},
        {"made": {"date": "2026-03-01T10:00:00Z"}},
        {"made": {"gt": "2026"}},  # as text
        {"not": {"brand": "other"}},
        {"or": [{"brand": "other"}, {"price": {"gte": 19.5}}]},
        {"and": [{"brand": "acme"}, {"not": {"new": False}}]},
    ],
)
def test_a_filter_chooses(chosen: dict[str, Any]) -> None:
    text = encode_metadata(SHOE, "metadata")
    assert parse(chosen).matches(text)
    assert not parse({"not": chosen}).matches(text)


@pytest.mark.parametrize(
    "left_out",
    [
        {"brand": "Acme"},
        {"brand": {"lt": 20}},  # another type
        {"price": "19.5"},
        {"price": {"lt": "20"}},
        {"new": 1},
        {"price": True},
        {"new": {"any": [False, "true", 1]}},
        {"tags": {"all": ["red", "blue"]}},
        {"tags": {"exists": False}},
        {"sold": {"exists": True}},
        {"empty": {"exists": True}},
        {"size.depth": {"lt": 100}},
        {"a.b": 1},
        {"brand": DAY},
        {"made": DAY},
        {"parts.of": {"lt": "a"}},
        {"brand": "acme", "price": {"lt": 19.5}},
        {"or": [{"brand": "other"}, {"price": 3}]},
    ],
)
def test_a_filter_leaves_out(left_out: dict[str, Any]) -> None:
    assert not parse(left_out).matches(encode_metadata(SHOE, "metadata"))


def test_an_image_without_metadata_has_no_fields() -> None:
    assert parse({}).matches(None) and parse({"a": {"exists": False}}).matches(None)
    assert not parse({"a": {"exists": True}}).matches(None)


def test_strings_compare_by_code_point() -> None:
    texts = ["", "Z", "a", "z", "ä", "\ue000", "\U0001f600"]
    assert texts == sorted(texts)
    for n, text in enumerate(texts):
        lower = parse({"a": {"lt": text}})
        assert [lower.matches(json.dumps({"a": each})) for each in texts] == [
            place < n for place in range(len(texts))
        ]


@pytest.mark.parametrize(
    ("value", "place", "why"),
    [
        ([], "filter:", "expected an object"),
        ("x", "filter:", "expected an object"),
        ({"a": []}, "filter.a:", "any or all"),
        ({"a": {}}, "filter.a:", "expected one of eq, lt"),
        ({"a": {"less": 1}}, "filter.a.less:", "the operators are"),
        ({"a": {"lt": True}}, "filter.a.lt:", "expected a number"),
        ({"a": {"lt": None}}, "filter.a.lt:", "expected a string, a number"),
        ({"a": {"any": []}}, "filter.a.any:", "list of values"),
        ({"a": {"any": [[1]]}}, "filter.a.any:", "expected a string"),
        ({"a": {"any": "x"}}, "filter.a.any:", "list of values"),
        ({"a": {"exists": 1}}, "filter.a.exists:", "true or false"),
        ({"a": {"prefix": 1}}, "filter.a.prefix:", "expected a string"),
        ({"a": {"date": "yesterday"}}, "filter.a.date:", "ISO 8601"),
        ({"a": {"gt": {"date": 5}}}, "filter.a.gt.date:", "ISO 8601"),
        ({"a": float("nan")}, "filter.a:", "expected a string"),
        ({"a": {"eq": 10**400}}, "filter.a.eq:", "expected a string"),
        ({"and": {}}, "filter.and:", "list of filters"),
        ({"or": []}, "filter.or:", "list of filters"),
        ({"or": [{"a": 1}, 5]}, "filter.or[1]:", "expected an object"),
        ({"not": 5}, "filter.not:", "expected an object"),
        ({"": 1}, "filter.:", "a key is missing"),
        ({"a..b": 1}, "filter.a..b:", "a key is missing"),
        ({".a": 1}, "filter..a:", "a key is missing"),
        ({"a.": 1}, "filter.a.:", "a key is missing"),
        ({"a\\": 1}, "filter.a\\:", "a key is missing"),
        ({"x" * 1001: 1}, "filter.xxx", "at most 1000 characters"),
        ({".".join("a" * 17): 1}, "filter.a.a", "16 keys"),
        ({"a\0b": 1}, "filter.a", "NUL"),
        ({"\ud800": 1}, "filter.", "surrogate"),
        ({"a": "\ud800"}, "filter.a:", "surrogate"),
        ({"not": {}}, "filter.not:", "expected a condition"),
        ({"and": [{}]}, "filter.and[0]:", "expected a condition"),
        ({"or": [{"not": {"a": 1}}] * 100}, "filter.or[", "200 filters"),
        ({"a": "x" * 1001}, "filter.a:", "at most 1000 characters"),
        ({"a": {"any": ["x"] * 1001}}, "filter.a.any:", "at most 1000 values"),
        ({f"f{n}": n for n in range(101)}, "filter.f100:", "at most 100 conditions"),
        ({"a": {"date": "2026-01-01", "lt": 3}}, "filter.a:", "expected a string"),
    ],
)
def test_what_cannot_be_used_is_named(value: Any, place: str, why: str) -> None:
    with pytest.raises(InvalidFilter) as error:
        parse(value)
    assert str(error.value).startswith(place) and why in str(error.value)


def test_filters_are_nested_a_few_times_only() -> None:
    value: dict[str, Any] = {"a": 1}
    for _ in range(7):
        value = {"not": value}
    assert not parse(value).matches('{"a":1}')
    with pytest.raises(InvalidFilter, match="nested 8 deep"):
        parse({"not": value})


def test_hostile_metadata_and_filters_take_little_time() -> None:
    texts = [
        encode_metadata(each, "metadata")
        for each in ({"a": list(range(3000))}, {"b": ["2026-01-01"] * 1000})
    ]
    costly = [
        {"a": {"all": [1] * 990}},
        {"and": [{"a": {"gt": n}} for n in range(50, 100)]},
        {"and": [{"b": {"gt": {"date": f"20{n}-01-01"}}} for n in range(10, 25)]},
        {"and": [{"b": {"prefix": "202"}}] * 50},
        {"or": [{"a": {"any": [-n - 1, "x", False]}} for n in range(50)]},
    ]
    began = time.process_time()
    for chosen in costly:
        for text in texts:
            parse(chosen).matches(text)
    assert time.process_time() - began < 1  # by itself, each took up to a second


scalars = st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=3)
names = st.sampled_from(["a", "b", "a.b", "a\\.b", "and", "or", "not", "", "\\", "a..b"])
jsons = st.recursive(
    scalars,
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(names | st.sampled_from([*OPERATORS, "date"]), inner, max_size=3)
    ),
    max_leaves=12,
)


@given(jsons | st.dictionaries(names, jsons, max_size=3), st.dictionaries(names, jsons, max_size=3))
def test_any_json_is_a_filter_or_refused_and_works_on_any_metadata(
    value: Any, metadata: dict[str, Any]
) -> None:
    try:
        text = encode_metadata(metadata, "metadata")
    except InvalidRequest:
        return
    try:
        chosen = parse(value)
    except InvalidFilter as error:
        assert str(error).startswith("filter")
        return
    if value != {}:
        assert chosen.matches(text) is not parse({"not": value}).matches(text)
    assert chosen == parse(json.loads(json.dumps(value)))
