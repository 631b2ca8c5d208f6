"""The testing kit: what it promises to authors of jobs, on both kinds of servers."""

import asyncio
import time
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from itertools import count
from pathlib import Path
from typing import Any

import pymysql
import pytest
from sqlalchemy import Column, Integer, MetaData, String, Table, event, insert, select
from sqlalchemy.exc import IntegrityError

from cronrunner import Cancel, Option, Retry, Skip, job
from cronrunner.errors import (
    ConfigError,
    ConnectionClosedError,
    CountersError,
    DeadlineError,
    JobFileError,
)
from cronrunner.model import Outcome
from cronrunner.testing import (
    SLOT,
    ThrowawayTenant,
    assert_idempotent,
    throwaway_tenant,
)
from cronrunner.testing.finding import Jobs, job_folder
from cronrunner.testing.places import Files, Place, Schema, ServerDatabase

metadata = MetaData()
pets = Table(
    "pets",
    metadata,
    Column("id", Integer, primary_key=True),
    Column("name", String(20), unique=True),
    Column("legs", Integer, nullable=False, server_default="4"),
)

tenant = throwaway_tenant(metadata, servers={"mariadb": "mariadb_url"})


def add_pet(ctx: Any, name: str = "Rex") -> None:
    ctx.connection.execute(insert(pets).values(name=name))


@job(options={"name": "Rex", "legs": Option(4, minimum=0, maximum=8)})
def adopt(ctx):
    """Add a pet."""
    ctx.connection.execute(insert(pets).values(name=ctx.options["name"], legs=ctx.options["legs"]))
    return {"adopted": 1}


def test_a_job_is_run_and_its_transaction_committed(tenant: ThrowawayTenant) -> None:
    assert tenant.run(adopt, legs="3") == {"adopted": 1}

    assert tenant.rows(pets) == [{"id": tenant.rows("pets")[0]["id"], "name": "Rex", "legs": 3}]


def test_options_are_read_and_bounded_as_in_a_run(tenant: ThrowawayTenant) -> None:
    with pytest.raises(ConfigError) as caught:
        tenant.run(adopt, legs=9, nmae="Ada")

    (bound, unknown) = sorted(str(problem) for problem in caught.value.problems)[::-1]
    assert "no option 'nmae'" in bound + unknown
    assert "name" in bound + unknown
    assert "expected at most 8, got 9" in bound + unknown


def test_an_option_that_is_called_like_a_circumstance_is_given_by_name(
    tenant: ThrowawayTenant,
) -> None:
    @job(options={"zone": "UTC"})
    def zoned(ctx):
        assert (ctx.options["zone"], ctx.tenant.timezone) == ("Mars", "Asia/Kolkata")

    assert tenant.run(zoned, zone="Asia/Kolkata", options={"zone": "Mars"}) == {}


def test_what_the_job_raises_is_raised_and_rolled_back(tenant: ThrowawayTenant) -> None:
    def broken(ctx):
        add_pet(ctx)
        raise ZeroDivisionError("legs")

    with pytest.raises(ZeroDivisionError, match="legs") as caught:
        tenant.run(broken)

    assert [frame.name for frame in caught.traceback][-3:] == ["run", "refuse_unwell", "broken"]
    assert tenant.rows(pets) == []


@pytest.mark.parametrize(
    ("raised", "outcome", "reason"),
    [
        (Skip("nothing due"), "skipped", "nothing due"),
        (Cancel("no"), "cancelled", "no"),
        (Retry("later", after=timedelta(minutes=3)), "failed", None),
    ],
)
def test_an_attempt_tells_how_it_ended(tenant: ThrowawayTenant, raised, outcome, reason) -> None:
    def answer(ctx):
        raise raised

    with pytest.raises(type(raised)):
        tenant.run(answer)
    attempted = tenant.attempt(answer)

    assert (attempted.outcome, attempted.reason) == (Outcome(outcome), reason)
    assert attempted.exception is raised
    assert attempted.result.transient is isinstance(raised, Retry)
    assert attempted.result.retry_after == getattr(raised, "after", None)


def test_an_error_of_the_database_is_told_without_values(tenant: ThrowawayTenant) -> None:
    tenant.add(pets, {"name": "Rex"})

    attempted = tenant.attempt(adopt)

    assert isinstance(attempted.exception, IntegrityError)
    assert attempted.error is not None
    assert "Rex" not in attempted.error
    assert attempted.result.traceback is not None


