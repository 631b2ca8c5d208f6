"""`pause` and `unpause`: what is paused is skipped, recorded, and done when the pause is over."""

import json
import sqlite3
from contextlib import closing
from pathlib import Path

import pytest

from tests.acceptance.fleet import Fleet
from tests.acceptance.small import COUNTING, SLOT, moment, small, until, written
from tests.acceptance.test_hooks import ONCE, notes

AT = ("run", "--json", "--scheduled-at", SLOT)
BECAUSE = ("--reason", "moved")
KEYS = {"job", "tenant", "server", "reason", "paused_at", "until"}


def fleet_that_ran(folder: Path, jobs: str = COUNTING) -> Fleet:
    """Make a fleet whose ledger knows its tenants; the run has a slot of its own."""
    fleet = small(folder, jobs)
    assert fleet.run().code == 0
    return fleet


def reasons(fleet: Fleet, *arguments: str) -> dict[tuple[str, str | None], str]:
    """Return what a plan sets aside or leaves out, and why."""
    rows = fleet.run("plan", "--json", *arguments).document
    return {(row["jobs"][0], row["tenant"]): row["reason"] for row in rows if row["reason"]}


def test_what_is_paused_is_skipped_with_its_reason_and_done_in_its_slot_after_unpause(
    tmp_path: Path,
) -> None:
    fleet = fleet_that_ran(tmp_path)
    assert fleet.run("pause", "--tenant=t1", *BECAUSE).code == 0
    first = fleet.run(*AT)

    assert (first.code, first.document["outcomes"]) == (0, {"succeeded": 2, "skipped": 1})
    assert first.execution("jobs.work", "t1")["reason"] == "paused: moved"
    assert +written(fleet) == {"t0": 2, "t1": 1, "t2": 2}
    (line,) = (
        each
        for each in first.log_lines("execution.finished")
        if each["cronrunner"]["outcome"] == "skipped"
    )
    assert line["cronrunner"]["tenant"] == "t1"
    shown = fleet.run("history", "--outcome=skipped").stdout
    assert "paused: moved" in shown

    assert fleet.run("unpause", "--tenant=t1").code == 0
    second = fleet.run(*AT)
    assert second.outcomes == {("jobs.work", "t1"): "succeeded"}
    assert second.document["duplicates"] == 2
    assert +written(fleet) == {"t0": 2, "t1": 2, "t2": 2}


def test_what_a_pause_kept_from_running_is_left_for_resume(tmp_path: Path) -> None:
    fleet = fleet_that_ran(tmp_path)
    fleet.run("pause", "--server=files", *BECAUSE)
    assert fleet.run(*AT).document["outcomes"] == {"skipped": 3}
    fleet.run("unpause", "--server=files")

    assert fleet.run("run", "--resume=last", "--json").document["outcomes"] == {"succeeded": 3}


def test_what_was_done_before_it_was_paused_is_a_duplicate(tmp_path: Path) -> None:
    fleet = small(tmp_path)
    fleet.run(*AT)
    fleet.run("pause", "--tenant=t1", *BECAUSE)
    again = fleet.run(*AT)

    assert (again.code, again.document["outcomes"], again.document["duplicates"]) == (0, {}, 3)
    assert fleet.run("history", "--outcome=skipped", "--json").document == []


def test_neither_an_exact_tenant_nor_again_gets_past_a_pause(tmp_path: Path) -> None:
    fleet = fleet_that_ran(tmp_path)
    fleet.run("pause", "--tenant=t1", *BECAUSE)

    for arguments in (("run", "--tenant=t1"), (*AT, "--tenant=t1", "--again")):
        assert fleet.run(*arguments).code == 0
    assert written(fleet)["t1"] == 1


def test_a_run_says_what_was_skipped_for_what(tmp_path: Path) -> None:
    fleet = fleet_that_ran(
        tmp_path,
        COUNTING + "    @job\n    def idle(ctx):\n        raise Skip('nothing to do')\n",
    )
    fleet.run("pause", "--job=work", *BECAUSE)
    fleet.run("pause", "--job=work", "--tenant=t0", "--reason=other")

    assert "skipped: 3 by the job, 3 paused\n" in fleet.run().stdout
    assert "skipped: 3 by the job, 3 paused\n" in fleet.run("show", "last").stdout


