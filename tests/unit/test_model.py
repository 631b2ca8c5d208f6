"""The words: what may follow what, what closes a claim, and how values are read and written."""

import pickle
from collections.abc import Mapping
from datetime import UTC, datetime, timedelta, timezone
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cronrunner.errors import CronrunnerError, DurationError, LedgerError, Problem
from cronrunner.model import (
    TRANSITIONS,
    WELL,
    Job,
    Key,
    Option,
    Outcome,
    Plan,
    Report,
    Request,
    Result,
    Run,
    Slot,
    State,
    Tenant,
    Visit,
    VisitRequest,
    closes_claim,
    format_duration,
    parse_duration,
)

NOON = datetime(2026, 3, 1, 12, tzinfo=UTC)


# The life of an execution.


def test_every_state_has_its_legal_transitions_and_an_outcome_has_none() -> None:
    assert set(TRANSITIONS) == set(State)
    for targets in TRANSITIONS.values():
        assert all(isinstance(target, State | Outcome) for target in targets)


def test_every_outcome_and_every_state_but_the_first_can_be_reached() -> None:
    reached = frozenset().union(*TRANSITIONS.values())

    assert reached == {*Outcome, *State} - {State.CLAIMED}


def test_what_never_began_can_only_be_left_out_or_cut_off() -> None:
    left = {State.RUNNING, Outcome.SKIPPED, Outcome.CANCELLED, Outcome.INTERRUPTED}

    assert TRANSITIONS[State.CLAIMED] == TRANSITIONS[State.WAITING] == left
    assert TRANSITIONS[State.RUNNING] == {State.WAITING, *Outcome}


@pytest.mark.parametrize(
    ("outcome", "by_runner", "by_job"),
    [
        (Outcome.SUCCEEDED, True, True),
        (Outcome.FAILED, True, True),
        (Outcome.TIMED_OUT, True, True),
        (Outcome.TENANT_GONE, True, True),
        (Outcome.SKIPPED, False, True),
        (Outcome.CANCELLED, False, True),
        (Outcome.STUCK, False, False),
        (Outcome.INTERRUPTED, False, False),
    ],
)
def test_a_claim_is_closed_by_an_answer_and_left_open_by_the_runner(
    outcome: Outcome, by_runner: bool, by_job: bool
) -> None:
    assert closes_claim(outcome, by_job=False) is by_runner
    assert closes_claim(outcome, by_job=True) is by_job


def test_only_succeeded_and_skipped_are_well() -> None:
    assert {Outcome.SUCCEEDED, Outcome.SKIPPED} == WELL


# The exit code.


def report(**given: Any) -> Report:
    run = Run(
        id="r1", command="", started_at=NOON, scheduled_at=None, host="", boot="", pid=1,
        pid_started=1, slot=Slot.of_run("r1", NOON),
    )  # fmt: skip
    blank: dict[str, Any] = {
        "finished_at": NOON, "duration_seconds": 0.0, "tenants": 1, "planned": 3, "outcomes": {},
        "duplicates": 0, "held": 0, "errors": (), "causes": (), "slowest": (),
        "unwell_tenants": 0,
    }  # fmt: skip
    return Report(run=run, **{**blank, **given})


@pytest.mark.parametrize(
    ("given", "code"),
    [
        ({}, 0),
        ({"outcomes": {Outcome.SUCCEEDED: 2, Outcome.SKIPPED: 1}}, 0),
        ({"duplicates": 3}, 0),
        ({"held": 3}, 3),
        ({"held": 1, "duplicates": 2}, 3),
        ({"held": 1, "outcomes": {Outcome.SUCCEEDED: 2}}, 0),
        ({"held": 3, "broken_jobs": 1}, 1),
        ({"broken_jobs": 1}, 1),
        ({"broken_jobs": 1, "discovery_failed": True}, 4),
        ({"discovery_failed": True, "drained": True}, 75),
        ({"drained": True, "forced": 70}, 70),
        *(({"outcomes": {each: 1}}, 0 if each in WELL else 1) for each in Outcome),
    ],
)
def test_the_exit_code_follows_the_precedence(given: Mapping[str, Any], code: int) -> None:
    assert report(**given).exit_code == code


# Slots, plans, results.


def test_a_slot_of_a_scheduled_time_is_named_alike_from_every_zone() -> None:
    berlin = timezone(timedelta(hours=1))
    slot = Slot.scheduled(datetime(2026, 3, 1, 13, tzinfo=berlin))

    assert slot == Slot.scheduled(NOON)
    assert slot.key == "2026-03-01T12:00:00Z"
    assert slot.at.tzinfo is UTC


