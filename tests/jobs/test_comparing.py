"""Comparing two datasets."""

import json
from math import nan

import pytest
from hypothesis import given
from hypothesis import strategies as st

from jobs.comparing import Finding, Row, canonical, compare

VALUES = st.recursive(
    st.none() | st.booleans() | st.integers(-3, 3) | st.sampled_from([0.5, 1.0, 2.0]) | st.text("ab"),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from("xyz"), inner),
    max_leaves=6,
)  # fmt: skip
FIELDS = st.dictionaries(st.sampled_from(["role", "team", "level"]), VALUES)
KEYS = st.sampled_from(["a", "b", "A", "é", "e\u0301"])
DATASETS = st.lists(st.builds(Row, KEYS, FIELDS), max_size=6)


def same(left, right) -> bool:
    """Compare in plain words what `canonical` compares as text."""
    if isinstance(left, bool) or isinstance(right, bool):
        return left is right
    if isinstance(left, list) and isinstance(right, list):
        return len(left) == len(right) and all(map(same, left, right))
    if isinstance(left, dict) and isinstance(right, dict):
        return all(same(left.get(name), right.get(name)) for name in left.keys() | right.keys())
    return (
        bool(type(left) is type(right) or {type(left), type(right)} == {int, float})
        and left == right
    )


@given(VALUES, VALUES)
def test_equal_values_are_equal_texts(left, right) -> None:
    assert (canonical(left) == canonical(right)) is same(left, right)
    assert same(json.loads(canonical(left)), left)


@pytest.mark.parametrize(
    ("left", "right", "is_same"),
    [
        (1, 1.0, True),
        (1, True, False),
        (0, False, False),
        ("1", 1, False),
        (None, "", False),
        ([1, 2], [2, 1], False),
        ([1, 2], [1.0, 2.0], True),
        ({"a": 1, "b": None}, {"a": 1}, True),
        ({"a": {"b": True}}, {"a": {"b": 1}}, False),
        ({"a": 1, "b": 2}, {"b": 2, "a": 1}, True),
        ("é", "e\u0301", False),
        (2**53 + 1, float(2**53), False),
        (1e400, 1e400, True),
        (nan, nan, True),
        ("\ud800", "\ud800", True),
    ],
)
def test_what_is_equal(left, right, is_same) -> None:
    assert (canonical(left) == canonical(right)) is is_same
    canonical(left).encode()


@given(DATASETS)
def test_a_dataset_differs_from_itself_by_its_duplicates_only(rows) -> None:
    found = list(compare(rows, rows, ()))

    assert {each.kind for each in found} <= {"duplicate"}
    assert sum(each.left is not None for each in found) == len(found) / 2


@given(DATASETS, DATASETS)
def test_what_is_missing_on_one_side_is_missing_on_the_other_from_behind(left, right) -> None:
    there, back = (list(compare(*sides, ())) for sides in ((left, right), (right, left)))
    mirrored = {"missing_left": "missing_right", "missing_right": "missing_left"}

    assert sorted(map(str, there)) == sorted(
        str(
            each._replace(kind=mirrored.get(each.kind, each.kind), left=each.right, right=each.left)
        )
        for each in back
    )


@given(DATASETS, DATASETS)
def test_a_pair_has_one_finding_for_each_field_that_differs(left, right) -> None:
    first: list[dict] = [{}, {}]
    for side, rows in zip(first, (left, right), strict=True):
        for row in rows:
            side.setdefault(row.key.replace("e\u0301", "é"), row.fields)
    expected = {
        (key, field)
        for key in first[0].keys() & first[1].keys()
        for field in ("role", "team", "level")
        if not same(first[0][key].get(field), first[1][key].get(field))
    }

    found = [each for each in compare(left, right, ()) if each.kind == "changed"]

    assert {(each.key, each.field) for each in found} == expected
    assert len(found) == len(expected)


@given(DATASETS, DATASETS)
def test_fields_that_are_ignored_make_no_difference(left, right) -> None:
    found = compare(left, right, ("role", "team", "level"))

    assert not [each for each in found if each.kind == "changed"]


def test_of_two_rows_with_one_key_the_first_counts() -> None:
    left = [Row("é", {"role": "x"}), Row("e\u0301", {"role": "y"})]

    assert list(compare(left, [Row("é", {"role": "x"}), Row("É", {})], ())) == [
        Finding("duplicate", "é", left='{"role": "y"}'),
        Finding("missing_left", "É", right="{}"),
    ]


def test_values_are_told_as_json_and_an_absent_one_not_at_all() -> None:
    left = [Row("a", {"role": "李", "team": [1], "gone": 0})]
    right = [Row("a", {"role": "李 2", "team": [1.0], "gone": None})]

    assert list(compare(left, right, ())) == [
        Finding("changed", "a", "gone", "0", None),
        Finding("changed", "a", "role", '"李"', '"李 2"'),
    ]
