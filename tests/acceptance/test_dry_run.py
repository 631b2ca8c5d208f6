"""`--dry-run`: it says what a run would change, and changes nothing."""

from pathlib import Path

import pytest

from tests.acceptance.dry_runs import AT, DRY, bytes_of, ledger_rows
from tests.acceptance.fleet import finish
from tests.acceptance.small import (
    EXECUTION_KEYS,
    KEYS,
    SLOT,
    WAITING,
    began,
    go,
    small,
    until,
    written,
)

# What is written, and what is not.


def test_the_ledger_has_one_more_run_and_nothing_else(tmp_path: Path) -> None:
    fleet = small(tmp_path)
    fleet.run("run", *AT)
    before, tenants = ledger_rows(fleet), bytes_of(fleet)
    dry = fleet.run(*DRY)

    assert dry.code == 0
    assert ledger_rows(fleet) == before
    assert bytes_of(fleet) == tenants
    assert len(fleet.query("SELECT run FROM runs")) == 2
    (row,) = fleet.query(
        "SELECT command, fleet, exit_code, finished_at FROM runs WHERE run = ?",
        dry.document["run"],
    )
    assert "--dry-run" in row[0]
    assert row[1:3] == (0, 0)
    assert row[3] is not None


def test_the_document_has_its_keys_and_says_that_it_was_dry(tmp_path: Path) -> None:
    finished = small(tmp_path).run(*DRY, *AT)

    assert set(finished.document) == KEYS | {"dry_run"}
    assert finished.document["dry_run"] is True
    assert {frozenset(row) for row in finished.document["executions"]} == {
        frozenset(EXECUTION_KEYS | {"rows_changed"})
    }
    row = finished.execution("jobs.work", "t1")
    assert (row["counters"], row["rows_changed"], row["slot"]) == ({"rows": 1}, 1, SLOT)


def test_a_slot_that_was_run_dry_is_not_done(tmp_path: Path) -> None:
    fleet = small(tmp_path)
    dry = fleet.run(*DRY, *AT)
    real = fleet.run("run", "--json", *AT)
    again = fleet.run(*DRY, *AT)
    repeated = fleet.run(*DRY, *AT, "--again")

    assert dry.document["outcomes"] == real.document["outcomes"] == {"succeeded": 3}
    assert again.document["duplicates"] == 3
    assert repeated.document["outcomes"] == {"succeeded": 3}
    assert written(fleet) == {"t0": 1, "t1": 1, "t2": 1}


def test_the_summary_says_what_would_have_changed_and_that_nothing_did(tmp_path: Path) -> None:
    summary = small(tmp_path).run("run", "--dry-run").stdout

    assert summary.startswith("dry run ")
    (row,) = [line.split() for line in summary.splitlines() if line.startswith("jobs.work")]
    assert row == ["jobs.work", "3", "3", "rows=3"]
    assert summary.endswith("dry run: everything was rolled back and nothing was changed\n")
    assert "cronrunner show" not in summary


def test_metrics_go_nowhere_and_know_nothing_of_it(tmp_path: Path) -> None:
    fleet = small(tmp_path, metrics={"textfile": "metrics.prom"})
    dry = fleet.run(*DRY)
    assert not (tmp_path / "metrics.prom").exists()
    fleet.run("run")

    assert dry.log_lines("run.started")[0]["cronrunner"]["dry_run"] is True
    assert "cronrunner_job_executions_total" in (tmp_path / "metrics.prom").read_text()


@pytest.mark.parametrize("option", ["--resume", "--only-failed"])
def test_last_is_no_dry_run_and_none_can_be_repeated(tmp_path: Path, option: str) -> None:
    fleet = small(tmp_path)
    real = fleet.run("run", "--json").document["run"]
    dry = fleet.run(*DRY).document["run"]
    refused = fleet.run("run", option, dry)
    last = fleet.run("run", "--json", option, "last")

    assert refused.code == 2
    assert "was a dry run" in refused.stderr
    assert last.code == 0
    assert fleet.run("show", "last").stdout.split()[1] != dry
    assert [row for (row,) in fleet.query("SELECT slot_key FROM runs WHERE run = ?", real)] == [
        row
        for (row,) in fleet.query("SELECT slot_key FROM runs WHERE run = ?", last.document["run"])
    ]


def test_only_failed_shows_what_the_repetition_would_do(tmp_path: Path) -> None:
    fleet = small(
        tmp_path,
        """
        from pathlib import Path

        @job
        def work(ctx):
            if ctx.tenant.name == "t1" and not Path("mended").exists():
                raise ValueError("broken")
            ctx.execute("INSERT INTO done VALUES ('work', :slot)")
        """,
    )
    assert fleet.run("run").code == 1
    (tmp_path / "mended").touch()
    dry = fleet.run(*DRY, "--only-failed", "last")
    real = fleet.run("run", "--json", "--only-failed", "last")

    assert dry.outcomes == real.outcomes == {("jobs.work", "t1"): "succeeded"}
    assert written(fleet) == {"t0": 1, "t1": 1, "t2": 1}