def test_a_slot_keeps_the_microseconds_that_were_asked_for() -> None:
    assert Slot.scheduled(NOON.replace(microsecond=5)).key == "2026-03-01T12:00:00.000005Z"


def test_a_run_without_a_scheduled_time_has_a_slot_of_its_own() -> None:
    assert Slot.of_run("20260301T120000-abc123", NOON) == Slot(
        at=NOON, key="run:20260301T120000-abc123"
    )


def test_a_slot_without_a_zone_is_refused() -> None:
    with pytest.raises(ValueError, match="expected a datetime with a time zone"):
        Slot.scheduled(datetime(2026, 3, 1))  # noqa: DTZ001 - what is refused


@given(st.datetimes(timezones=st.timezones()))
def test_two_instants_have_one_key_only_if_they_are_one(moment: datetime) -> None:
    later = moment.astimezone(UTC) + timedelta(microseconds=1)

    assert Slot.scheduled(moment) == Slot.scheduled(moment.astimezone(UTC))
    assert Slot.scheduled(later).key != Slot.scheduled(moment).key


def test_a_plan_counts_fleet_jobs_among_its_executions() -> None:
    tenant = Tenant(name="acme", server="main", database="acme")
    plan = Plan(visits=(Visit(tenant=tenant, jobs=("a", "b")),), fleet_jobs=("c",))

    assert plan.executions == 3


def test_the_hooks_of_a_job_have_names_of_their_own() -> None:
    job = Job(name="reports.daily", call=print, origin="reports.py:1")

    assert job.prepare_name == "reports.daily:prepare"
    assert job.summarize_name == "reports.daily:summarize"


def test_values_are_frozen_and_take_no_positions() -> None:
    tenant = Tenant(name="acme", server="main", database="acme")

    with pytest.raises(AttributeError):
        tenant.name = "other"  # type: ignore[misc]
    with pytest.raises(TypeError):
        Tenant("acme", "main", "acme")  # type: ignore[call-arg]


# Durations.


@pytest.mark.parametrize(
    ("text", "seconds"),
    [("30s", 30), ("5m", 300), ("1h30m", 5400), ("250ms", 0.25), ("1.5h", 5400), ("2d", 172_800)],
)
def test_durations_are_read_as_they_are_written(text: str, seconds: float) -> None:
    assert parse_duration(text) == timedelta(seconds=seconds)


@pytest.mark.parametrize(
    "text", ["", "5", "s", "5 m", "0s", "-5s", "5m ", "5x", "5M", "1h,3m", "٣s", "99999999999d"]
)
def test_what_is_no_duration_is_refused_with_examples(text: str) -> None:
    with pytest.raises(DurationError, match="expected a duration such as 30s, 5m or 1h30m"):
        parse_duration(text)


@given(st.integers(min_value=1, max_value=10**11))
def test_a_duration_is_read_back_as_it_was_written(milliseconds: int) -> None:
    duration = timedelta(milliseconds=milliseconds)

    assert parse_duration(format_duration(duration)) == duration


# Options.


@pytest.mark.parametrize(
    ("option", "raw", "value"),
    [
        (Option(default=False), True, True),
        (Option(default=False), " YES ", True),
        (Option(default=True), "off", False),
        (Option(default=True), "0", False),
        (Option(30), 7, 7),
        (Option(30), " -7 ", -7),
        (Option(0.5), 2, 2.0),
        (Option(0.5), "1e3", 1000.0),
        (Option("a"), " b ", "b"),
        (Option(("a",)), ["b", "c"], ("b", "c")),
        (Option(("a",)), " B, c,, ", ("B", "c")),
        (Option(("a",), choices=("a", "b")), "B, a", ("b", "a")),
        (Option(("a",), choices=("a", "b")), ["B"], ("b",)),
        (Option("x", choices=("x", "y")), "Y", "y"),
        (Option(("a",)), "", ("a",)),
        (Option(("a",)), [], ("a",)),
        (Option(()), "", ()),
        (Option((30, 7)), "14, 1", (14, 1)),
        (Option((30, 7)), [14, "1"], (14, 1)),
        (Option(5, minimum=5, maximum=5), 5, 5),
        (Option("x", choices=("x", "y")), "y", "y"),
    ],
)
def test_an_option_is_read_as_the_type_of_its_default(
    option: Option, raw: object, value: object
) -> None:
    found = option.read(raw)

    assert found == value
    assert type(found) is type(value)


