"""What is wrong between the configuration and the jobs, each with its line."""

import sys
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from textwrap import dedent
from types import ModuleType
from typing import Any

import pytest

from cronrunner.app.checks import find_errors, find_more_errors, find_warnings
from cronrunner.config import load, load_rest
from cronrunner.errors import Problem
from cronrunner.model import Effects, Job, Option
from cronrunner.registry.finding import Found

FILES = 'servers: {files: {url: "sqlite://", discover: {directory: tenants}}}\n'

Check = Callable[..., list[str]]


def job(name: str = "a.x", **given: Any) -> Job:
    options = {
        "days": Option(30, minimum=1),
        "kind": Option("b", environment="KIND", choices=("b",)),
    }
    return Job(name=name, call=print, origin="a.py:7", options=options, **given)


@pytest.fixture(autouse=True)
def own_jobs_stay(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Give the project's own jobs back after a test whose folder of jobs has the same name."""

    def ours() -> dict[str, ModuleType]:
        return {name: each for name, each in sys.modules.items() if name.split(".")[0] == "jobs"}

    monkeypatch.setattr(sys, "path", list(sys.path))
    before = ours()
    yield
    for name in ours():
        del sys.modules[name]
    sys.modules.update(before)


@pytest.fixture
def errors(tmp_path: Path) -> Check:
    def errors(
        text: str, *jobs: Job, env: Mapping[str, str] | None = None, broken: bool = False
    ) -> list[str]:
        path = tmp_path / "tenants.yaml"
        path.write_text(dedent(text), encoding="utf-8")
        problems = (Problem(text="broken"),) if broken else ()
        found = Found(jobs={each.name: each for each in jobs}, problems=problems)
        return [
            str(problem).removeprefix(f"{tmp_path}/")
            for problem in find_errors(load(path, env or {}), found)
        ]

    return errors


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("", []),
        ("jobs: {a.x: {options: {days: 3}}}", []),
        ('jobs: {"a.*": {options: {days: 3}}}', []),
        ('tenants: {"*": {jobs: {a.x: {options: {days: "3"}}}}}', []),
        ("jobs: {a.z: {}}", ["tenants.yaml:2: no job 'a.z'; the nearest is a.x"]),
        (
            "tenants:\n  acme:\n    jobs:\n      a.z: {}",
            ["tenants.yaml:5: no job 'a.z'; the nearest is a.x"],
        ),
        (
            "jobs:\n  a.x:\n    options:\n      dys: 3",
            ["tenants.yaml:5: job a.x has no option 'dys'; the nearest is days"],
        ),
        (
            "jobs:\n  a.x:\n    options:\n      days: 0",
            ["tenants.yaml:5: job a.x: option days: expected at least 1, got 0"],
        ),
        (
            'jobs:\n  a.x:\n    schedule: "0 0 31 2 *"',
            [
                "tenants.yaml:4: job a.x: schedule: expected a cron expression that can fire, got '0 0 31 2 *' (Bad day-of-month)"
            ],
        ),
    ],
)
def test_overrides_are_held_against_the_jobs(errors: Check, text: str, expected: list[str]) -> None:
    assert errors(FILES + text, job()) == expected


def test_an_environment_variable_is_held_against_the_option(errors: Check) -> None:
    assert errors(FILES, job(), env={"KIND": "z"}) == [
        "KIND (job a.x, kind): expected one of b, got 'z'"
    ]
    assert errors(FILES, job(), env={"KIND": ""}) == []


def test_while_a_file_is_broken_unknown_jobs_are_no_errors(errors: Check) -> None:
    assert errors(FILES + "jobs: {a.z: {}}", job(), broken=True) == []


@pytest.mark.parametrize(
    ("server", "expected"),
    [
        ("{url: 'sqlite://', discover: {databases: 'a*'}}", "a SQLite server is discovered by"),
        ("{url: 'mysql://u@h', discover: {directory: x}}", "a directory is for SQLite"),
        ("{url: 'oracle://u@h', discover: {list: [a]}}", "expected a URL of mysql"),
        (
            "{url: 'mysql://u@h', max_connections: 1, discover: {list: [a]}}",
            "expected max_connections of at least 2",
        ),
    ],
)
def test_a_server_that_cannot_work_is_an_error(errors: Check, server: str, expected: str) -> None:
    (problem,) = errors(f"servers:\n  main: {server}\n")

    assert problem.startswith("tenants.yaml:2: server main: ")
    assert expected in problem


def test_a_file_of_certificates_that_is_not_there_is_an_error(errors: Check) -> None:
    server = "{url: 'mysql://u@h', tls: verify, tls_ca: ca.pem, discover: {list: [a]}}"
    expected = "servers.main.tls_ca: expected a file of certificates, got "
    (problem,) = errors(f"servers:\n  main: {server}\n")

    assert problem.startswith(f"tenants.yaml:2: {expected}")
    assert problem.endswith("ca.pem, no file")


