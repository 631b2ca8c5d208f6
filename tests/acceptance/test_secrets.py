"""Planted secrets and row values leave the process nowhere, whatever goes wrong around them."""

import json
import signal
import urllib.request
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import quote, quote_plus

import pytest

from tests.acceptance.fleet import Finished, Fleet, finish
from tests.servers import MariaDB

pytestmark = pytest.mark.xdist_group("secrets")

PREFIX = "secret_"
PASSWORD = "pl4nted@pa/ss:w%rd 'é"
FILE_PASSWORD = "fr0m-a-file+and&more"
TOKEN = "tok3n-9f8e7d6c5b4a"
ROW = "r0w-value O'Brien 4711"
PLANTED = (PASSWORD, FILE_PASSWORD, TOKEN, ROW, "r0w-value", "Brien 4711")
ENVIRONMENT = {"DB_LOGIN": PASSWORD, "WEATHER_API_TOKEN": TOKEN, "ROW": ROW}

JOBS = """
    import logging
    import os
    import warnings

    from sqlalchemy import Enum, ForeignKey, bindparam, select
    from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column

    ROW, TOKEN = os.environ["ROW"], os.environ["WEATHER_API_TOKEN"]

    class Base(DeclarativeBase):
        pass

    class Person(Base):
        __tablename__ = "people"
        email: Mapped[str] = mapped_column(primary_key=True)
        age: Mapped[int]

    @job
    def duplicate_key(ctx):
        for _ in range(2):
            ctx.connection.execute(text("INSERT INTO people VALUES (:email, 1)"), {"email": ROW})

    @job
    def wrong_type(ctx):
        ctx.connection.execute(text("INSERT INTO people VALUES ('x', :age)"), {"age": ROW})

    @job
    def bound_in_a_broken_statement(ctx):
        ctx.connection.execute(text("SELECT * FROM nowhere WHERE email = :email"), {"email": ROW})

    @job
    def literal_in_a_statement(ctx):
        ctx.connection.exec_driver_sql(f'SELECT * FROM nowhere WHERE email = "{ROW}"')

    @job
    def literal_in_a_statement_that_does_not_parse(ctx):
        ctx.connection.exec_driver_sql(f"SELEKT '{ROW}")

    @job
    def value_that_the_client_refuses(ctx):
        chosen = bindparam("chosen", type_=Enum("gold", "free", validate_strings=True))
        ctx.connection.execute(text("SELECT :chosen").bindparams(chosen), {"chosen": ROW})

    @job
    def identity_conflict(ctx):
        session = ctx.session()
        session.add(Person(email=ROW, age=1))
        session.flush()
        session.expunge_all()
        session.add(Person(email=ROW, age=2))
        session.flush()

    @job
    def two_of_one_identity(ctx):
        session = ctx.session()
        session.add_all([Person(email=ROW, age=1), Person(email=ROW, age=2)])
        session.flush()

    @job
    def signalled(ctx):
        message = f"Can't accept '{ROW}' here"
        ctx.connection.execute(
            text("SIGNAL SQLSTATE '45000' SET MESSAGE_TEXT = :message"), {"message": message}
        )

    @job
    def locals_of_a_raising_job(ctx):
        person, token, url = {"email": ROW}, TOKEN, ctx.engine.url
        assert person and token and url
        raise RuntimeError("with locals")

    @job
    def token_in_the_exception(ctx):
        try:
            raise ConnectionError(f"401 for Bearer {TOKEN}")
        except ConnectionError as error:
            error.add_note(f"sent: {os.environ['DB_LOGIN']}")
            raise RuntimeError(f"no weather: {error}") from error

    @job
    def token_in_a_skip(ctx):
        raise Skip(f"not with {TOKEN}")

    @job
    def token_in_a_cancel(ctx):
        raise Cancel(f"not with {TOKEN}")

    @job
    def secrets_in_log_lines(ctx):
        ctx.log.debug("calling", token=TOKEN, url=f"https://me:{TOKEN}@weather.example/v1")
        logging.getLogger("weather").warning("401 for %s with %s", TOKEN, {"password": TOKEN})
        warnings.warn(f"old token {TOKEN}", stacklevel=1)
        try:
            ctx.connection.execute(text("SELECT * FROM nowhere WHERE e = :e"), {"e": ROW})
        except Exception:
            ctx.log.exception("it failed")
            logging.getLogger("weather").exception("it failed")

    @job
    def value_in_the_result(ctx):
        return {"email": ROW}

    def prepare(ctx):
        raise RuntimeError(f"no weather with {TOKEN}")

    @job(prepare=prepare)
    def unprepared(ctx):
        pass
"""


@dataclass(frozen=True)
class Planted:
    fleet: Fleet
    #: Format of the log -> the run.
    runs: dict[str, Finished]
    config: dict[str, Any]