def test_a_mapping_is_read_from_yaml_and_from_json_and_nobody_changes_it() -> None:
    option = Option({"a": 1})

    assert option.read({"b": [2]}) == option.read('{"b": [2]}') == {"b": [2]}
    with pytest.raises(TypeError):
        option.read({"b": 2})["b"] = 3


def _even(value: str) -> str:
    if len(value) % 2:
        raise ValueError(f"expected an even number of letters, got {value!r}")
    return value


def _all_even(values: tuple[str, ...]) -> list[str]:
    return [_even(value) for value in values]


@pytest.mark.parametrize(
    ("option", "raw", "expected"),
    [
        (Option(default=True), "maybe", "expected true or false, got 'maybe'"),
        (Option(default=True), 1, "expected true or false, got 1"),
        (Option(30), "7.5", "expected a whole number, got '7.5'"),
        (Option(30), 7.5, "expected a whole number, got 7.5"),
        (Option(30), True, "expected a whole number, got True"),
        (Option(0.5), "much", "expected a number, got 'much'"),
        (Option(0.5), "nan", "expected a number, got 'nan'"),
        (Option(0.5), True, "expected a number, got True"),
        (Option("a"), 5, "expected text, got 5"),
        (Option(("a",)), 5, "expected a list, got 5"),
        (Option(30, minimum=1), 0, "expected at least 1, got 0"),
        (Option(30, maximum=40), "41", "expected at most 40, got 41"),
        (Option((30, 7)), "14,x", "expected a whole number, got 'x'"),
        (Option((30, 7), minimum=1), "14,0", "expected at least 1, got 0"),
        (Option(("a",)), ["a", 5], "expected text, got 5"),
        (Option("x", choices=("x", "y")), "z", "expected one of x, y, got 'z'"),
        (Option(("x",), choices=("x", "y")), "x,z", "expected one of x, y, got 'z'"),
        (Option({"a": 1}), "a", "expected a mapping of names to values, got 'a'"),
        (Option({"a": 1}), "[1]", "expected a mapping of names to values, got '[1]'"),
        (Option({"a": 1}), {1: "a"}, "expected a mapping of names to values, got {1: 'a'}"),
        (Option({"a": 1}, choices=("a", "b")), {"c": 1}, "expected one of a, b, got 'c'"),
        (Option("even", check=_even), "odd", "expected an even number of letters, got 'odd'"),
        (
            Option(("even",), check=_all_even),
            "even,odd",
            "expected an even number of letters, got 'odd'",
        ),
        (
            Option({"a": "even"}, check=lambda value: _even(value["a"])),
            {"b": "even"},
            "its check failed with KeyError: 'a'",
        ),
    ],
)
def test_what_an_option_cannot_be_is_refused_with_what_was_expected(
    option: Option, raw: object, expected: str
) -> None:
    with pytest.raises(ValueError) as caught:
        option.read(raw)

    assert str(caught.value) == expected


def test_requests_and_results_can_be_sent_to_another_process() -> None:
    key = Key(job="a", tenant="t", slot_key="s")
    request = Request(key=key, run="r", slot=NOON, attempt=1, fence=1)
    tenant = Tenant(name="t", server="s", database="d")
    result = Result(
        request=request, server="s", outcome=Outcome.FAILED, started_at=NOON, duration_seconds=1.0
    )
    sent = (VisitRequest(tenant=tenant, requests=(request,)), result)

    assert pickle.loads(pickle.dumps(sent)) == sent


# Errors.


def test_the_docstring_of_an_error_is_its_message_unless_it_has_one() -> None:
    assert str(LedgerError()) == LedgerError.__doc__
    assert str(LedgerError("the disk is full")) == "the disk is full"
    assert isinstance(DurationError("5"), CronrunnerError)


@pytest.mark.parametrize(
    ("problem", "text"),
    [
        (Problem(text="t", file="f", line=3), "f:3: t"),
        (Problem(text="t", file="f"), "f: t"),
        (Problem(text="t"), "t"),
    ],
)
def test_a_problem_begins_with_its_place(problem: Problem, text: str) -> None:
    assert str(problem) == text


def test_what_is_in_a_mapping_belongs_to_who_has_read_it() -> None:
    configured = {"a": [1]}
    Option({}).read(configured)["a"].append(2)

    assert configured == {"a": [1]}


def test_a_mapping_that_is_nested_too_deeply_is_none() -> None:
    with pytest.raises(ValueError, match="expected a mapping"):
        Option({}).read('{"a":' + "[" * 50_000 + "]" * 50_000 + "}")
