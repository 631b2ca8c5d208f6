"""Which jobs on which tenants, in which order."""

from collections.abc import Mapping
from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cronrunner.errors import ConfigError
from cronrunner.model import (
    FLEET_TENANT,
    Job,
    Pair,
    Pause,
    Plan,
    Scope,
    Tenant,
    TenantFilter,
)
from cronrunner.planning import (
    Selection,
    in_shard,
    is_glob,
    make_plan,
    nearest,
    pausing,
    select_jobs,
    select_tenants,
)

NOW = datetime(2026, 3, 1, tzinfo=UTC)


def tenant(name: str, server: str = "main", **labels: str) -> Tenant:
    return Tenant(name=name, server=server, database=name, labels=labels)


def job(name: str, **given: object) -> Job:
    return Job(name=name, call=print, origin="x.py:1", **given)  # type: ignore[arg-type]


def jobs(*names: str) -> dict[str, Job]:
    return {name: job(name) for name in names}


def statistics(
    job: str, tenant: str, seconds: float = 0.0, failures: int = 0, *, hours_ago: float = 0.0
) -> Pair:
    return Pair(
        job=job,
        tenant=tenant,
        last_run_at=NOW - timedelta(hours=hours_ago),
        consecutive_failures=failures,
        smoothed_seconds=seconds,
    )


def names(plan: Plan) -> list[str]:
    return [visit.tenant.name for visit in plan.visits]


# Jobs.

KNOWN = jobs("billing.close", "billing.remind", "crm.remind", "cleanup")


@pytest.mark.parametrize(
    ("patterns", "chosen"),
    [
        ((), ["billing.close", "billing.remind", "crm.remind", "cleanup"]),
        (("billing.close",), ["billing.close"]),
        (("close",), ["billing.close"]),
        (("cleanup",), ["cleanup"]),
        (("billing.*",), ["billing.close", "billing.remind"]),
        (("*.remind",), ["billing.remind", "crm.remind"]),
        (("close", "billing.close"), ["billing.close"]),
        (("crm.remind", "c[lm]*"), ["crm.remind", "cleanup"]),
    ],
)
def test_jobs_are_selected_by_name_glob_and_last_part(
    patterns: tuple[str, ...], chosen: list[str]
) -> None:
    assert [each.name for each in select_jobs(KNOWN, patterns)] == chosen


def test_every_job_that_is_unknown_or_ambiguous_is_named_with_what_is_near() -> None:
    with pytest.raises(ConfigError) as caught:
        select_jobs(KNOWN, ("remind", "biling.close", "zzz", "crm.*"))

    assert [problem.text for problem in caught.value.problems] == [
        "job 'remind' is ambiguous: billing.remind, crm.remind; give the whole name",
        "no job 'biling.close'; the nearest are billing.close, billing.remind",
        "no job 'zzz'; no known name is near it",
    ]


def test_a_disabled_job_is_run_only_when_it_is_named() -> None:
    known = {**KNOWN, "off": job("off", enabled=False)}

    assert "off" not in {each.name for each in select_jobs(known, ())}
    assert "off" not in {each.name for each in select_jobs(known, ("*",))}
    assert [each.name for each in select_jobs(known, ("off",))] == ["off"]


def test_the_nearest_names_are_three_at_most() -> None:
    assert nearest("acm", ["acme", "acme1", "acme2", "acme3"]).count(",") == 2


# Tenants.

TENANTS = (
    tenant("agency_acme", "main", plan="gold"),
    tenant("agencyXacme", "main", plan="gold", region="eu"),
    tenant("agency_birch", "other", plan="free"),
    tenant("odd[1]*", "other"),
    tenant("odd1", "other"),
)


