"""How a reader of one value says what is wrong with it."""

from __future__ import annotations

import difflib
from collections.abc import Iterable


class Expected(ValueError):  # noqa: N818 - reads as what it says: raise Expected("a zone")
    """A value is not what it must be. Its texts never hold the value itself.

    ``expected`` says what was; ``got`` replaces the default, which is the text in the file;
    ``advice`` follows behind a semicolon.
    """

    def __init__(self, expected: str, *, got: str | None = None, advice: str = "") -> None:
        super().__init__(f"expected {expected}")
        self.expected = expected
        self.got = got
        self.advice = advice


def nearest(name: str, known: Iterable[str]) -> str | None:
    """Return the known name that ``name`` is most like, if any is like it."""
    by_folded = {each.casefold(): each for each in known}
    found = difflib.get_close_matches(name.casefold(), by_folded, n=1)
    return by_folded[found[0]] if found else None


def did_you_mean(name: str, known: Iterable[str]) -> str:
    """Return ``did you mean 'x'?`` for the nearest known name, or nothing."""
    found = nearest(name, known)
    return f"did you mean {found!r}?" if found else ""