def test_resume_shows_what_was_left(tmp_path: Path) -> None:
    fleet = small(tmp_path, WAITING, runner={"concurrency": 1, "grace": "5s"})
    with fleet.started("run", *AT) as process:
        until(lambda: began(fleet))
        process.terminate()
        go(fleet)
        assert finish(process).code == 75
    left = 3 - sum(written(fleet).values())
    dry = fleet.run(*DRY, "--resume", "last")

    assert dry.document["outcomes"] == {"succeeded": left}
    assert 3 - sum(written(fleet).values()) == left


def test_what_a_dead_run_left_is_for_a_real_run_to_record(tmp_path: Path) -> None:
    fleet = small(tmp_path, WAITING)
    with fleet.started("run", *AT) as process:
        until(lambda: began(fleet))
        process.kill()
        process.wait()
    go(fleet)
    before = ledger_rows(fleet)
    assert before["claims"]
    dry = fleet.run(*DRY, *AT)

    assert dry.document["outcomes"] == {"succeeded": 3}
    assert ledger_rows(fleet) == before


def test_a_shrunk_fleet_is_reported_and_not_accepted(tmp_path: Path) -> None:
    fleet = small(tmp_path, tenants=8)
    fleet.run("run")
    for name in ("t5", "t6", "t7"):
        (tmp_path / "tenants" / f"{name}.db").unlink()

    assert fleet.run(*DRY).code == 4
    assert fleet.run(*DRY, "--accept-shrink").code == 0
    assert fleet.run("run", "--json").code == 4


# Hooks, attempts, failures.


def test_prepare_runs_its_value_is_kept_nowhere_and_summarize_does_not_run(tmp_path: Path) -> None:
    fleet = small(
        tmp_path,
        """
        def before(ctx):
            assert ctx.dry_run
            return 7

        def after(ctx):
            return {"summed": 1}

        @job(prepare=before, summarize=after)
        def work(ctx):
            return {"value": ctx.prepared}
        """,
    )
    dry = fleet.run(*DRY, *AT)

    assert dry.code == 0
    assert set(dry.outcomes) == {
        ("jobs.work:prepare", ""),
        *(("jobs.work", name) for name in ("t0", "t1", "t2")),
    }
    assert dry.execution("jobs.work", "t0")["counters"] == {"value": 7}
    assert fleet.query("SELECT * FROM prepared") == []


def test_failures_retries_and_deadlines_are_those_of_a_real_run(tmp_path: Path) -> None:
    fleet = small(
        tmp_path,
        """
        import time
        from datetime import timedelta
        from cronrunner import Retry

        @job(timeout="1s", retries=1)
        def work(ctx):
            ctx.execute("INSERT INTO done VALUES ('work', :slot)")
            match ctx.tenant.name:
                case "t0" if ctx.attempt == 1:
                    raise Retry("once more", after=timedelta(0))
                case "t1":
                    raise ValueError("broken")
                case "t2":
                    while True:
                        ctx.execute("SELECT 1")
                        ctx.check()
        """,
    )
    dry = fleet.run(*DRY)

    assert dry.code == 1
    assert {tenant: outcome for (_, tenant), outcome in dry.outcomes.items()} == {
        "t0": "succeeded", "t1": "failed", "t2": "timed_out",
    }  # fmt: skip
    assert dry.execution("jobs.work", "t0")["attempts"] == 2
    assert dry.execution("jobs.work", "t1")["rows_changed"] == 0
    assert sum(written(fleet).values()) == 0


def test_rows_are_counted_as_they_would_stay(tmp_path: Path) -> None:
    fleet = small(
        tmp_path,
        """
        from sqlalchemy import column, insert, table

        @job
        def work(ctx):
            done = table("done", column("job"), column("slot"))
            ctx.connection.execute(text("INSERT INTO done VALUES ('lost', 'x')"))
            ctx.connection.rollback()
            ctx.connection.execute(insert(done), [{"job": str(n), "slot": "x"} for n in range(1500)])
            inner = ctx.connection.begin_nested()
            ctx.connection.execute(text("DELETE FROM done"))
            inner.rollback()
            with ctx.connection.begin_nested():
                ctx.connection.execute(text("-- why\\nUPDATE done SET slot = 'y' WHERE job = '1'"))
            ctx.connection.execute(text("INSERT INTO done VALUES ('a', 'x') RETURNING job")).all()
            ctx.connection.execute(text("SELECT * FROM done")).all()
            return {"dry": int(ctx.dry_run)}
        """,
        tenants=1,
    )
    row = fleet.run(*DRY).execution("jobs.work", "t0")
    real = fleet.run("run", "--json").execution("jobs.work", "t0")

    assert (row["rows_changed"], row["counters"]) == (1502, {"dry": 1})
    assert real["counters"] == {"dry": 0}
    assert "rows_changed" not in real
    assert written(fleet) == {"t0": 1501}


