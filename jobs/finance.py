"""What money is worth."""

from __future__ import annotations

import json
from collections.abc import Mapping
from datetime import date, timedelta
from decimal import Decimal, DecimalException
from fractions import Fraction
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, NamedTuple
from urllib.parse import urlsplit

from sqlalchemy import ColumnElement, and_, func, insert, select, update

from cronrunner import Option, Retry, RetryPolicy, Skip, job
from jobs.items import Items
from jobs.schema import exchange_rates as stored
from jobs.schema import expiring_assets

if TYPE_CHECKING:
    from cronrunner import JobContext

#: Rates are kept as whole numbers of this part.
_PART: Final = 10**8
#: The largest rate that is kept, in such parts: what a 64-bit integer holds, and some room.
_LIMIT: Final = 9 * 10**18
#: Powers of ten beyond which a rate is out of bounds whatever its digits are.
_POWERS: Final = range(-30, 30)
_SOURCE_LIMIT: Final = 60
#: Bytes of a feed: a hundred times what all currencies of the world need. What is read from it is
#: kept in the ledger and given to every tenant.
_FEED_LIMIT: Final = 1_000_000


def feed(ctx: JobContext) -> Mapping[str, Any]:
    """Fetch the rates once for all tenants, or say why there is nothing to fetch."""
    if why := _nothing_to_fetch(ctx):
        return {"skip": why}
    try:
        document, source = _fetch(ctx)
        return _checked(document) | {"source": source[:_SOURCE_LIMIT]}
    except (OSError, ValueError, RecursionError) as error:
        # What requests raises is an OSError; texts name the server and nothing of the feed.
        after = timedelta(seconds=ctx.options["retry_s"])
        raise Retry(f"the feed: {type(error).__name__}: {error}", after=after) from error


def _nothing_to_fetch(ctx: JobContext) -> str | None:
    if ctx.options["file"]:
        return None
    if not ctx.options["url"]:
        return "neither url nor file is set"
    return "a dry run downloads nothing; the option file would do" if ctx.dry_run else None


def _fetch(ctx: JobContext) -> tuple[Any, str]:
    """Return the feed's document, numbers as their text, and where it comes from."""
    if path := ctx.options["file"]:
        text = Path(path).read_text(encoding="utf-8")
        return json.loads(text, parse_float=str), Path(path).name
    url = ctx.options["url"]
    answer = ctx.http.request("GET", url, most_bytes=_FEED_LIMIT)
    answer.raise_for_status()
    return json.loads(answer.content, parse_float=str), urlsplit(url).hostname or ""


def _checked(document: Any) -> dict[str, Any]:  # noqa: ANN401 - whatever a feed gives
    """Return base, date and rates. Raises ``ValueError``."""
    match document:
        case {"base": str(base), "date": str(day), "rates": dict(rates)} if base:
            day = date.fromisoformat(day).isoformat()
            named = {str(code).upper(): rate for code, rate in rates.items()}
            return {"base": base.upper(), "date": day, "rates": named}
    msg = "expected an object with base, date and rates"
    raise ValueError(msg)


