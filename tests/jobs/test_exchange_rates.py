"""finance.exchange_rates: one download for all, and nothing is kept that cannot be right."""

import gzip
import json
from collections.abc import Mapping
from datetime import date, timedelta
from typing import Any

import pytest

from cronrunner import Retry, Skip
from jobs.finance import feed, to_parts
from jobs.schema import exchange_rates, expiring_assets, job_items
from tests.jobs.tenant import JOBS, S, TenantDatabase
from tests.servers import Answer, HttpServer, free_port

JOB = "finance.exchange_rates"
TODAY = date(2026, 3, 1)
NOTHING = {
    "written": 0, "updated": 0, "unchanged": 0, "missing": 0, "suspicious": 0, "errors": 0,
}  # fmt: skip


def asset(currency: str | None) -> dict[str, Any]:
    return {"kind": "subscription", "name": "CRM", "auto_renew": False, "currency": currency}


def rate(value: int, day: date = TODAY, quote: str = "USD", base: str = "EUR") -> dict[str, Any]:
    return {"base": base, "quote": quote, "rate_date": day, "rate_e8": value, "source": "test"}


def keep(
    tenant: TenantDatabase, rates: Mapping[str, Any], day: str = "2026-03-01", **options: Any
) -> dict[str, int]:
    """Run the job on what a feed gave; return the counters that are not zero."""
    with tenant.context(JOB, **options) as ctx:
        document = {"base": "EUR", "date": day, "rates": rates, "source": "feed.example.org"}
        ctx.prepared = json.loads(json.dumps(document))
        counters = dict(JOBS[JOB].call(ctx))
    assert counters.keys() == NOTHING.keys()
    return {name: count for name, count in counters.items() if count}


def test_the_rate_of_a_currency_in_use_is_written(tenant: TenantDatabase) -> None:
    tenant.add(expiring_assets, asset("usd"), asset("USD"), asset(None), asset("EUR"))

    assert keep(tenant, {"USD": "1.10", "JPY": "160"}) == {"written": 1}
    (row,) = tenant.rows(exchange_rates)
    assert row == {"id": row["id"], **rate(110_000_000), "source": "feed.example.org"}


def test_a_second_run_changes_nothing(tenant: TenantDatabase) -> None:
    tenant.add(expiring_assets, asset("USD"))
    keep(tenant, {"USD": "1.10"})
    before = tenant.content()

    assert keep(tenant, {"USD": "1.10"}) == {"unchanged": 1}
    assert tenant.content() == before


def test_a_tenant_without_currencies_needs_no_rate(tenant: TenantDatabase) -> None:
    assert keep(tenant, {"USD": "1.10"}) == {}


def test_the_option_says_which_currencies_are_kept(tenant: TenantDatabase) -> None:
    tenant.add(expiring_assets, asset("USD"))

    assert keep(tenant, {"USD": "1", "GBP": "0.8"}, currencies="gbp, chf,eur") == {
        "written": 1, "missing": 1,
    }  # fmt: skip
    assert [row["quote"] for row in tenant.rows(exchange_rates)] == ["GBP"]


def test_a_currency_that_the_feed_lacks_is_missing(tenant: TenantDatabase) -> None:
    tenant.add(expiring_assets, asset("XYZ"))

    assert keep(tenant, {"USD": "1.10"}) == {"missing": 1}


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("1.2", {"written": 1}), ("1.20000001", {"suspicious": 1}),
        ("0.8", {"written": 1}), ("0.79999999", {"suspicious": 1}),
        # Rounded first, compared then.
        ("1.200000005", {"written": 1}),
    ],
)  # fmt: skip
def test_a_jump_of_more_than_a_fifth_is_suspicious(
    tenant: TenantDatabase, text: str, expected: dict[str, int]
) -> None:
    tenant.add(expiring_assets, asset("USD"))
    tenant.add(exchange_rates, rate(100_000_000, TODAY - timedelta(days=3)))

    assert keep(tenant, {"USD": text}) == expected
    assert len(tenant.rows(exchange_rates)) == 1 + expected.get("written", 0)


def test_a_jump_can_be_accepted_or_be_allowed_to_be_larger(tenant: TenantDatabase) -> None:
    tenant.add(exchange_rates, rate(100_000_000, TODAY - timedelta(days=1)))

    assert keep(tenant, {"USD": "1.5"}, currencies="USD", max_jump=49) == {"suspicious": 1}
    assert keep(tenant, {"USD": "1.5"}, currencies="USD", max_jump=50) == {"written": 1}
    assert keep(tenant, {"USD": "9"}, currencies="USD", accept_jumps=True) == {"updated": 1}


def test_it_is_the_latest_rate_of_an_earlier_date_that_counts(tenant: TenantDatabase) -> None:
    tenant.add(
        exchange_rates,
        rate(100_000_000, TODAY - timedelta(days=9)),
        rate(200_000_000, TODAY - timedelta(days=1)),
        rate(900_000_000, TODAY + timedelta(days=1)),
        rate(900_000_000, TODAY - timedelta(days=1), quote="GBP"),
        rate(900_000_000, TODAY - timedelta(days=1), base="USD"),
    )

    assert keep(tenant, {"USD": "2.1"}, currencies="USD") == {"written": 1}