def test_what_is_paused_is_shown_wherever_somebody_looks(tmp_path: Path) -> None:
    fleet = fleet_that_ran(tmp_path)
    fleet.run("pause", "--job=work", "--tenant=t1", "--until=2999-03-01T03:00+01:00", *BECAUSE)
    fleet.run("pause", "--server=files", "--reason=the [bold] disk")
    text = "moved, until 2999-03-01T02:00:00Z"

    assert reasons(fleet) == dict.fromkeys(
        [("jobs.work", "t0"), ("jobs.work", "t1"), ("jobs.work", "t2")], "paused: the [bold] disk"
    )
    assert "paused: the [bold] disk" in fleet.run("plan").stdout
    assert fleet.run("jobs", "--json").document[0]["paused"] == [f"t1: {text}"]
    assert f"t1: {text}" in fleet.run("jobs").stdout
    tenants = {row["tenant"]: row["paused"] for row in fleet.run("tenants", "--json").document}
    assert tenants["t0"] == tenants["t2"] == ["files: the [bold] disk"]
    assert tenants["t1"] == ["files: the [bold] disk", f"jobs.work: {text}"]
    assert "jobs.work: moved" in fleet.run("tenants").stdout

    listed = fleet.run("pause", "--json").document
    assert [set(row) for row in listed] == [KEYS, KEYS]
    assert [(row["job"], row["tenant"], row["server"]) for row in listed] == [
        (None, None, "files"), ("jobs.work", "t1", None),
    ]  # fmt: skip
    assert listed[1]["until"] == "2999-03-01T02:00:00Z"
    table = fleet.run("pause").stdout
    assert "(all)      (all)   files" in table
    assert "2999-03-01 02:00:00  moved" in table


def test_a_document_is_printed_of_what_was_paused_and_unpaused(tmp_path: Path) -> None:
    fleet = fleet_that_ran(tmp_path)
    paused = fleet.run("pause", "--job=work", *BECAUSE, "--for=90m", "--json").document

    assert set(paused) == KEYS
    assert (paused["job"], paused["tenant"], paused["reason"]) == ("jobs.work", None, "moved")
    lasts = (moment(paused["until"]) - moment(paused["paused_at"])).total_seconds()
    assert 0 <= lasts - 90 * 60 < 1
    assert "." not in paused["until"]
    assert fleet.run("unpause", "--job=jobs.work", "--json").document == paused
    assert fleet.run("pause", "--json").document == []
    assert fleet.run("pause").stdout == "nothing is paused\n"


def test_a_second_pause_takes_the_place_of_the_first(tmp_path: Path) -> None:
    fleet = fleet_that_ran(tmp_path)
    fleet.run("pause", "--tenant=t1", *BECAUSE)
    fleet.run("pause", "--tenant=t1", "--reason=still", "--for=1d")

    (row,) = fleet.run("pause", "--json").document
    assert row["reason"] == "still"
    assert row["until"] is not None


def test_a_pause_that_is_over_has_no_effect_and_is_shown_no_more(tmp_path: Path) -> None:
    fleet = fleet_that_ran(tmp_path)
    fleet.run("pause", "--tenant=t1", *BECAUSE, "--for=1ms")
    until(lambda: fleet.run("pause", "--json").document == [])

    assert reasons(fleet) == {}
    assert fleet.run(*AT).document["outcomes"] == {"succeeded": 3}
    ended = fleet.run("unpause", "--tenant=t1")
    assert (ended.code, ended.stdout) == (2, "")
    assert "no pause of --tenant t1; nothing is paused" in ended.stderr


def test_an_end_that_is_past_pauses_nothing_and_keeps_the_pause_that_is_there(
    tmp_path: Path,
) -> None:
    fleet = fleet_that_ran(tmp_path)
    past = ("pause", "--tenant=t1", "--reason=x", "--until=2020-01-01")
    refused = fleet.run(*past)

    assert (refused.code, refused.stdout) == (2, "")
    assert "expected an --until to come, got 2020-01-01T00:00:00Z" in refused.stderr
    assert fleet.run("pause", "--json").document == []
    fleet.run("pause", "--tenant=t1", *BECAUSE)
    fleet.run(*past)
    assert [row["reason"] for row in fleet.run("pause", "--json").document] == ["moved"]


def test_all_mistakes_are_said_at_once_and_nothing_is_paused(tmp_path: Path) -> None:
    fleet = fleet_that_ran(tmp_path)
    refused = fleet.run(
        "pause", "--job=wrok", "--tenant=t9", "--server=fils", "--reason= ", "--for=1h",
        "--until=2999-01-01", "--json",
    )  # fmt: skip

    assert (refused.code, refused.stdout) == (2, "")
    lines = refused.stderr.splitlines()
    assert all(line.startswith("cronrunner: ") for line in lines)
    assert [line.removeprefix("cronrunner: ").partition(";")[0] for line in lines] == [
        "no job 'wrok'",
        "no tenant 't9'",
        "no server 'fils'",
        "expected a --reason, got none",
        "expected one of --until and --for, got both",
    ]
    assert "the nearest is jobs.work" in lines[0]
    assert fleet.run("pause", "--json").document == []