@job(
    schedule="0 3 * * *",
    retry=RetryPolicy(attempts=4),
    prepare=feed,
    options={
        "url": Option("", environment="EXCHANGE_RATES_URL", help="where the feed is"),
        "file": Option(
            "",
            environment="EXCHANGE_RATES_FILE",
            help="a file instead of it; relative to where cronrunner was started",
        ),
        "retry_s": Option(60, minimum=0, help="seconds before a feed that failed is asked again"),
        "currencies": Option((), help="which to keep; those of the tenant's assets if empty"),
        "max_jump": Option(20, minimum=0, help="percent by which a rate may change at once"),
        "accept_jumps": Option(default=False, help="keep rates that have changed by more"),
    },
)
def exchange_rates(ctx: JobContext) -> Mapping[str, int]:
    """Keep the exchange rates of the day.

    The feed is a JSON document with ``base``, ``date`` (ISO) and ``rates`` (code to decimal text),
    fetched once for all tenants; without ``url`` and ``file`` the job is skipped. If fetching it
    fails it is tried three more times, and then no tenant is touched: the rates of before stay.
    Rates are rounded half to even to 8 places. One that has changed by more than ``max_jump``
    percent against the latest one of an earlier date is taken for a mistake of the feed and not
    kept, unless ``accept_jumps`` is set.

    From: OpsDeck: exchange rate sync

    Counters:
      written: rates of this date that were new
      updated: rates of this date that were corrected
      unchanged: rates that were there already
      missing: currencies that the feed does not have
      suspicious: rates that have changed too much and were not kept
      errors: rates that are no number, or out of bounds
    """
    if why := ctx.prepared.get("skip"):
        raise Skip(why)
    counters = dict.fromkeys(("written", "updated", "unchanged", "missing", "suspicious"), 0)
    items = Items(ctx)
    base = ctx.prepared["base"]
    for code in _currencies(ctx, base):
        if code not in ctx.prepared["rates"]:
            counters["missing"] += 1
            continue
        with items.attempt(f"{base}:{code}"):
            counters[_keep(ctx, code)] += 1
    return counters | {"errors": items.errors}


def _currencies(ctx: JobContext, base: str) -> list[str]:
    """Return the codes that this tenant needs, in order."""
    wanted = ctx.options["currencies"]
    if not wanted:
        used = select(func.upper(expiring_assets.c.currency)).distinct()
        wanted = ctx.connection.scalars(used.where(expiring_assets.c.currency.is_not(None)))
    codes = {str(code).strip().upper() for code in wanted}
    return sorted(codes - {base, ""})


class _Rate(NamedTuple):
    """A rate of the feed."""

    base: str
    quote: str
    rate_date: date
    rate_e8: int

    @property
    def is_its_row(self) -> ColumnElement[bool]:
        return and_(self.is_its_pair, stored.c.rate_date == self.rate_date)

    @property
    def is_its_pair(self) -> ColumnElement[bool]:
        return and_(stored.c.base == self.base, stored.c.quote == self.quote)


def _keep(ctx: JobContext, code: str) -> str:
    """Store the rate of one currency unless it is there or suspicious; return what to count."""
    prepared = ctx.prepared
    day = date.fromisoformat(prepared["date"])
    rate = _Rate(prepared["base"], code, day, to_parts(prepared["rates"][code]))
    there = ctx.connection.scalar(select(stored.c.rate_e8).where(rate.is_its_row))
    if there == rate.rate_e8:
        return "unchanged"
    if not ctx.options["accept_jumps"] and _has_jumped(ctx, rate):
        ctx.log.warning("rate.suspicious", base=rate.base, quote=code)
        return "suspicious"
    values = {"rate_e8": rate.rate_e8, "source": prepared["source"]}
    if there is None:
        ctx.connection.execute(insert(stored).values(rate._asdict() | values))
        return "written"
    ctx.connection.execute(update(stored).where(rate.is_its_row).values(values))
    return "updated"


def _has_jumped(ctx: JobContext, rate: _Rate) -> bool:
    earlier = select(stored.c.rate_e8).where(rate.is_its_pair, stored.c.rate_date < rate.rate_date)
    latest = ctx.connection.scalar(earlier.order_by(stored.c.rate_date.desc()).limit(1))
    if latest is None:
        return False
    return bool(abs(rate.rate_e8 - latest) * 100 > ctx.options["max_jump"] * latest)


def to_parts(text: object) -> int:
    """Return a rate in parts of 10^-8, rounded half to even. Raises ``ValueError``."""
    try:
        number = Decimal(str(text))
    except DecimalException:
        number = Decimal("NaN")
    # Before anything is made of it: an exponent may be a billion.
    if number.is_finite() and number.adjusted() in _POWERS:
        parts = round(Fraction(number) * _PART)
        if 0 < parts < _LIMIT:
            return parts
    msg = "expected a number above 0 and below 90 thousand million"
    raise ValueError(msg)