@pytest.mark.parametrize(
    ("selection", "chosen"),
    [
        (Selection(), ["agency_acme", "agencyXacme", "agency_birch", "odd[1]*", "odd1"]),
        (Selection(tenants=("agency_*",)), ["agency_acme", "agency_birch"]),
        (Selection(tenants=("agency?acme",)), ["agency_acme", "agencyXacme"]),
        (Selection(tenants=("odd[[]1[]][*]",)), ["odd[1]*"]),
        (Selection(tenants=("agency_birch", "odd1")), ["agency_birch", "odd1"]),
        (Selection(exclude_tenants=("agency*",)), ["odd[1]*", "odd1"]),
        (Selection(tenants=("odd*",), exclude_tenants=("odd1",)), ["odd[1]*"]),
        (Selection(labels={"plan": "gold"}), ["agency_acme", "agencyXacme"]),
        (Selection(labels={"plan": "gold", "region": "eu"}), ["agencyXacme"]),
        (Selection(labels={"plan": "silver"}), []),
        (Selection(servers=("oth*",)), ["agency_birch", "odd[1]*", "odd1"]),
        (Selection(servers=("other",), labels={"plan": "free"}), ["agency_birch"]),
    ],
)
def test_tenants_are_selected_by_globs_labels_and_servers(
    selection: Selection, chosen: list[str]
) -> None:
    assert [each.name for each in select_tenants(TENANTS, selection)] == chosen


def test_a_tenant_whose_name_holds_glob_characters_is_found_by_its_exact_name() -> None:
    found = [each.name for each in select_tenants(TENANTS, Selection(tenants=("odd[1]*",)))]

    assert "odd[1]*" in found


def test_an_underscore_is_no_glob() -> None:
    assert not is_glob("agency_acme")
    assert all(map(is_glob, ["a*", "a?", "a[1]"]))


def test_every_tenant_that_is_unknown_is_named_with_what_is_near() -> None:
    with pytest.raises(ConfigError) as caught:
        select_tenants(TENANTS, Selection(tenants=("agency_acne", "odd1", "nowhere*")))

    first, second = (problem.text for problem in caught.value.problems)
    assert first.startswith("no tenant 'agency_acne'; the nearest are agency_acme")
    assert second == "no tenant 'nowhere*'; no known name is near it"


def test_of_many_tenants_that_are_unknown_the_first_are_said_with_what_is_near() -> None:
    with pytest.raises(ConfigError) as caught:
        select_tenants(TENANTS, Selection(tenants=tuple(f"agency_acm{n}" for n in range(30))))
    texts = [problem.text for problem in caught.value.problems]

    assert len(texts) == 30
    assert all("; the nearest are agency_acme" in text for text in texts[:10])
    assert texts[10:] == [f"no tenant 'agency_acm{n}'" for n in range(10, 30)]


def test_a_visit_says_which_of_its_jobs_history_does_not_know() -> None:
    known = history(
        statistics("a", "t0", 2.0), statistics("a", "t1", 1.0), statistics("b", "t1", 3.0)
    )
    plan = make_plan(
        list(jobs("a", "b").values()), [tenant(f"t{n}") for n in range(3)], statistics=known
    )

    assert [(v.tenant.name, v.expected_seconds, v.unknown_jobs) for v in plan.visits] == [
        ("t1", 4.0, ()),
        ("t0", 2.0, ("b",)),
        ("t2", None, ("a", "b")),
    ]


def test_only_a_choice_of_tenants_makes_a_run_less_than_the_fleets() -> None:
    assert not Selection(jobs=("a",), shard=(0, 2)).narrows_tenants
    assert Selection(tenants=("a",)).narrows_tenants
    assert Selection(exclude_tenants=("a",)).narrows_tenants
    assert Selection(labels={"a": "b"}).narrows_tenants
    assert Selection(servers=("a",)).narrows_tenants


@given(st.sets(st.text(min_size=1), max_size=50), st.integers(min_value=1, max_value=9))
def test_the_shards_cover_each_tenant_once(known: set[str], count: int) -> None:
    tenants = [tenant(name) for name in sorted(known)]
    shards = [select_tenants(tenants, Selection(shard=(i, count))) for i in range(count)]

    assert sorted(each.name for shard in shards for each in shard) == sorted(known)


def test_a_shard_is_the_same_on_every_machine_and_the_shards_are_even() -> None:
    assert [in_shard("agency_acme", i, 4) for i in range(4)] == [True, False, False, False]
    sizes = [sum(in_shard(f"agency_{n}", i, 4) for n in range(4000)) for i in range(4)]
    assert all(900 < size < 1100 for size in sizes)


# The plan.


