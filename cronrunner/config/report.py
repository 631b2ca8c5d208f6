"""What pydantic found, as problems that name a line and say what to do."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any, Final

from pydantic import ValidationError

from cronrunner.config.document import Document, Location
from cronrunner.config.fault import Expected, did_you_mean, nearest
from cronrunner.config.references import printable
from cronrunner.config.rules import Mistake
from cronrunner.config.schema import keys_at

#: pydantic's error types by the beginning of their names, in words.
_EXPECTED: Final[tuple[tuple[str, str], ...]] = (
    ("model_type", "a mapping"),
    ("dict_type", "a mapping"),
    ("model_attributes", "a mapping"),
    ("string_too_short", "text that is not empty"),
    ("string", "text"),
    ("int", "a whole number"),
    ("float", "a number"),
    ("finite", "a number"),
    ("bool", "true or false"),
    ("tuple", "a list"),
    ("list", "a list"),
    ("greater_than_equal", "{ge:g} or more"),
    ("less_than_equal", "{le:g} or less"),
)


def explain(error: ValidationError, document: Document) -> Iterator[Mistake]:
    """Turn pydantic's errors into mistakes; no text holds a secret."""
    errors = error.errors(include_url=False)
    unknown = (each["loc"] for each in errors if each["type"] == "extra_forbidden")
    meant = {(*at[:-1], nearest(str(at[-1]), keys_at(at[:-1]))) for at in unknown}
    for found in errors:
        # A key that is misspelt is not missing as well.
        if found["type"] == "missing" and found["loc"] in meant:
            continue
        location = document.nearest(found["loc"])
        yield Mistake(location, _describe(found, found["loc"], location, document))


def describe(
    document: Document, location: Location, expected: str, got: str | None, advice: str
) -> str:
    """Say ``expected X, got Y; advice`` about what stands at ``location``."""
    text = f"expected {expected}, got {got or show(document, location)}"
    return f"{text}; {advice}" if advice else text


def dotted(location: Location) -> str:
    """Write a location as ``servers.main.url``."""
    parts = (f"[{part}]" if isinstance(part, int) else f".{part}" for part in location)
    return "".join(parts).removeprefix(".")


def show(document: Document, location: Location) -> str:
    """Return what the file says at ``location``, safe to print."""
    value = document.written(location)
    if isinstance(value, Mapping):
        return "a mapping"
    if isinstance(value, list):
        return "a list"
    if value is None:
        return "nothing"
    key = next((part for part in reversed(location) if isinstance(part, str)), "")
    text = value if isinstance(value, str) else str(value).lower()
    shown = printable(key, text)
    return shown if shown == text and not isinstance(value, str) else repr(shown)


def _describe(
    found: Mapping[str, Any], asked: Location, location: Location, document: Document
) -> str:
    match found["type"]:
        case "extra_forbidden":
            return _unknown_key(str(asked[-1]), asked[:-1])
        case "missing" if location == asked:
            return "expected a value, got nothing"
        case "missing":
            return f"expected the key {asked[-1]!r}, got none of that name"
    expected, got, advice = _expectation(found)
    return describe(document, location, expected, got, advice)


def _unknown_key(key: str, parent: Location) -> str:
    known = keys_at(parent)
    hint = did_you_mean(key, known)
    if hint:
        return f"expected a known key, got {key!r}; {hint}"
    return f"expected one of the keys {', '.join(known)}, got {key!r}"


def _expectation(found: Mapping[str, Any]) -> tuple[str, str | None, str]:
    context = found.get("ctx", {})
    cause = context.get("error")
    if isinstance(cause, Expected):
        return cause.expected, cause.got, cause.advice
    if found["type"] == "literal_error":
        choices = str(context["expected"]).replace("'", "").replace(" or ", ", ").split(", ")
        return f"one of {', '.join(choices)}", None, did_you_mean(str(found["input"]), choices)
    for beginning, words in _EXPECTED:
        if found["type"].startswith(beginning):
            advice = "put it in quotes" if words == "text" and _is_number(found["input"]) else ""
            return words.format(**context), None, advice
    return "something else", None, str(found["msg"])


def _is_number(value: object) -> bool:
    return isinstance(value, int | float)