@pytest.fixture(scope="module")
def paused_fleet(tmp_path_factory: pytest.TempPathFactory) -> Fleet:
    """A fleet with one pause, for commands that change nothing."""
    fleet = fleet_that_ran(tmp_path_factory.mktemp("paused"))
    fleet.run("pause", "--job=work", *BECAUSE)
    return fleet


@pytest.mark.xdist_group("paused_fleet")
@pytest.mark.parametrize(
    ("arguments", "text"),
    [
        (("pause", *BECAUSE), "expected at least one of --job, --tenant, --server"),
        (("unpause",), "expected at least one of --job, --tenant, --server"),
        (("pause", "--job=work", "--tenant=", *BECAUSE), "expected a name behind --tenant"),
        (("unpause", "--job=work", "--tenant= "), "expected a name behind --tenant"),
        (("pause", "--job=*", *BECAUSE), "expected the name of a job, got the glob '*'"),
        (("pause", "--tenant=t*", *BECAUSE), "no tenant 't*'"),
        (("pause", "--tenant=T1", *BECAUSE), "no tenant 'T1'; the nearest is t1"),
        (("pause", "--tenant=t1", "--reason", "x" * 501), "at most 500 characters, got 501"),
        (("pause", "--tenant=t1", "--reason", "a\x1b[2Jb"), "characters that can be shown"),
        (("pause", "--tenant=t1", *BECAUSE, "--for=9999999d"), "before the year 10000"),
        (("pause", "--tenant=t1", *BECAUSE, "--for=99999999999d"), "expected a duration"),
        (("pause", "--job=work", *BECAUSE, "--until=soon"), "expected a time such as"),
        (("unpause", "--tenant=t1"), "no pause of --tenant t1; paused are: --job jobs.work"),
    ],
)
def test_a_mistake_is_2_and_says_what_to_do(
    paused_fleet: Fleet, arguments: tuple[str, ...], text: str
) -> None:
    refused = paused_fleet.run(*arguments)

    assert (refused.code, refused.stdout) == (2, "")
    assert text in refused.stderr
    assert "Traceback" not in refused.stderr
    assert paused_fleet.query("SELECT job, tenant FROM pauses") == [("jobs.work", "")]


def test_a_tenant_is_paused_on_its_own_server_only(tmp_path: Path) -> None:
    (tmp_path / "more").mkdir()
    sqlite3.connect(tmp_path / "more" / "m.db").close()
    where = {"files": "tenants", "others": "more"}
    fleet = small(
        tmp_path,
        servers={
            name: {"url": "sqlite://", "discover": {"directory": folder}}
            for name, folder in where.items()
        },
    )
    fleet.run()
    refused = fleet.run("pause", "--tenant=t1", "--server=others", *BECAUSE)

    assert refused.code == 2
    assert "tenant 't1' is on server files, not on others; leave --server out" in refused.stderr
    assert fleet.run("pause", "--tenant=t1", "--server=files", *BECAUSE).code == 0
    assert set(reasons(fleet)) == {("jobs.work", "t1")}


def test_names_are_taken_as_they_are_on_a_ledger_that_knows_no_tenant(tmp_path: Path) -> None:
    fleet = small(tmp_path)
    assert fleet.run("pause", "--tenant=Ännchen", *BECAUSE).code == 0
    assert fleet.run("pause", "--tenant=T0", *BECAUSE).code == 0
    assert fleet.run("pause", "--tenant=t1", *BECAUSE).code == 0
    for odd in ("t*", "x" * 129, "a\nb"):
        assert fleet.run("pause", f"--tenant={odd}", *BECAUSE).code == 2

    # `T0` is no `t0`.
    assert set(reasons(fleet)) == {("jobs.work", "t1")}
    assert fleet.run(*AT).document["outcomes"] == {"succeeded": 2, "skipped": 1}
    assert fleet.run("unpause", "--tenant=Ännchen").code == 0


def test_the_pause_of_a_job_that_is_gone_can_be_ended(tmp_path: Path) -> None:
    fleet = fleet_that_ran(tmp_path)
    fleet.run("pause", "--job=work", *BECAUSE)
    (tmp_path / "jobs" / "jobs.py").unlink()

    assert fleet.run("unpause", "--job=work").code == 0
    assert fleet.run("pause", "--json").document == []