def test_a_job_visits_the_tenants_that_its_filter_wants() -> None:
    gold = job("gold", tenants=TenantFilter(names=("agency*",), labels={"plan": "gold"}))
    plan = make_plan([gold, job("all")], TENANTS)

    assert {visit.tenant.name: visit.jobs for visit in plan.visits} == {
        "agency_acme": ("gold", "all"),
        "agencyXacme": ("gold", "all"),
        "agency_birch": ("all",),
        "odd[1]*": ("all",),
        "odd1": ("all",),
    }
    assert {(out.tenant, out.job) for out in plan.left_out} == {
        (name, "gold") for name in ("agency_birch", "odd[1]*", "odd1")
    }
    assert plan.executions == 7


def test_a_tenant_without_a_wanted_job_is_not_visited() -> None:
    plan = make_plan([job("a")], TENANTS[:1], veto=lambda job, tenant: "not today")

    assert plan.visits == ()
    assert [each.reason for each in plan.left_out] == ["not today"]


def test_fleet_jobs_stay_out_of_a_part_of_the_fleet() -> None:
    known = [job("once", scope=Scope.FLEET), job("each")]

    assert make_plan(known, TENANTS).fleet_jobs == ("once",)
    part = make_plan(known, TENANTS, fleet=False)
    assert part.fleet_jobs == ()
    assert [(out.tenant, out.job) for out in part.left_out] == [("", "once")]


def history(*each: Pair) -> Mapping[tuple[str, str], Pair]:
    return {(one.job, one.tenant): one for one in each}


def test_the_longest_go_first_and_the_failing_last() -> None:
    tenants = [tenant(name) for name in ("new", "quick", "long", "bad", "worse")]
    known = history(
        statistics("a", "quick", 1),
        statistics("b", "quick", 1),
        statistics("a", "long", 9),
        statistics("a", "bad", 50, failures=1),
        statistics("b", "worse", 60, failures=9),
        statistics("other", "new", 99, failures=3),
    )
    plan = make_plan([job("a"), job("b")], tenants, statistics=known)

    assert names(plan) == ["long", "quick", "new", "worse", "bad"]
    assert [visit.expected_seconds for visit in plan.visits] == [9, 2, None, 60, 50]


def test_those_that_take_equally_long_go_by_name() -> None:
    seconds = {"c": 0.0021, "a": 0.0049, "d": 0.0093, "b": 0.0002, "long": 0.011}
    known = history(*(statistics("a", name, taken) for name, taken in seconds.items()))
    plan = make_plan([job("a")], [tenant(name) for name in seconds], statistics=known)

    assert names(plan) == ["long", "a", "b", "c", "d"]


def test_tenants_of_which_nothing_is_known_go_by_name() -> None:
    assert names(make_plan([job("a")], [tenant(name) for name in "cab"])) == ["a", "b", "c"]


def test_servers_are_interleaved_in_proportion() -> None:
    tenants = [tenant(f"big{n}", "big") for n in range(9)]
    tenants += [tenant(f"small{n}", "small") for n in range(3)]
    servers = [visit.tenant.server for visit in make_plan([job("a")], tenants).visits]

    thirds = [servers[start : start + 4] for start in (0, 4, 8)]
    assert [third.count("small") for third in thirds] == [1, 1, 1]


def test_failing_tenants_of_every_server_come_after_all_well_ones() -> None:
    tenants = [tenant(f"{server}{n}", server) for server in ("x", "y") for n in range(4)]
    known = history(*(statistics("a", f"x{n}", 5, failures=1) for n in range(4)))
    plan = make_plan([job("a")], tenants, statistics=known)

    assert [visit.tenant.server for visit in plan.visits] == ["y"] * 4 + ["x"] * 4


DRAINED = NOW - timedelta(hours=10)


def test_after_a_drain_what_it_left_goes_first_and_the_oldest_success_before_all() -> None:
    tenants = [tenant(name) for name in ("done", "later", "left", "longer", "bad", "new")]
    known = history(
        statistics("a", "done", 99, hours_ago=9),
        statistics("a", "later", 1, hours_ago=8),
        statistics("a", "left", 1, hours_ago=35),
        statistics("a", "longer", 50, hours_ago=34),
        statistics("a", "bad", 1, failures=1, hours_ago=40),
    )
    plan = make_plan([job("a")], tenants, statistics=known, drained_since=DRAINED)

    assert names(plan) == ["new", "left", "longer", "done", "later", "bad"]
    without = make_plan([job("a")], tenants, statistics=known)
    assert names(without) == ["done", "longer", "later", "left", "new", "bad"]