def test_counters_that_are_none_fail_the_attempt(tenant: ThrowawayTenant) -> None:
    def confused(ctx):
        add_pet(ctx)
        return {"pets": 1.5, "legs": 4, "a@example.org": "x", 3: 4}

    with pytest.raises(CountersError, match="numbers, got int: int and pets: float and str: str"):
        tenant.run(confused)

    assert tenant.rows(pets) == []


def test_a_deadline_ends_a_statement_at_the_server(tenant: ThrowawayTenant) -> None:
    tenant.add(pets, *({"name": str(number)} for number in range(60)))

    @job(timeout="300ms")
    def blocked(ctx):
        add_pet(ctx, "late")
        # MySQL knows how many there are without looking, but not what they have in them.
        ctx.execute("SELECT SUM(LENGTH(e.name)) FROM pets a, pets b, pets c, pets d, pets e").all()

    began = time.monotonic()
    attempted = tenant.attempt(blocked)

    assert attempted.outcome is Outcome.TIMED_OUT
    assert time.monotonic() - began < 5
    assert len(tenant.rows(pets)) == 60
    with pytest.raises(DeadlineError, match="timeout of 300ms is over"):
        tenant.run(blocked)


def test_a_commit_that_fails_is_raised(tenant: ThrowawayTenant) -> None:
    def close_too_early(ctx):
        add_pet(ctx)
        ctx.connection.close()
        return {"added": 1}

    with pytest.raises(ConnectionClosedError):
        tenant.run(close_too_early)

    assert tenant.rows(pets) == []


def test_a_job_may_be_a_coroutine(tenant: ThrowawayTenant) -> None:
    async def add(ctx):
        await asyncio.sleep(0)
        add_pet(ctx)
        return {"added": 1}

    @job(timeout="200ms")
    async def wait(ctx):
        await asyncio.sleep(60)

    async def fail(ctx):
        raise ZeroDivisionError

    assert tenant.run(add) == {"added": 1}
    with pytest.raises(DeadlineError):
        tenant.run(wait)
    with pytest.raises(ZeroDivisionError) as caught:
        tenant.run(fail)
    assert caught.traceback[-1].name == "fail"


def test_a_job_that_looks_at_its_deadline_itself_raises_what_it_raises(
    tenant: ThrowawayTenant,
) -> None:
    def ask(ctx):
        while True:
            ctx.check()

    moments = count()
    with pytest.raises(DeadlineError):
        tenant.run(ask, clock=lambda: SLOT + next(moments) * timedelta(minutes=1))


def test_time_stands_still_late_after_the_slot(tenant: ThrowawayTenant) -> None:
    seen: list[datetime] = []

    def look(ctx):
        seen.extend([ctx.slot, ctx.now, ctx.now])

    tenant.run(look)
    noon = datetime(2026, 7, 1, 12, tzinfo=UTC)
    tenant.run(look, slot=noon, clock=noon + timedelta(hours=2))
    tenant.run(look, clock=lambda: noon)

    late = SLOT + timedelta(minutes=7)
    assert seen[:3] == [SLOT, late, late]
    assert seen[3:6] == [noon, noon + timedelta(hours=2), noon + timedelta(hours=2)]
    assert seen[6:] == [SLOT, noon, noon]


def test_the_tenant_is_as_the_test_has_it(tenant: ThrowawayTenant) -> None:
    def look(ctx):
        assert (ctx.tenant.name, ctx.tenant.timezone) == ("acme", "Asia/Kolkata")
        assert ctx.tenant.labels == {"plan": "gold"}
        assert ctx.idempotency_key == "test_testing.look/acme/2026-03-01T00:00:00Z"

    assert tenant.run(look, zone="Asia/Kolkata", labels={"plan": "gold"}) == {}


def test_what_is_logged_is_kept_at_every_level(tenant: ThrowawayTenant) -> None:
    def talk(ctx):
        ctx.log.debug("looking", legs=4)
        ctx.log.error("found", name="Rex")

    attempted = tenant.attempt(talk)
    tenant.run(talk)

    expected = [
        {"event": "looking", "log_level": "debug", "legs": 4},
        {"event": "found", "log_level": "error", "name": "Rex"},
    ]
    assert attempted.log == expected
    assert tenant.log == expected * 2


def prices(ctx):
    assert ctx.tenant.name == ""
    return {"slot": ctx.slot.isoformat(), "rates": ("1.10",)}