def test_another_value_of_the_same_date_is_a_correction(tenant: TenantDatabase) -> None:
    tenant.add(exchange_rates, rate(100_000_000))

    assert keep(tenant, {"USD": "1.5"}, currencies="USD") == {"updated": 1}
    (row,) = tenant.rows(exchange_rates)
    assert (row["rate_e8"], row["source"]) == (150_000_000, "feed.example.org")


def test_a_rate_that_is_none_is_an_error_and_the_others_are_kept(tenant: TenantDatabase) -> None:
    broken: list[Any] = [
        "",
        "x",
        "NaN",
        "Infinity",
        "-1",
        "0",
        "0.000000005",
        "9e10",
        None,
        True,
        [],
        "1e999999999",
    ]
    codes = [f"A{number:02}" for number in range(len(broken))]
    rates = dict(zip(codes, broken, strict=True))
    counters = keep(tenant, rates | {"USD": "1.1"}, currencies=",".join([*codes, "USD"]))

    assert counters == {"written": 1, "errors": len(broken)}
    assert [row["quote"] for row in tenant.rows(exchange_rates)] == ["USD"]
    assert {row["item"] for row in tenant.rows(job_items)} == {f"EUR:{code}" for code in codes}


@pytest.mark.parametrize(
    ("text", "parts"),
    [
        ("1.10", 110_000_000), ("0.000000005000001", 1), ("0.000000015", 2), ("0.000000025", 2),
        ("89999999999.99999999", 8_999_999_999_999_999_999), (7, 700_000_000),
        # More digits than Decimal would keep.
        ("1." + "0" * 7 + "5" + "0" * 60 + "1", 100_000_005), ("1e-8", 1),
    ],
)  # fmt: skip
def test_rates_are_rounded_half_to_even(text: object, parts: int) -> None:
    assert to_parts(text) == parts


# The feed


def prepare(tenant: TenantDatabase, **options: Any) -> Any:
    with tenant.context(JOB, **options) as ctx:
        return feed(ctx)


def test_the_feed_is_read_from_a_url_or_a_file(
    tenant: TenantDatabase, http_server: HttpServer, tmp_path: Any
) -> None:
    text = '{"base": "eur", "date": "2026-03-01", "rates": {"usd": "1.10", "JPY": 160.123456789}}'
    http_server.answer("/latest", Answer(body=text.encode()))
    (tmp_path / "rates.json").write_text(text)
    rates = {"USD": "1.10", "JPY": "160.123456789"}
    expected = {"base": "EUR", "date": "2026-03-01", "rates": rates}

    url = http_server.url("/latest")
    assert prepare(tenant, url=url) == expected | {"source": "127.0.0.1"}
    path = str(tmp_path / "rates.json")
    assert prepare(tenant, file=path, url=url) == expected | {"source": "rates.json"}
    assert len(http_server.asked) == 1


@pytest.mark.parametrize(
    "answer",
    [
        Answer(body=b"[" * 100_000), Answer(body=b" " * 2_000_000),
        Answer(body=gzip.compress(b" " * 2_000_000), headers={"Content-Encoding": "gzip"}),
        Answer(500), Answer(404), Answer(body=b"garbage"), Answer(body=b"[]"), Answer(body=b"\xff"),
        Answer(body=b'{"base": "EUR", "date": "soon", "rates": {}}'),
        Answer(body=b'{"base": "EUR", "date": "2026-03-01", "rates": []}'),
        Answer(body=b'{"base": "", "date": "2026-03-01", "rates": {}}'), Answer(raw=b"\x00\r\n\r\n"),
    ],
    ids=[
        "nested", "blank", "bomb", "500", "404", "garbage", "list", "no text", "no date", "no rates",
        "no base", "no HTTP",
    ],
)  # fmt: skip
def test_a_feed_that_is_not_as_expected_is_asked_again_later(
    tenant: TenantDatabase, http_server: HttpServer, answer: Answer
) -> None:
    http_server.answer("/planted", answer)
    with pytest.raises(Retry, match=r"^the feed: ") as retry:
        prepare(tenant, url=http_server.url("/planted"))

    assert retry.value.after == timedelta(seconds=60)
    assert "planted" not in str(retry.value)


def test_a_feed_that_is_gone_is_asked_again_later(tenant: TenantDatabase, tmp_path: Any) -> None:
    with pytest.raises(Retry, match="Connection refused"):
        prepare(tenant, url=f"http://127.0.0.1:{free_port()}/", retry_s=5)
    with pytest.raises(Retry, match="FileNotFoundError"):
        prepare(tenant, file=str(tmp_path / "gone.json"))


def test_without_a_feed_there_is_nothing_to_do(tenant: TenantDatabase) -> None:
    with pytest.raises(Skip, match="neither url nor file is set"):
        tenant.run(JOB)


def test_the_job_is_scheduled_at_three() -> None:
    assert JOBS[JOB].schedule == "0 3 * * *"
    assert JOBS[JOB].retry.attempts == 4
    assert S.date() == TODAY
