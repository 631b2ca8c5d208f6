"""Tables: on a terminal by rich, elsewhere plain, which is quick for a hundred thousand rows."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterable, Mapping, Sequence
from datetime import datetime
from itertools import islice, repeat
from typing import Final

from cronrunner.model import Outcome

#: Rows that are shown on a terminal where there may be as many as tenants.
SHOWN: Final = 200

_RIGHT: Final = frozenset(
    {"tenants", "seconds", "attempts", "failures", "executions", "rows", "runs"}
)
_GAP: Final = "  "
#: What would break a line in the middle, or the terminal of who reads it later.
_CONTROLS: Final = dict.fromkeys([*range(32), 127], " ")


def is_terminal() -> bool:
    """Tell whether people read stdout as it is written, or want it to look so."""
    is_forced = bool(os.environ.get("FORCE_COLOR"))
    return is_forced or (sys.stdout is not None and sys.stdout.isatty())


def print_table(
    columns: Sequence[str], rows: Iterable[Sequence[object]], *, most: int | None = None
) -> None:
    """Print rows under their headings; what is empty is shown as a dash.

    On a terminal no more than ``most`` rows are shown, and how many others there are.
    """
    if not is_terminal():
        _print_plain(columns, rows)
        return
    given = iter(rows)
    _print_rich(columns, islice(given, most))
    if more := sum(1 for _ in given):
        sys.stdout.write(f"... and {more:,} more; all are in a pipe, or with --json\n")


def _print_plain(columns: Sequence[str], rows: Iterable[Sequence[object]]) -> None:
    """Write a line for each row, its cells as far apart as the widest of their columns.

    Column by column: a hundred thousand rows take half a second.
    """
    given = list(zip(*rows, strict=True)) or [()] * len(columns)
    filled = [
        _filled([column, *map(_line, cells)], is_right=column in _RIGHT)
        for column, cells in zip(columns, given, strict=True)
    ]
    for cells in zip(*filled, strict=True):
        sys.stdout.write(_GAP.join(cells).rstrip() + "\n")


def _line(value: object) -> str:
    text = _text(value)
    return text if text.isprintable() else text.translate(_CONTROLS)


def _filled(cells: Sequence[str], *, is_right: bool) -> Iterable[str]:
    """Make all cells of a column as wide as the widest."""
    if all(map(str.isascii, cells)):
        width = max(map(len, cells))
        return map(str.rjust if is_right else str.ljust, cells, repeat(width))
    from rich.cells import cell_len  # noqa: PLC0415 - only for what is not ASCII

    widths = [cell_len(cell) for cell in cells]
    blanks = (" " * (max(widths) - width) for width in widths)
    both = zip(cells, blanks, strict=True)
    return (blank + cell if is_right else cell + blank for cell, blank in both)


def _print_rich(columns: Sequence[str], rows: Iterable[Sequence[object]]) -> None:
    from rich.console import Console  # noqa: PLC0415 - only a terminal pays
    from rich.markup import escape  # noqa: PLC0415
    from rich.table import Table  # noqa: PLC0415

    table = Table(box=None, pad_edge=False, header_style="bold")
    for column in columns:
        # On a narrow terminal the last column, the longest one, gives way.
        last = column == columns[-1]
        table.add_column(
            column,
            justify="right" if column in _RIGHT else "left",
            overflow="ellipsis" if last else "fold",
            no_wrap=last,
        )
    for row in rows:
        table.add_row(*(outcome(v) if isinstance(v, Outcome) else escape(_text(v)) for v in row))
    Console(highlight=False).print(table)


def _text(value: object) -> str:
    match value:
        case str():
            return str(value) or "-"
        case None:
            return "-"
        case datetime():
            return f"{value:%Y-%m-%d %H:%M:%S}"
        case float():
            return f"{value:.3f}"
        case Mapping():
            return " ".join(f"{key}={each}" for key, each in value.items()) or "-"
        case _:
            return str(value)


def outcome(name: str) -> str:
    """Colour an outcome for rich: red for what did not go well."""
    color = {Outcome.SUCCEEDED: "green", Outcome.SKIPPED: "yellow"}.get(Outcome(name), "red")
    return f"[{color}]{name}[/]"
