r"""SQL text, read as far as jobs need it: statements, and the parameters in them.

sqlparse's lexer knows strings, comments, casts and quoted names, so that a colon is a parameter
only where SQL would allow one: ``'12:30 :x'``, ``-- :x``, ``a::date`` and ``@n := 1`` hold none,
and what stands in quotes is never touched. ``\:`` is a colon.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from functools import lru_cache
from itertools import groupby
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from sqlparse.sql import Token

_PARAMETER: Final = re.compile(r":[A-Za-z_]\w*")
_CHANGING: Final = frozenset({"INSERT", "UPDATE", "DELETE", "REPLACE", "MERGE"})


@dataclass(frozen=True, slots=True)
class Parameter:
    """A place in a statement for a value."""

    name: str


#: A statement as it is sent, with places for values.
Pieces = tuple[str | Parameter, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Statement:
    """One statement of a file."""

    pieces: Pieces
    #: The line of its first word.
    line: int
    #: Line -> name, for each of its parameters.
    parameters: tuple[tuple[int, str], ...] = ()
    #: Line -> text of the comments in front of it that have a line of their own.
    above: tuple[tuple[int, str], ...] = ()
    #: Whether it inserts, updates or deletes.
    changes: bool = False

    @property
    def text(self) -> str:
        """The statement as it was written, without comments."""
        return "".join(p if isinstance(p, str) else f":{p.name}" for p in self.pieces)


@lru_cache(maxsize=512)
def read_pieces(text: str) -> Pieces:
    """Find the parameters of a text that is sent as it is otherwise."""
    if ":" not in text:
        return (text,)
    from sqlparse import lexer  # noqa: PLC0415 - 30 ms, for text with a colon only

    return _joined(_pieces(lexer.tokenize(text)))  # type: ignore[no-untyped-call]


def read_statements(text: str) -> tuple[list[Statement], list[tuple[int, str]]]:
    """Split a file into statements, without comments; also return the comments below the last."""
    from sqlparse.engine import FilterStack  # noqa: PLC0415 - only a folder with .sql jobs pays

    found: list[Statement] = []
    above: list[tuple[int, str]] = []
    lines = _Lines(text)
    for each in FilterStack().run(text):  # type: ignore[no-untyped-call]
        placed = [(lines.next(token.value), token) for token in each.flatten()]
        said = [n for n, (_, token) in enumerate(placed) if not _is_blank(token)]
        if not said:
            above += _comments(placed, lines)
            continue
        above += _comments(placed[: said[0]], lines)
        changes = str(each.get_type()) in _CHANGING
        found.append(_statement(placed[said[0] : said[-1] + 1], tuple(above), changes=changes))
        # The splitter leaves comments with the statement that they come after.
        above = list(_comments(placed[said[-1] :], lines))
    return found, above


class _Lines:
    """Counts the lines of a text while its tokens pass."""

    def __init__(self, text: str) -> None:
        self._lines = text.splitlines()
        self._passed = 0

    def next(self, value: str) -> int:
        """Return the line on which a token begins."""
        line = self._passed + 1
        # The lexer gives back every character that it was given.
        self._passed += value.count("\n")
        return line

    def begins_with(self, line: int, text: str) -> bool:
        """Tell whether a text is the first of its line."""
        return self._lines[line - 1].lstrip().startswith(text)


def _statement(
    placed: list[tuple[int, Token]], above: tuple[tuple[int, str], ...], *, changes: bool
) -> Statement:
    pairs = [(str(token.ttype), _without_comment(token)) for _, token in placed]
    before = ["", *(value for _, value in pairs)]
    return Statement(
        pieces=_joined(_pieces(pairs)),
        line=placed[0][0],
        parameters=tuple(
            (line, value[1:])
            for (line, _), (kind, value), previous in zip(placed, pairs, before, strict=False)
            if _is_parameter(kind, value) and previous != "\\"
        ),
        above=above,
        changes=changes,
    )


def _comments(placed: Iterable[tuple[int, Token]], lines: _Lines) -> Iterator[tuple[int, str]]:
    for line, token in placed:
        text = token.value.strip()
        if text.startswith("--") and lines.begins_with(line, text):
            yield line, text


def _is_comment(token: Token) -> bool:
    kind = str(token.ttype)
    # What MySQL executes, and what optimisers read, is no comment.
    executed = token.value.startswith(("/*!", "/*M!"))
    return kind.startswith("Token.Comment") and not kind.endswith("Hint") and not executed


def _without_comment(token: Token) -> str:
    if not _is_comment(token):
        return str(token.value)
    return "\n" if "\n" in token.value else " "


def _is_blank(token: Token) -> bool:
    return token.is_whitespace or _is_comment(token) or token.value == ";"


def _is_parameter(kind: str, value: str) -> bool:
    return kind == "Token.Name.Placeholder" and _PARAMETER.fullmatch(value) is not None


def _pieces(tokens: Iterable[tuple[object, str]]) -> Iterator[str | Parameter]:
    escaped = False
    for kind, value in tokens:
        if escaped:
            # A backslash that escapes no colon was meant as it is.
            yield value if value.startswith(":") else f"\\{value}"
            escaped = False
        elif value == "\\":
            escaped = True
        elif _is_parameter(str(kind), value):
            yield Parameter(value[1:])
        else:
            yield value
    if escaped:
        yield "\\"


def _joined(pieces: Iterable[str | Parameter]) -> Pieces:
    """Join what stands beside each other."""
    groups = groupby(pieces, key=lambda each: isinstance(each, str))
    return tuple(
        joined
        for is_text, group in groups
        for joined in (["".join(map(str, group))] if is_text else group)
    )
