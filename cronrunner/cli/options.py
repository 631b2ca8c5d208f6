"""Options that several commands share, and the values that they read."""

from __future__ import annotations

import math
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Any, Final, TypeVar

import click

from cronrunner.model import parse_duration

F = TypeVar("F", bound=Callable[..., Any])


class Instant(click.ParamType[datetime]):
    """An ISO 8601 time; without an offset it is UTC."""

    name = "time"

    def convert(
        self,
        value: Any,  # noqa: ANN401 - as click declares it
        param: click.Parameter | None,
        ctx: click.Context | None,
    ) -> datetime:
        """Read the time, or fail with what was expected."""
        if isinstance(value, datetime):
            return value
        try:
            moment = datetime.fromisoformat(value)
        except ValueError:
            self.fail(f"expected a time such as 2026-03-01T02:00:00Z, got {value!r}", param, ctx)
        if moment.tzinfo is None:
            return moment.replace(tzinfo=UTC)
        try:
            return moment.astimezone(UTC)
        except OverflowError:
            self.fail(f"expected a time of the years 1 to 9999 in UTC, got {value!r}", param, ctx)


class Label(click.ParamType[tuple[str, str]]):
    """``key=value``."""

    name = "key=value"

    def convert(
        self,
        value: Any,  # noqa: ANN401 - as click declares it
        param: click.Parameter | None,
        ctx: click.Context | None,
    ) -> tuple[str, str]:
        """Read the label, or fail with what was expected."""
        if isinstance(value, tuple):
            return value
        key, equals, text = value.partition("=")
        if not key or not equals:
            self.fail(f"expected key=value, got {value!r}", param, ctx)
        return key, text


class Shard(click.ParamType[tuple[int, int]]):
    """``i/n``: shard i of n, counted from 0."""

    name = "i/n"

    def convert(
        self,
        value: Any,  # noqa: ANN401 - as click declares it
        param: click.Parameter | None,
        ctx: click.Context | None,
    ) -> tuple[int, int]:
        """Read the shard, or fail with what was expected."""
        if isinstance(value, tuple):
            return value
        index, _, count = value.partition("/")
        if not (index.isdecimal() and count.isdecimal() and int(index) < int(count)):
            self.fail(f"expected i/n with i from 0 to n-1, such as 0/4, got {value!r}", param, ctx)
        return int(index), int(count)


class Duration(click.ParamType[timedelta]):
    """A duration such as ``50m``."""

    name = "duration"

    def convert(
        self,
        value: Any,  # noqa: ANN401 - as click declares it
        param: click.Parameter | None,
        ctx: click.Context | None,
    ) -> timedelta:
        """Read the duration, or fail with what was expected."""
        try:
            return value if isinstance(value, timedelta) else parse_duration(value)
        except ValueError as error:
            self.fail(str(error), param, ctx)


_WHOLE_PERCENT: Final = 100


class Failures(click.ParamType[tuple[int | None, float | None]]):
    """``N`` or ``N%``: a count, or a part in percent."""

    name = "N|N%"

    def convert(
        self,
        value: Any,  # noqa: ANN401 - as click declares it
        param: click.Parameter | None,
        ctx: click.Context | None,
    ) -> tuple[int | None, float | None]:
        """Read the limit, or fail with what was expected."""
        if isinstance(value, tuple):
            return value
        try:
            number = float(value.removesuffix("%"))
        except ValueError:
            number = math.nan
        is_percent = value.endswith("%")
        whole = is_percent or (math.isfinite(number) and number == int(number))
        most = _WHOLE_PERCENT if is_percent else math.inf
        if not math.isfinite(number) or not 0 < number <= most or not whole:
            expected = "a number from 1, or a part such as 2% and no more than 100%"
            self.fail(f"expected {expected}, got {value!r}", param, ctx)
        return (None, number) if is_percent else (int(number), None)


config_option = click.option(
    "--config",
    metavar="FILE",
    help="The configuration. Default: $CRONRUNNER_CONFIG, or tenants.yaml in this folder.",
)
json_option = click.option(
    "--json", "as_json", is_flag=True, help="Print one JSON document on stdout, and nothing else."
)

values_option = click.option(
    "--option",
    "values",
    multiple=True,
    type=Label(),
    metavar="[JOB.]NAME=VALUE",
    help="Set an option of the jobs named, or of JOB, this time.",
)


def selection_options(command: F) -> F:
    """Add what chooses tenants."""
    for option in reversed(
        (
            click.option(
                "--tenant", "tenants", multiple=True, metavar="NAME", help="Only this. Globs."
            ),
            click.option(
                "--exclude-tenant", "excluded", multiple=True, metavar="NAME", help="Not this."
            ),
            click.option(
                "--label", "labels", multiple=True, type=Label(), help="Only those labelled so."
            ),
            click.option(
                "--server", "servers", multiple=True, metavar="NAME", help="Only on this server."
            ),
            click.option("--shard", type=Shard(), help="Only a part: shard i of n, from 0."),
        )
    ):
        command = option(command)
    return command


def limit_options(command: F) -> F:
    """Add what bounds a run, and what it agrees to."""
    for option in reversed(
        (
            click.option(
                "--accept-shrink", is_flag=True, help="Agree that the missing tenants are gone."
            ),
            click.option("--deadline", type=Duration(), help="Drain by itself after this long."),
            click.option("--max-failures", type=Failures(), help="Stop at so many failures."),
            click.option(
                "--canary",
                type=click.IntRange(min=0),
                default=0,
                help="So many tenants first; the rest if well.",
            ),
            click.option(
                "--concurrency", type=click.IntRange(min=1), help="Visits at the same time."
            ),
            click.option(
                "--metrics-port",
                type=click.IntRange(0, 65535),
                help="Serve /metrics while the run lasts.",
            ),
        )
    ):
        command = option(command)
    return command