@pytest.fixture(scope="module")
def planted(mariadb: MariaDB, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Planted]:
    folder = tmp_path_factory.mktemp("secrets")
    mariadb.create_databases(
        [PREFIX + "a"], "CREATE TABLE people (email VARCHAR(60) PRIMARY KEY, age INT)"
    )
    mariadb.create_user(PREFIX + "env", PASSWORD, on=rf"`{PREFIX}%`.*")
    mariadb.create_user(PREFIX + "file", FILE_PASSWORD, on=rf"`{PREFIX}%`.*")
    (folder / "password").write_text(FILE_PASSWORD + "\n")
    address = f"127.0.0.1:{mariadb.port}"
    config: dict[str, Any] = {
        "servers": {
            "by_env": {
                "url": f"mysql+pymysql://{PREFIX}env:${{DB_LOGIN}}@{address}",
                "discover": {"list": [{"name": "a", "database": PREFIX + "a"}]},
            },
            "by_file": {
                "url": f"mysql+pymysql://{PREFIX}file@{address}",
                "password": "file:password",
                "discover": {"list": [{"name": "b", "database": PREFIX + "a"}]},
            },
            "wrong": {
                "url": f"mysql+pymysql://{PREFIX}file:${{DB_LOGIN}}@{address}",
                "discover": {"databases": "*"},
            },
            "nowhere": {
                "url": "mysql+pymysql://me:${DB_LOGIN}@nowhere.invalid",
                "discover": {"databases": "*"},
            },
            "bad_query": {
                "url": f"mysql+pymysql://{PREFIX}env:${{DB_LOGIN}}@{address}",
                "discover": {"query": f"SELEKT '{ROW}'"},
            },
        },
        "metrics": {"textfile": "cron.prom"},
        "runner": {"concurrency": 1},
    }
    runs: dict[str, Finished] = {}
    for written in ("json", "console"):
        config["log"] = {"level": "debug", "format": written}
        fleet = Fleet(folder, config, {"leak": JOBS})
        runs[written] = fleet.run("--json", env=ENVIRONMENT)
    yield Planted(fleet, runs, config)
    mariadb.drop_databases(PREFIX)


def assert_clean(text: str) -> None:
    for secret in PLANTED:
        forms = {secret, quote(secret), quote(secret, safe=""), quote_plus(secret)}
        forms |= {repr(secret)[1:-1], json.dumps(secret)[1:-1]}
        for form in forms:
            place = text.find(form)
            assert place < 0, f"{form!r} in: {text[max(place - 300, 0) : place + 200]}"


@pytest.mark.parametrize("written", ["json", "console"])
def test_everything_that_can_go_wrong_went_wrong(planted: Planted, written: str) -> None:
    run = planted.runs[written]
    of_a, of_b = (
        {job.removeprefix("leak."): each for (job, on), each in run.outcomes.items() if on == name}
        for name in ("a", "b")
    )
    outcomes = dict(of_a)

    assert run.code == 4
    assert of_a == of_b
    assert outcomes.pop("token_in_a_skip") == "skipped"
    assert outcomes.pop("token_in_a_cancel") == "cancelled"
    assert outcomes.pop("unprepared") == "skipped"
    assert outcomes.pop("secrets_in_log_lines") == "succeeded"
    assert {job for job, each in outcomes.items() if each != "failed"} == set()
    assert len(outcomes) == 12
    assert run.outcomes["leak.unprepared:prepare", ""] == "failed"
    assert len(run.document["errors"]) == 3


@pytest.mark.parametrize("written", ["json", "console"])
def test_logs_and_tracebacks_at_debug_level_hold_none(planted: Planted, written: str) -> None:
    log = planted.runs[written].stderr

    assert log.count("Traceback (most recent call last)") > 20
    assert "[redacted]" in log
    assert_clean(log)


def test_json_documents_hold_none(planted: Planted) -> None:
    for run in planted.runs.values():
        assert_clean(run.stdout)


@pytest.mark.parametrize(
    "command",
    [
        ("history", "--json"),
        ("history",),
        ("history", "--runs"),
        ("show", "last"),
        ("show", "last", "--json"),
        ("show", "last", "--tenant", "a"),
        ("tenants",),
        ("plan", "--why"),
        ("check", "--connect"),
        ("check", "--connect", "--json"),
    ],
    ids=" ".join,
)
def test_commands_print_none(planted: Planted, command: tuple[str, ...]) -> None:
    done = planted.fleet.run(*command, env=ENVIRONMENT)

    assert done.stdout
    assert "Traceback" not in done.stderr
    assert_clean(done.stdout + done.stderr)


def test_a_summary_for_people_holds_none(planted: Planted) -> None:
    done = planted.fleet.run("--tenant=a", "--server=by_*", env=ENVIRONMENT)

    assert "causes" in done.stdout
    assert_clean(done.stdout + done.stderr)


def test_the_ledgers_bytes_hold_none(planted: Planted) -> None:
    files = list(planted.fleet.ledger_file.parent.glob("ledger.db*"))

    assert planted.fleet.query("SELECT COUNT(*) FROM executions WHERE error <> ''") != [(0,)]
    for file in files:
        assert_clean(file.read_bytes().decode("utf-8", "replace"))


def test_metrics_hold_none(planted: Planted) -> None:
    assert_clean((planted.fleet.folder / "cron.prom").read_text())
    with planted.fleet.started("serve", "--port", "0", env=ENVIRONMENT) as serving:
        address = next(line for line in iter(serving.stderr.readline, "") if "http://" in line)  # type: ignore[union-attr]
        url = address.split()[1].removesuffix("/metrics")
        for path in ("/metrics", "/health"):
            with urllib.request.urlopen(url + path, timeout=10) as answer:
                assert_clean(answer.read().decode())
        serving.send_signal(signal.SIGTERM)
        assert_clean(finish(serving).stderr)


def test_a_refused_ledger_says_why_without_its_password(planted: Planted, tmp_path: Path) -> None:
    wrong = planted.config["servers"]["wrong"]
    fleet = Fleet(tmp_path, {"servers": {"a": wrong}, "ledger": wrong["url"] + "/ledger"}, {})

    done = fleet.run("--json", env=ENVIRONMENT)

    assert done.code == 70
    assert "Access denied for user" in done.document["errors"][0]
    assert_clean(done.stdout + done.stderr)