def test_what_is_once_for_the_fleet_is_not_done_for_a_paused_job(tmp_path: Path) -> None:
    fleet = small(tmp_path, ONCE)
    for name in ("each", "once"):
        fleet.run("pause", f"--job={name}", *BECAUSE)
    first = fleet.run(*AT)

    assert (first.code, first.document["outcomes"]) == (0, {"skipped": 4})
    assert first.execution("jobs.once", "")["reason"] == "paused: moved"
    assert notes(tmp_path) == []
    assert ("jobs.once", None) in reasons(fleet)
    assert "(fleet)" in fleet.run("plan").stdout
    for name in ("each", "once"):
        fleet.run("unpause", f"--job={name}")
    assert fleet.run(*AT).document["outcomes"] == {"succeeded": 6}
    assert len(notes(tmp_path)) == 3


def test_a_job_is_not_summarized_while_a_tenant_is_paused(tmp_path: Path) -> None:
    fleet = small(tmp_path, ONCE)
    fleet.run("pause", "--tenant=t1", *BECAUSE)
    first = fleet.run(*AT)

    assert first.document["outcomes"] == {"succeeded": 4, "skipped": 1}
    assert sorted(notes(tmp_path)) == ["fleet ''", "prepare"]
    fleet.run("unpause", "--tenant=t1")
    assert fleet.run(*AT).outcomes == {
        ("jobs.each", "t1"): "succeeded", ("jobs.each:summarize", ""): "succeeded",
    }  # fmt: skip


def test_a_job_that_was_paused_before_its_summary_is_not_summarized(tmp_path: Path) -> None:
    fleet = small(tmp_path, ONCE)
    # It closes all claims, and is no run of the fleet: there is no summary yet.
    fleet.run(*AT, "--tenant=*")
    fleet.run("pause", "--job=each", *BECAUSE)
    paused = fleet.run(*AT)

    assert ("jobs.each:summarize", "") not in paused.outcomes
    fleet.run("unpause", "--job=each")
    assert ("jobs.each:summarize", "") in fleet.run(*AT).outcomes


def test_a_summary_has_what_a_tenant_did_before_it_was_paused(tmp_path: Path) -> None:
    jobs = """
        from pathlib import Path

        def after(ctx):
            return {"sum": sum(row["counters"].get("one", 0) for row in ctx.results())}

        @job(summarize=after)
        def each(ctx):
            return {"one": 1}
    """
    fleet = small(tmp_path, jobs)
    fleet.run(*AT, "--tenant=t0")
    fleet.run("pause", "--tenant=t0", *BECAUSE)
    document = fleet.run(*AT)

    assert document.execution("jobs.each:summarize", "")["counters"] == {"sum": 3}


def test_a_secret_in_a_reason_is_not_kept(tmp_path: Path) -> None:
    fleet = fleet_that_ran(tmp_path)
    env = {"API_TOKEN": "s3cret-t0ken-of-us"}
    said = fleet.run(
        "pause", "--tenant=t1", f"--reason=a\n  leak: {env['API_TOKEN']}", "--json", env=env
    )

    assert said.code == 0
    ((kept,),) = fleet.query("SELECT reason FROM pauses")
    assert kept == said.document["reason"]
    assert kept.startswith("a leak: ")
    assert env["API_TOKEN"] not in kept + said.stderr
    refused = fleet.run("pause", f"--tenant={env['API_TOKEN']}", *BECAUSE, env=env)
    assert (refused.code, env["API_TOKEN"] in refused.stderr) == (2, False)


def test_the_number_of_pauses_is_a_metric(tmp_path: Path) -> None:
    fleet = fleet_that_ran(tmp_path)
    fleet.configure(
        json.loads(fleet.config.read_text()) | {"metrics": {"textfile": "metrics.prom"}}
    )
    for tenant in ("t0", "t1"):
        fleet.run("pause", f"--tenant={tenant}", *BECAUSE)
    fleet.run()

    assert "\ncronrunner_pauses 2.0\n" in (tmp_path / "metrics.prom").read_text()


def test_jobs_are_shown_when_the_ledger_cannot_be_asked_for_pauses(tmp_path: Path) -> None:
    fleet = small(tmp_path)
    (tmp_path / "var").mkdir()
    with closing(fleet.ledger_file.open("w")) as broken:
        broken.write("no database" * 100)
    shown = fleet.run("jobs", "--json")

    assert (shown.code, shown.document[0]["paused"]) == (0, None)
    assert "what is paused is not known: DatabaseError" in shown.stderr
    assert fleet.run("pause").code == 70
