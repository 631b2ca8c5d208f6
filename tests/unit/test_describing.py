"""Descriptions of jobs: taken apart, and made into pages."""

from datetime import timedelta

import pytest

from cronrunner.cli.describing import overview_of, page_of
from cronrunner.model import Effects, Job, Option, RetryPolicy, Scope, Transaction
from cronrunner.registry.description import Description, read_description

WHOLE = """Feed the ``pets``.

Each gets what it likes | is used to.

- ``cats``: twice

Counters:
  fed: pets that got something, and
    were there
  errors: pets that bite

From: The zoo, feeding
"""


def test_a_description_has_a_summary_a_body_counters_and_an_origin() -> None:
    said = read_description(WHOLE)

    assert said.summary == "Feed the `pets`."
    assert said.body == "Each gets what it likes | is used to.\n\n- `cats`: twice"
    assert said.counters == {
        "fed": "pets that got something, and were there",
        "errors": "pets that bite",
    }
    assert said.origin == "The zoo, feeding"


def test_counters_may_stand_on_one_line() -> None:
    said = read_description("Feed.\nCounters: fed: pets; errors: pets that bite\nFrom: The zoo")

    assert said.counters == {"fed": "pets", "errors": "pets that bite"}
    assert (said.summary, said.body, said.origin) == ("Feed.", "", "The zoo")


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("", Description()),
        ("Feed.", Description(summary="Feed.")),
        ("Feed.\n\nCounters:", Description(summary="Feed.")),
        ("Feed.\n\nCounters:\n  nothing of the kind", Description(summary="Feed.")),
        ("Feed.\n\nFrom here on.", Description(summary="Feed.", body="From here on.")),
    ],
)
def test_what_is_not_said_is_empty(text, said) -> None:
    assert read_description(text) == said


FEED = Job(
    name="pets.feed",
    call=lambda _: None,
    origin="pets.py:12",
    description=WHOLE,
    schedule="0 6 * * 1",
    timezone="tenant",
    retry=RetryPolicy(attempts=3),
    transaction=Transaction.BATCH,
    options={
        "times": Option(2, help="how often", minimum=1, maximum=9.5),
        "food": Option(("meat", "hay"), choices=("meat", "hay"), environment="FOOD"),
        "note": Option(""),
        "loud": Option(default=False, help="a | b"),
    },
)


def test_a_page_says_all_of_a_job() -> None:
    page = page_of(FEED)

    assert page.startswith("# pets.feed\n\nFeed the `pets`.\n\nEach gets")
    for row in (
        "| schedule | `0 6 * * 1`, the tenant's zone: At 06:00 on Monday |",
        "| timeout | 5m |",
        "| attempts | 3, when the database was the cause or the job asks |",
        "| transaction | each batch commits together with how far it is |",
        "| file | `pets.py` |",
        "| comes from | The zoo, feeding |",
        "| option | default | meaning |",
        "| `times` | `2` | how often; at least 1; at most 9.5 |",
        "| `food` | `meat,hay` | one of `meat`, `hay`; environment `FOOD` |",
        "| `note` | none |  |",
        r"| `loud` | `false` | a \| b |",
        "| `fed` | pets that got something, and were there |",
    ):
        assert f"\n{row}\n" in page
    assert page.endswith("| `errors` | pets that bite |\n")


def test_a_page_tells_what_options_are_here() -> None:
    values = {"times": 5, "food": ("hay",), "note": "x", "loud": True}

    page = page_of(FEED, values)

    assert "| `times` | `2` | `5` | how often" in page
    assert "| `note` | none | `x` |  |" in page


def test_a_job_without_anything_has_a_short_page() -> None:
    page = page_of(Job(name="a.b", call=lambda _: None, origin="a.sql:1"))

    assert page.startswith("# a.b\n\n|  |  |\n|---|---|\n| schedule | none |\n")
    assert "##" not in page


def test_what_is_particular_about_a_job_is_a_line() -> None:
    page = page_of(
        Job(
            name="a.b", call=lambda _: None, origin="a.py:1", every=timedelta(minutes=15),
            scope=Scope.FLEET, transaction=Transaction.NONE, exactly_once=True,
            effects=Effects.EXTERNAL,
        )
    )  # fmt: skip

    assert "| schedule | every 15m |\n| scope | once for the whole fleet |" in page
    for line in ("the job commits for itself", "a slot is marked", "left out: it does"):
        assert line in page


def test_an_overview_leads_to_each_page() -> None:
    rotate = Job(name="logs.rotate", call=lambda _: None, origin="", scope=Scope.FLEET)

    table = overview_of([FEED, rotate], lambda job: f"pages/{job.name}.md")

    assert table.splitlines()[2:] == [
        "| [`pets.feed`](pages/pets.feed.md) | `0 6 * * 1`, the tenant's zone | Feed the `pets` | The zoo, feeding |",
        "| [`logs.rotate`](pages/logs.rotate.md) | none, once for the fleet |  |  |",
    ]