def test_a_visit_was_left_by_a_drain_if_one_of_its_jobs_was() -> None:
    known = history(
        statistics("a", "half", hours_ago=9),
        statistics("b", "half", hours_ago=34),
        statistics("a", "part", hours_ago=9),
        statistics("a", "done", hours_ago=9),
        statistics("b", "done", hours_ago=9),
    )
    tenants = [tenant(name) for name in ("done", "half", "part")]
    plan = make_plan([job("a"), job("b")], tenants, statistics=known, drained_since=DRAINED)

    assert names(plan) == ["part", "half", "done"]


def test_what_a_drain_left_on_one_server_goes_before_what_it_did_on_another() -> None:
    tenants = [tenant(f"{server}{n}", server) for server in ("x", "y") for n in range(3)]
    known = history(
        *(statistics("a", f"x{n}", hours_ago=9) for n in range(3)),
        *(statistics("a", f"y{n}", hours_ago=34) for n in range(3)),
    )
    plan = make_plan([job("a")], tenants, statistics=known, drained_since=DRAINED)

    assert names(plan) == ["y0", "y1", "y2", "x0", "x1", "x2"]


def test_the_order_does_not_depend_on_the_order_of_discovery() -> None:
    tenants = [tenant(f"t{n}", f"s{n % 3}") for n in range(30)]

    assert make_plan([job("a")], tenants) == make_plan([job("a")], tenants[::-1])


def pause(
    job: str = "", tenant: str = "", server: str = "", *, reason: str = "moved", hours: int = 0
) -> Pause:
    until = NOW + timedelta(hours=hours) if hours else None
    return Pause(
        job=job, tenant=tenant, server=server, reason=reason, paused_at=NOW, until=until
    )  # fmt: skip


@pytest.mark.parametrize(
    ("paused", "expected"),
    [
        (pause("a"), {("a", "acme"), ("a", "Acme"), ("a", "birch"), ("a", "")}),
        (pause(tenant="acme"), {("a", "acme"), ("b", "acme")}),
        (pause(server="x"), {("a", "acme"), ("b", "acme"), ("a", "birch"), ("b", "birch")}),
        (pause("b", "acme"), {("b", "acme")}),
        (pause("b", server="x"), {("b", "acme"), ("b", "birch")}),
        (pause(tenant="acme", server="y"), set()),
        (pause("c"), set()),
    ],
)
def test_a_pause_holds_for_what_it_names(paused: Pause, expected: set[tuple[str, str]]) -> None:
    tenants = [tenant("acme", "x"), tenant("birch", "x"), tenant("Acme", "y"), FLEET_TENANT]
    found = {
        (each.name, on.name)
        for each in (job("a"), job("b"))
        for on in tenants
        if pausing([paused])(each, on) is not None
    }

    assert found == expected


def test_of_several_pauses_the_one_that_ends_last_says_why() -> None:
    tenant_, pauses = tenant("acme"), [pause("a", hours=1), pause(tenant="acme", hours=2)]

    assert pausing(pauses)(job("a"), tenant_) == "paused: moved, until 2026-03-01T02:00:00Z"
    for_ever = pause("a", "acme", reason="for ever")
    assert pausing([*pauses, for_ever])(job("a"), tenant_) == "paused: for ever"


def test_what_is_paused_is_planned_and_set_aside_and_what_is_not_wanted_is_neither() -> None:
    known = [job("a"), job("b", tenants=TenantFilter(names=("x",))), job("f", scope=Scope.FLEET)]
    setting_aside = pausing([pause("b"), pause("f"), pause("a", "acme")])
    plan = make_plan(known, [tenant("acme"), tenant("x")], setting_aside=setting_aside)

    assert [(visit.tenant.name, visit.jobs) for visit in plan.visits] == [("x", ("a",))]
    assert plan.fleet_jobs == ()
    assert [(each.job, each.tenant.name) for each in plan.set_aside] == [
        ("a", "acme"), ("b", "x"), ("f", ""),
    ]  # fmt: skip
    assert plan.executions == 4
    part = make_plan(known, [], setting_aside=setting_aside, fleet=False)
    assert (part.set_aside, [out.job for out in part.left_out]) == ((), ["f"])
