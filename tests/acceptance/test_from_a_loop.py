"""What comes from `for db in databases`: a function of a name and an engine is a job as it stands."""

from pathlib import Path

from tests.acceptance.fleet import Fleet
from tests.acceptance.small import small, written

LOOP = """
    from sqlalchemy import text

    from cronrunner import job

    @job(timeout="1m")
    def remind(db_name, engine):
        with engine.begin() as connection:
            connection.execute(text("INSERT INTO done VALUES (:name, '')"), {"name": db_name})
        return {"reminded": 1}

    @job
    def chatty(db_name, engine, limit=10):
        with engine.connect() as connection:
            assert connection.execute(text("SELECT count(*) FROM done")).scalar_one() == 1
        return [{"any": "thing", "for": "the loop"}]

    @job
    def mixed(db_name, engine):
        return {"count": 1, "errors": ["of the loop"]}

    @job
    def broken(db_name, engine):
        with engine.begin() as connection:
            connection.execute(text("DELETE FROM done"))
            raise RuntimeError(db_name)
"""


def loop(folder: Path) -> Fleet:
    fleet = small(folder, {}, tenants=2)
    fleet.write_job("loop.py", LOOP)
    return fleet


def test_it_gets_the_database_and_the_engine_and_commits_for_itself(tmp_path: Path) -> None:
    fleet = loop(tmp_path)
    assert fleet.run("run", "remind").code == 0
    finished = fleet.run("run", "chatty", "mixed", "broken", "--json")

    assert +written(fleet) == {"t0": 1, "t1": 1}
    outcomes = {job: outcome for (job, tenant), outcome in finished.outcomes.items()}
    assert outcomes == {
        "loop.chatty": "succeeded",
        "loop.mixed": "succeeded",
        "loop.broken": "failed",
    }
    assert finished.execution("loop.chatty", "t0")["counters"] == {}
    assert finished.execution("loop.mixed", "t0")["counters"] == {}
    assert "t1.db" in finished.execution("loop.broken", "t1")["error"]


def test_the_counts_that_it_returns_are_counters(tmp_path: Path) -> None:
    finished = loop(tmp_path).run("run", "remind", "--json")

    assert finished.execution("loop.remind", "t1")["counters"] == {"reminded": 1}


def test_a_dry_run_leaves_it_out_since_it_commits(tmp_path: Path) -> None:
    fleet = loop(tmp_path)
    finished = fleet.run("run", "--dry-run", "--json")

    assert set(finished.outcomes.values()) == {"skipped"}
    assert +written(fleet) == {}
    (job,) = [each for each in fleet.run("jobs", "--json").document if each["job"] == "loop.remind"]
    assert job["transaction"] == "none"


def test_without_a_decorator_it_is_no_job_and_check_says_so(tmp_path: Path) -> None:
    fleet = small(tmp_path, {}, tenants=1)
    fleet.write_job(
        "loop.py",
        "\ndef send_reminders(db_name, engine): ...\ndef _inner(db, engine): ...\n"
        "def total(a, b): ...\n",
    )
    fleet.write_job(
        "mixed.py",
        "from cronrunner import job\n\n@job\ndef work(ctx): ...\n\ndef step(db, engine): ...\n",
    )
    checked = fleet.run("check", "--json").document

    assert checked["errors"] == []
    assert [each for each in checked["warnings"] if each["file"] == "loop.py"] == [
        {
            "text": "send_reminders(db_name, engine) is no job; put @job from cronrunner above it",
            "file": "loop.py",
            "line": 2,
        }
    ]
    assert [each["job"] for each in fleet.run("jobs", "--json").document] == ["mixed.work"]


def test_a_function_that_takes_neither_is_a_mistake(tmp_path: Path) -> None:
    fleet = small(tmp_path, {}, tenants=1)
    fleet.write_job(
        "odd.py",
        "from cronrunner import job\n\n@job\ndef none(): ...\n\n@job\ndef three(a, b, c): ...\n\n"
        "@job\nasync def late(db_name, engine): ...\n\n@job(exactly_once=True)\ndef once(db, engine): ...\n\n"
        "@job(transaction='tenant', timeout='x')\ndef own(db, engine): ...\n",
    )
    errors = [each["text"] for each in fleet.run("check", "--json").document["errors"]]

    expected = "expected a function of (ctx), or of (db_name, engine)"
    assert errors == [
        f"job odd.none: {expected}",
        f"job odd.three: {expected}",
        (
            "job odd.late: expected a plain function of (db_name, engine); one of (ctx) may be"
            " async def"
        ),
        (
            'job odd.once: exactly_once: expected transaction="tenant" and scope="tenant": the'
            " marker is part of it"
        ),
        "job odd.own: timeout: expected a duration such as 30s, 5m or 1h30m, got 'x'",
        (
            "job odd.own: transaction: expected none for a function of (db_name, engine), which"
            " commits, got tenant"
        ),
    ]


def test_parameters_that_are_called_like_what_they_are_not_are_a_warning(tmp_path: Path) -> None:
    fleet = small(tmp_path, {}, tenants=1)
    fleet.write_job(
        "odd.py",
        "from cronrunner import job\n\n@job\ndef swapped(engine, db_name): ...\n\n"
        "@job\ndef alone(db_name): ...\n\n@job(transaction='none')\ndef well(db, engine): ...\n\n"
        "@job\ndef context(context): ...\n",
    )
    checked = fleet.run("check", "--json").document

    assert checked["errors"] == []
    warned = {each["line"]: each["text"] for each in checked["warnings"] if each["file"]}
    assert warned == {
        3: "swapped: engine is the database's name, and db_name the engine; expected (db_name, engine)",
        6: "alone: db_name is a context, with engine and tenant; call it ctx, or take (db_name, engine)",
    }
