"""Medians, spreads, what is wanted, and the table of all."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from statistics import median

from benchmarks.measuring import Round, Sample

_HEAD = """\
| measured | median | lowest .. highest | client CPU, ms | statements | wanted | met |
|---|--:|--:|--:|--:|---|---|"""


@dataclass(frozen=True, slots=True, kw_only=True)
class Wanted:
    """A limit that the median is held against."""

    at_least: float | None = None
    at_most: float | None = None

    def __str__(self) -> str:
        if self.at_least is not None:
            return f"{self.at_least:g} or more"
        return f"{self.at_most:g} or less"

    def is_met(self, value: float) -> bool:
        """Tell whether ``value`` is on the right side."""
        if self.at_least is not None:
            return value >= self.at_least
        return self.at_most is None or value <= self.at_most


@dataclass(frozen=True, slots=True, kw_only=True)
class Row:
    """One line of the table: a value for each round."""

    name: str
    unit: str = ""
    values: tuple[float, ...] = ()
    #: Of the client, for each tenant or execution.
    cpu_milliseconds: tuple[float, ...] = ()
    statements: tuple[float, ...] = ()
    wanted: Wanted | None = None
    #: Why there are no values.
    absent: str = ""

    def __str__(self) -> str:
        cells = [self.name, self._median(), self._spread()]
        cells += [_median_of(self.cpu_milliseconds), _median_of(self.statements)]
        cells += [str(self.wanted or ""), self._met()]
        return f"| {' | '.join(cells)} |"

    def _median(self) -> str:
        if not self.values:
            return self.absent
        return f"{_number(median(self.values))} {self.unit}".strip()

    def _spread(self) -> str:
        if not self.values:
            return ""
        return f"{_number(min(self.values))} .. {_number(max(self.values))}"

    def _met(self) -> str:
        if self.wanted is None or not self.values:
            return ""
        return "yes" if self.wanted.is_met(median(self.values)) else "**no**"


def title(text: str) -> Row:
    """Return a line that begins a part of the table."""
    return Row(name=f"**{text}**")


def table(rows: Sequence[Row]) -> str:
    """Write rows as Markdown."""
    return "\n".join([_HEAD, *map(str, rows)])


def rate(rounds: Sequence[Round], key: str, *, name: str, unit: str, absent: str = "") -> Row:
    """Return the row of one way."""
    samples = [each[key] for each in rounds if key in each]
    return Row(
        name=name,
        unit=unit,
        values=tuple(each.rate for each in samples),
        cpu_milliseconds=tuple(each.cpu_milliseconds for each in samples if each.cpu_seconds),
        statements=tuple(each.statements_each for each in samples if each.statements),
        absent=absent,
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class Ratio:
    """How ways compare, round by round."""

    name: str
    above: str
    #: The fastest of these that are there.
    below: tuple[str, ...]
    wanted: Wanted | None = None
    #: With the starts of the processes, over so many tenants.
    whole: int | None = None

    def row(self, rounds: Sequence[Round], *, absent: str) -> Row:
        """Return the row; without a value where one side is missing."""
        values = [self._of(each) for each in rounds]
        return Row(
            name=self.name,
            unit="times",
            values=tuple(value for value in values if value is not None),
            wanted=self.wanted,
            absent=absent or "nothing to compare with",
        )

    def _of(self, each: Round) -> float | None:
        below = [self._rate(each[key]) for key in self.below if key in each]
        if self.above not in each or not below:
            return None
        return self._rate(each[self.above]) / max(below)

    def _rate(self, sample: Sample) -> float:
        return sample.rate if self.whole is None else sample.whole_rate(self.whole)


def _median_of(values: Sequence[float]) -> str:
    return _number(median(values)) if values else ""


def _number(value: float) -> str:
    if abs(value) >= 100:
        return f"{value:,.0f}"
    return (
        f"{value:.1f}"
        if abs(value) >= 10
        else f"{value:.2f}"
        if abs(value) >= 1
        else f"{value:.3f}"
    )
