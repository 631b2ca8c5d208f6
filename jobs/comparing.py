"""What differs between two datasets, row by row and field by field. Pure."""

from __future__ import annotations

import json
import unicodedata
from collections.abc import Collection, Iterable, Iterator, Mapping
from typing import Any, NamedTuple


class Row(NamedTuple):
    """A row of a dataset: what identifies it, and its fields."""

    key: str
    fields: Mapping[str, Any]


class Finding(NamedTuple):
    """One difference; the values are JSON, and ``None`` for what is absent or null."""

    #: ``missing_left``, ``missing_right``, ``changed`` or ``duplicate``.
    kind: str
    key: str
    #: Of a changed row.
    field: str | None = None
    left: str | None = None
    right: str | None = None


def canonical(value: Any) -> str:  # noqa: ANN401 - whatever JSON holds
    """Write JSON so that equal values are equal texts.

    1 and 1.0 are equal and ``true`` is neither of them; a field that is null is as good as absent;
    lists are ordered and fields are not.
    """
    text = json.dumps(_plain(value), ensure_ascii=False, sort_keys=True)
    # Half of a surrogate pair, which no database takes, is written as JSON writes it.
    return text.encode("utf-8", "backslashreplace").decode()


def _plain(value: Any) -> Any:  # noqa: ANN401 - see canonical
    match value:
        case Mapping():
            return {name: _plain(each) for name, each in value.items() if each is not None}
        case list():
            return [_plain(each) for each in value]
        case float() if value.is_integer():
            return int(value)
        case _:
            return value


def compare(
    left: Iterable[Row], right: Iterable[Row], ignored: Collection[str]
) -> Iterator[Finding]:
    """Yield each difference between two datasets whose rows come by id.

    Of several rows of one key the first counts, and each of the others is a ``duplicate``. The
    left rows are held in memory, as text, and the right ones pass by.
    """
    known: dict[str, str] = {}
    for key, text in (_read(row, ignored) for row in left):
        if key in known:
            yield Finding("duplicate", key, left=text)
        else:
            known[key] = text
    seen: set[str] = set()
    for key, text in (_read(row, ignored) for row in right):
        if key in seen:
            yield Finding("duplicate", key, right=text)
        elif key not in known:
            yield Finding("missing_left", key, right=text)
        elif known[key] != text:
            yield from _changed(key, json.loads(known[key]), json.loads(text))
        seen.add(key)
    for key, text in known.items():
        if key not in seen:
            yield Finding("missing_right", key, left=text)


def _read(row: Row, ignored: Collection[str]) -> tuple[str, str]:
    """Return a row's key, composed as Unicode's NFC, and the fields that count, as text."""
    fields = {name: row.fields[name] for name in row.fields if name not in ignored}
    return unicodedata.normalize("NFC", row.key), canonical(fields)


def _changed(key: str, left: Mapping[str, Any], right: Mapping[str, Any]) -> Iterator[Finding]:
    for field in sorted(left.keys() | right.keys()):
        texts = [canonical(side[field]) if field in side else None for side in (left, right)]
        if texts[0] != texts[1]:
            yield Finding("changed", key, field, *texts)