def test_ddl_is_rolled_back_where_it_is_part_of_the_transaction(tmp_path: Path) -> None:
    ddl = "@job\ndef work(ctx):\n    ctx.execute('CREATE TABLE more (n INT)')\n"
    fleet = small(tmp_path, ddl)
    before = bytes_of(fleet)

    assert fleet.run(*DRY).code == 0
    assert bytes_of(fleet) == before


# What is refused.

REFUSED = """
    @job(transaction="none")
    def commits(ctx):
        ctx.execute("INSERT INTO done VALUES ('commits', :slot)")
        ctx.connection.commit()

    @job(effects="external")
    def mails(ctx):
        open("sent", "w").close()

    @job(scope="fleet", effects="repeatable")
    def calls(ctx):
        open("sent", "w").close()

    @job
    def work(ctx):
        return {"rows": 0}
"""


def test_what_cannot_be_rolled_back_is_skipped_and_the_run_goes_on(tmp_path: Path) -> None:
    fleet = small(tmp_path, {"jobs": REFUSED, "mail.sql": "-- effects: external\nSELECT 1"})
    before = bytes_of(fleet)
    dry = fleet.run(*DRY)

    assert dry.code == 0
    assert dry.document["outcomes"] == {"succeeded": 3, "skipped": 10}
    assert dry.execution("jobs.mails", "t0")["reason"] == (
        "dry run: it declares effects outside of the database"
    )
    assert dry.execution("jobs.calls", "")["outcome"] == "skipped"
    assert dry.execution("mail", "t0")["outcome"] == "skipped"
    assert dry.execution("jobs.commits", "t2")["reason"] == (
        'dry run: it commits for itself (transaction="none")'
    )
    warned = [line["message"] for line in dry.log_lines("warned")]
    assert len([text for text in warned if text.startswith("dry run: job ")]) == 4
    assert bytes_of(fleet) == before
    assert not (tmp_path / "sent").exists()
    assert "jobs.mails was not run: dry run: it declares" in fleet.run("run", "--dry-run").stdout


def test_jobs_that_were_named_and_are_all_refused_are_a_mistake(tmp_path: Path) -> None:
    fleet = small(tmp_path, REFUSED)
    refused = fleet.run(*DRY, "mails", "commits")

    assert refused.code == 2
    assert [text.split(":")[1] for text in refused.document["errors"]] == [
        " job jobs.mails is not run",
        " job jobs.commits is not run",
    ]
    assert refused.stderr.count("run it without --dry-run, or name other jobs") == 2
    # Nor is it run because something else is named as well; a glob takes what it can.
    assert fleet.run(*DRY, "mails", "work").code == 2
    assert fleet.run(*DRY, "jobs.*").code == 0


ENDINGS = {
    "commit": ("ctx.connection.commit()", "the job commits"),
    "caught": (
        "\n    try:\n        ctx.connection.commit()\n    except Exception:\n        pass",
        "the job commits",
    ),
    "text": ("ctx.execute('/* now */ COMMIT')", "COMMIT ends the transaction"),
    "rollback": ("ctx.connection.exec_driver_sql('ROLLBACK')", "ROLLBACK ends the transaction"),
    "engine": ("ctx.engine", "ctx.engine is committed by whoever uses it"),
    "autocommit": (
        (
            "ctx.connection.rollback()\n    on = ctx.connection.execution_options"
            "(isolation_level='AUTOCOMMIT')\n    on.execute(text('DELETE FROM done'))"
        ),
        "autocommit leaves nothing to roll back",
    ),
}


@pytest.mark.parametrize(("statement", "said"), ENDINGS.values(), ids=ENDINGS)
def test_a_job_that_would_commit_fails_and_has_changed_nothing(
    tmp_path: Path, statement: str, said: str
) -> None:
    insert = "ctx.execute(\"INSERT INTO done VALUES ('a', 'x')\")"
    first = "" if statement == "ctx.engine" else f"    {insert}\n"
    fleet = small(tmp_path, f"@job\ndef work(ctx):\n{first}    {statement}\n    {insert}\n")
    before = bytes_of(fleet)
    dry = fleet.run(*DRY)

    assert dry.code == 1
    assert dry.document["outcomes"] == {"failed": 3}
    (cause,) = dry.document["causes"]
    assert cause["cause"].startswith(f"dry run: {said}")
    assert bytes_of(fleet) == before


def test_an_isolated_job_is_rolled_back_as_well(tmp_path: Path) -> None:
    fleet = small(
        tmp_path,
        """
    def ready(ctx):
        return {"n": 3}

    @job(isolation="process", prepare=ready)
    def work(ctx):
        ctx.execute("INSERT INTO done VALUES ('work', :slot)")
        return {"prepared": ctx.prepared["n"], "dry": int(ctx.dry_run)}
""",
    )
    done = fleet.run("run", "--json", "--dry-run")
    assert done.code == 0, done.stderr
    assert done.execution("jobs.work", "t0")["counters"] == {"prepared": 3, "dry": 1}
    assert done.execution("jobs.work", "t0")["rows_changed"] == 1
    assert written(fleet) == {"t0": 0, "t1": 0, "t2": 0}