@job(prepare=prices, summarize=lambda ctx: {"rows": sum(r["counters"]["n"] for r in ctx.results())})
def convert(ctx):
    return {"rates": len(ctx.prepared["rates"])}


def test_what_prepare_returns_comes_as_it_would_from_the_ledger(tenant: ThrowawayTenant) -> None:
    assert tenant.prepare(convert) == {"slot": "2026-03-01T00:00:00+00:00", "rates": ["1.10"]}
    assert tenant.run(convert) == {"rates": 1}
    assert tenant.run(convert, prepared={"rates": ("1", "2")}) == {"rates": 2}


def test_what_prepare_raises_is_raised(tenant: ThrowawayTenant) -> None:
    def fail(ctx):
        raise Retry("the feed is down")

    @job(prepare=fail)
    def convert(ctx): ...

    with pytest.raises(Retry, match="the feed is down"):
        tenant.run(convert)
    with pytest.raises(Retry, match="the feed is down"):
        tenant.prepare(convert)


def test_summarize_is_called_with_the_results_that_a_test_gives(tenant: ThrowawayTenant) -> None:
    rows = ({"tenant": "a", "counters": {"n": 2}}, {"tenant": "b", "counters": {"n": 3}})

    assert tenant.summarize(convert, *rows) == {"rows": 5}
    with pytest.raises(LookupError, match="to have a summarize"):
        tenant.summarize(adopt)


def test_work_for_the_fleet_has_no_tenant(tenant: ThrowawayTenant) -> None:
    @job(scope="fleet")
    def once(ctx):
        assert ctx.tenant.name == ""
        return {"done": 1}

    assert tenant.run(once) == {"done": 1}


def test_a_job_without_a_transaction_commits_for_itself(tenant: ThrowawayTenant) -> None:
    @job(transaction="none")
    def commit_one_of_two(ctx):
        add_pet(ctx, "kept")
        ctx.connection.commit()
        add_pet(ctx, "lost")
        raise ValueError

    with pytest.raises(ValueError, match=r"^$"):
        tenant.run(commit_one_of_two)

    assert [row["name"] for row in tenant.rows(pets)] == ["kept"]


def test_a_slot_that_is_marked_is_not_run_again(tenant: ThrowawayTenant) -> None:
    @job(exactly_once=True)
    def once(ctx):
        add_pet(ctx)
        return {"added": 1}

    assert tenant.run(once) == {"added": 1}
    again = tenant.attempt(once)

    assert (again.counters, again.reason) == ({"added": 1}, "recovered")
    assert len(tenant.rows(pets)) == 1


@pytest.mark.parametrize("exactly_once", [False, True])
def test_who_listens_to_the_engine_of_the_test_hears_what_jobs_do(
    tenant: ThrowawayTenant, exactly_once
) -> None:
    @job(exactly_once=exactly_once)
    def count_pets(ctx):
        return {"pets": len(ctx.connection.execute(select(pets.c.id)).all())}

    def meanwhile(connection, _cursor, statement, *_rest) -> None:
        if statement.startswith("SELECT pets.id"):
            connection.exec_driver_sql("INSERT INTO pets (name) VALUES ('Rex')")

    event.listen(tenant.engine, "before_cursor_execute", meanwhile)

    assert tenant.run(count_pets) == {"pets": 1}


def test_a_dry_run_counts_and_rolls_back(tenant: ThrowawayTenant) -> None:
    attempted = tenant.attempt(adopt, dry_run=True)

    assert (attempted.counters, attempted.result.rows_changed) == ({"adopted": 1}, 1)
    assert tenant.rows(pets) == []


def test_a_context_is_committed_at_its_end_and_rolled_back_on_an_error(
    tenant: ThrowawayTenant,
) -> None:
    with tenant.context(adopt, legs=2) as ctx:
        add_pet(ctx, str(ctx.options["legs"]))
    with pytest.raises(RuntimeError), tenant.context(adopt) as ctx:
        add_pet(ctx, "lost")
        raise RuntimeError

    assert [row["name"] for row in tenant.rows(pets)] == ["2"]