def test_a_file_without_certificates_is_an_error(errors: Check, tmp_path: Path) -> None:
    (tmp_path / "ca.pem").write_text("none", encoding="utf-8")
    server = "{url: 'mysql://u@h', tls: verify, tls_ca: ca.pem, discover: {list: [a]}}"
    (problem,) = errors(f"servers:\n  main: {server}\n")

    assert problem.endswith("ca.pem, which holds none")


def test_certificates_that_nothing_is_checked_against_are_an_error(
    errors: Check, tmp_path: Path
) -> None:
    (tmp_path / "ca.pem").touch()
    server = "{url: 'mysql://u@h', tls: required, tls_ca: ca.pem, discover: {list: [a]}}"
    ledger = "{url: 'mysql://u@h/ledger', tls_ca: ca.pem}"
    problems = errors(f"servers:\n  main: {server}\nledger: {ledger}\n")

    expected = "tls_ca: expected tls: verify beside it, got"
    # That the file is empty is a mistake of its own.
    assert [each for each in problems if "beside it" in each] == [
        f"tenants.yaml:2: servers.main.{expected} required: nothing is checked",
        f"tenants.yaml:3: ledger.{expected} auto: nothing is checked",
    ]


def test_a_file_to_which_nothing_is_encrypted_has_no_tls(errors: Check) -> None:
    server = "{url: 'sqlite://', tls: verify, tls_ca: ca.pem, discover: {list: [a]}}"
    ledger = "{url: 'sqlite:///ledger.db', tls: required}"
    problems = errors(f"servers:\n  main: {server}\nledger: {ledger}\n")

    why = "SQLite is a file, to which nothing is encrypted"
    (authorities,) = [each for each in problems if "tls_ca" in each]
    assert authorities.startswith("tenants.yaml:2: servers.main.tls_ca: expected none, got ")
    assert authorities.endswith(f"ca.pem: {why}")
    assert [each for each in problems if each != authorities] == [
        f"tenants.yaml:2: servers.main.tls: expected auto or disabled, got verify: {why}",
        f"tenants.yaml:3: ledger.tls: expected auto or disabled, got required: {why}",
    ]


@pytest.mark.parametrize("effects", Effects)
def test_effects_that_a_repeated_slot_repeats_are_warned_of(
    tmp_path: Path, effects: Effects
) -> None:
    path = tmp_path / "tenants.yaml"
    path.write_text(FILES, encoding="utf-8")
    found = Found(jobs={"a.x": job(effects=effects)}, problems=())
    warned = [str(problem) for problem in find_warnings(load(path, {}), found)]

    expected = "a.py:7: job a.x has effects outside of the database and no outbox"
    assert any(text.startswith(expected) for text in warned) == (effects == "external")


# A file with mistakes is checked as far as it can be understood.


def rest(tmp_path: Path, text: str, **environ: str) -> list[str]:
    path = tmp_path / "tenants.yaml"
    path.write_text(dedent(text), encoding="utf-8")
    (tmp_path / "jobs").mkdir(exist_ok=True)
    found = find_more_errors(path, environ)
    return [str(problem).removeprefix(f"{tmp_path}/") for problem in found]


@pytest.mark.parametrize("place", ['url: "mysql://u:${MISSING}@h/x"', "url: 7", "database: x"])
def test_a_ledger_whose_place_is_not_known_is_not_taken_for_the_default(
    tmp_path: Path, place: str
) -> None:
    text = f"""\
        servers:
          main: {{url: "sqlite://", discover: {{directory: tenants}}}}
        ledger: {{{place}, tls: verify, tls_ca: ca.pem}}
        """
    assert rest(tmp_path, text) == []


def test_mistakes_of_one_kind_hide_none_of_another(tmp_path: Path) -> None:
    assert rest(
        tmp_path,
        """\
        servers:
          main: {url: "mysql://u:${MISSING}@h", discover: {databases: "a*"}}
          files: {url: "sqlite://", discover: {query: SELECT}, tls: odd}
        ledger: {server: main, database: x}
        runner: {grace: soon}
        nonsense: 1
        jobs: {a.z: {timeout: soon}}
        tenants: {acme: {labels: 5, jobs: {a.y: {}}}}
        """,
    ) == [
        "tenants.yaml:3: server files: a SQLite server is discovered by directory or list",
        "tenants.yaml:7: no job 'a.z'; no known name is near it",
        "tenants.yaml:8: no job 'a.y'; no known name is near it",
    ]


@pytest.mark.parametrize(
    "text",
    ["- a list", "servers: {", "", "job_folder: 5\n" + FILES, "servers: 5", "servers: {a: 5}"],
)
def test_of_a_file_that_cannot_be_understood_nothing_more_is_said(
    tmp_path: Path, text: str
) -> None:
    assert rest(tmp_path, text) == []


def test_what_is_left_of_a_file_has_none_of_its_mistakes(tmp_path: Path) -> None:
    path = tmp_path / "tenants.yaml"
    path.write_text(FILES + "runner: {grace: soon, concurrency: 3}\n", encoding="utf-8")
    left = load_rest(path, {})

    assert left is not None
    assert left.runner.concurrency == 3
    assert left.runner.grace.total_seconds() == 20