def test_a_second_run_that_writes_is_found_out_with_its_rows(tenant: ThrowawayTenant) -> None:
    @job
    def rename(ctx):
        ctx.execute("UPDATE pets SET legs = legs + 1 WHERE name = 'Rex'")

    tenant.add(pets, {"id": 1, "name": "Rex", "legs": 4}, {"id": 2, "name": "Ada", "legs": 4})

    with pytest.raises(AssertionError) as caught:
        assert_idempotent(tenant, rename)

    assert str(caught.value).splitlines() == [
        "the second run of the slot changed rows:",
        "  pets: only before it: {'id': 1, 'name': 'Rex', 'legs': 5}",
        "  pets: only after it: {'id': 1, 'name': 'Rex', 'legs': 6}",
    ]


def test_rows_that_a_second_run_doubles_are_found_out(tenant: ThrowawayTenant) -> None:
    tenant.execute("CREATE TABLE notes (body VARCHAR(20))")

    def note(ctx):
        ctx.execute("INSERT INTO notes VALUES ('the same')")

    with pytest.raises(AssertionError, match=r"notes: only after it: \{'body': 'the same'\}"):
        assert_idempotent(tenant, note)


def test_a_second_run_that_writes_nothing_gives_its_counters(tenant: ThrowawayTenant) -> None:
    def add_once(ctx):
        known = ctx.connection.scalar(select(pets.c.id))
        if known is None:
            add_pet(ctx)
        return {"added": int(known is None)}

    assert assert_idempotent(tenant, add_once, slot=SLOT) == {"added": 0}


def test_what_a_row_does_not_say_is_the_default_of_its_column(tenant: ThrowawayTenant) -> None:
    tenant.add("pets", {"id": 1, "name": "Rex"}, {"id": 2})
    tenant.add("pets")
    with pytest.raises(LookupError, match="no column 'leg' in pets; the nearest is legs"):
        tenant.add("pets", {"id": 3, "leg": 3})

    assert tenant.rows("pets") == [
        {"id": 1, "name": "Rex", "legs": 4},
        {"id": 2, "name": None, "legs": 4},
    ]


@pytest.fixture(params=["sqlite", "mariadb"])
def make_place(request, tmp_path: Path):
    """Make a place for tenants of a schema, on each kind of server."""
    made: list[Place] = []

    def make(schema: Schema) -> Place:
        if request.param == "sqlite":
            made.append(Files(tmp_path, schema))
        else:
            made.append(ServerDatabase(request.getfixturevalue("mariadb_url"), schema))
        return made[-1]

    yield make
    for place in made:
        place.close()


def tenant_of(place: Place) -> ThrowawayTenant:
    return ThrowawayTenant(place, place.take(), Jobs(Path("jobs")), tables=MetaData(), name="acme")


SCRIPT = """
-- What an author has exported; with a semicolon here.
CREATE TABLE owners (id INTEGER PRIMARY KEY, name VARCHAR(20) DEFAULT '50 % ; off');
CREATE TABLE pets (id INTEGER PRIMARY KEY, owner_id INTEGER, FOREIGN KEY (owner_id) REFERENCES owners (id));
"""


@pytest.mark.parametrize("from_file", [True, False])
def test_tables_may_be_those_of_a_script(
    make_place: Callable[[Schema], Place], tmp_path: Path, from_file
) -> None:
    path = tmp_path / "schema.sql"
    path.write_text(SCRIPT)
    place = make_place(path if from_file else SCRIPT)
    first = tenant_of(place)
    first.add("owners", {"id": 1})
    first.add("pets", {"id": 1, "owner_id": 1})
    assert first.rows("owners") == [{"id": 1, "name": "50 % ; off"}]

    assert tenant_of(place).content() == {"owners": [], "pets": []}


def test_no_test_sees_the_tables_of_another(make_place: Callable[[Schema], Place]) -> None:
    place = make_place(metadata)
    for statement in (
        "DROP TABLE pets",
        "CREATE TABLE more (id INTEGER)",
        "ALTER TABLE pets ADD COLUMN owner VARCHAR(20)",
    ):
        changed = tenant_of(place)
        assert changed.content() == {"pets": []}
        changed.execute(statement)

    assert tenant_of(place).content() == {"pets": []}


def test_a_tenant_may_have_no_tables_at_all(make_place: Callable[[Schema], Place]) -> None:
    assert tenant_of(make_place(None)).content() == {}


def test_a_database_of_a_server_is_dropped_at_the_end(mariadb) -> None:
    def own() -> set[str]:
        rows = mariadb.execute("SHOW DATABASES")
        return {name for (name,) in rows if name.startswith("cronrunner_test_")}

    before = own()
    place = ServerDatabase(mariadb.url(), metadata)
    assert len(own() - before) == 1
    place.close()
    assert own() == before


def test_a_server_that_cannot_be_reached_is_an_error() -> None:
    with pytest.raises(pymysql.err.OperationalError):
        ServerDatabase("mysql://nobody@127.0.0.1:1", metadata)
    with pytest.raises(ValueError, match="URL of a server"):
        ServerDatabase("sqlite:///a.db", metadata)


JOB_FILE = """
from cronrunner import job

@job(options={"times": 1})
def bark(ctx):
    return {"barked": ctx.options["times"]}
"""


@pytest.fixture
def project(tmp_path: Path) -> Path:
    (tmp_path / "work").mkdir()
    (tmp_path / "work" / "dogs.py").write_text(JOB_FILE)
    (tmp_path / "work" / "cats.sql").write_text("-- name: cats.count\nDELETE FROM pets;\n")
    (tmp_path / "tenants.yaml").write_text(
        "job_folder: work\nservers:\n  a:\n    url: ${NOT_SET}\n"
    )
    return tmp_path


def test_jobs_are_found_where_the_configuration_has_them(project: Path, tmp_path: Path) -> None:
    assert job_folder(project) == project / "work"
    assert job_folder(tmp_path / "elsewhere") == tmp_path / "elsewhere" / "jobs"


def test_a_job_is_named_as_on_the_command_line(tenant: ThrowawayTenant, project: Path) -> None:
    jobs = Jobs(job_folder(project))

    assert jobs.find("dogs.bark") is jobs.find("bark")
    assert jobs.find("cats.count").origin == "cats.sql:1"
    with pytest.raises(ConfigError, match=r"dogs\.bark"):
        jobs.find("dogs.brak")


def test_a_job_that_is_not_there_for_its_file_is_broken_names_the_file(project: Path) -> None:
    (project / "work" / "fish.py").write_text("import nonsense\n")

    with pytest.raises(ConfigError, match=r"fish.py:1: ModuleNotFoundError"):
        Jobs(job_folder(project)).find("fish.swim")


def test_a_function_that_cannot_be_a_job_says_why() -> None:
    @job(timeout="soon")
    def hurried(ctx): ...

    with pytest.raises(JobFileError, match="timeout: expected a duration"):
        Jobs(Path("jobs")).find(hurried)


def test_an_interrupt_is_not_taken_for_an_outcome(tenant: ThrowawayTenant) -> None:
    def interrupted(ctx):
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        tenant.attempt(interrupted)


def test_what_the_start_up_hook_would_return_is_given(tenant: ThrowawayTenant) -> None:
    def priced(ctx):
        return {"price": 0 if ctx.app is None else ctx.app["price"]}

    assert tenant.run(priced) == {"price": 0}
    assert tenant.run(priced, app={"price": 3}) == {"price": 3}
    with tenant.context(priced, app="mine") as ctx:
        assert ctx.app == "mine"


def test_a_function_of_a_name_and_an_engine_is_run_as_well(tenant: ThrowawayTenant) -> None:
    def adopt_two(db_name, engine):
        with engine.begin() as connection:
            connection.execute(insert(pets), [{"name": "Rex"}, {"name": "Ada"}])
        return {"adopted": 2}

    assert tenant.run(adopt_two) == {"adopted": 2}
    assert [row["name"] for row in tenant.rows(pets)] == ["Rex", "Ada"]


def test_a_coroutine_is_run_as_well(tenant: ThrowawayTenant) -> None:
    async def adopt_later(ctx):
        await asyncio.sleep(0)
        add_pet(ctx)
        return {"adopted": ctx.app}

    async def broken(ctx):
        await asyncio.sleep(0)
        raise ZeroDivisionError("legs")

    assert tenant.run(adopt_later, app=1) == {"adopted": 1}
    with pytest.raises(ZeroDivisionError, match="legs"):
        tenant.run(broken)


def test_what_prepare_returns_is_bounded(tenant: ThrowawayTenant) -> None:
    def prices(ctx: Any) -> dict[str, str]:
        return {"rates": "1" * 3_000_000}

    @job(prepare=prices)
    def convert(ctx: Any) -> None:
        """Is not reached."""

    with pytest.raises(ValueError, match="at most 2000000 characters of JSON, got 3000013"):
        tenant.prepare(convert)
