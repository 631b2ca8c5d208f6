"""Jobs in Python: what authors declare, what is found in a folder, what breaks and what does not."""

import sys
from collections.abc import Callable, Iterator
from datetime import timedelta
from pathlib import Path
from textwrap import dedent

import pytest

from cronrunner import Option, RetryPolicy
from cronrunner.model import Job, Scope, TenantFilter, Transaction
from cronrunner.registry.finding import Found, find_jobs

Find = Callable[..., Found]


@pytest.fixture
def find(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Find]:
    """Write files into a folder of jobs and look for the jobs in it."""
    monkeypatch.setattr(sys, "path", list(sys.path))
    folder = tmp_path / "some_jobs"
    folder.mkdir()

    def find(**files: str) -> Found:
        for name, text in files.items():
            source = "from cronrunner import *\n" + dedent(text)
            (folder / f"{name}.py").write_text(source, encoding="utf-8")
        return find_jobs(folder)

    yield find
    for name in [each for each in sys.modules if each.partition(".")[0] == "some_jobs"]:
        del sys.modules[name]
    for name in ("shared_words", "tools"):
        sys.modules.pop(name, None)


def only(found: Found) -> Job:
    assert found.problems == ()
    (job,) = found.jobs.values()
    return job


def problems(found: Found) -> list[str]:
    return [str(problem) for problem in found.problems]


def test_a_bare_decorator_gives_a_job_with_defaults(find: Find) -> None:
    job = only(
        find(
            billing="""
            @job
            def close(ctx):
                '''Close the month.

                At its end.
                '''
            """
        )
    )

    assert job.name == "billing.close"
    assert job.origin == "billing.py:3"
    assert job.description == "Close the month.\n\nAt its end."
    assert (job.scope, job.transaction) == (Scope.TENANT, Transaction.TENANT)
    assert (job.timeout, job.retry) == (timedelta(minutes=5), RetryPolicy())
    assert (job.schedule, job.tenants, job.enabled) == (None, TenantFilter(), True)


def test_all_that_is_declared_reaches_the_job(find: Find) -> None:
    job = only(
        find(
            billing="""
            from datetime import timedelta

            def before(ctx): ...
            def after(ctx): ...

            @job(name="monthly.close", schedule="0 0 1 * *", timeout="2m30s", retries=2,
                 scope="fleet", transaction="none", tenants=["a*", "b"], labels={"plan": "gold"},
                 options={"days": 30, "roles": ["x"], "rate": Option(0.5, maximum=1)},
                 prepare=before, summarize=after, enabled=False)
            def close(ctx): ...
            """
        )
    )

    assert job.name == "monthly.close"
    assert job.schedule == "0 0 1 * *"
    assert job.timeout == timedelta(seconds=150)
    assert job.retry.attempts == 3
    assert (job.scope, job.transaction) == (Scope.FLEET, Transaction.NONE)
    assert job.tenants == TenantFilter(names=("a*", "b"), labels={"plan": "gold"})
    assert job.options == {
        "days": Option(30),
        "roles": Option(("x",)),
        "rate": Option(0.5, maximum=1),
    }
    assert job.prepare is not None
    assert job.summarize is not None
    assert (job.prepare.__name__, job.summarize.__name__) == ("before", "after")
    assert not job.enabled


def test_a_whole_retry_policy_can_be_given(find: Find) -> None:
    job = only(find(a="@job(retry=RetryPolicy(attempts=7))\ndef x(ctx): ...\n"))

    assert job.retry == RetryPolicy(attempts=7)


@pytest.mark.parametrize(
    ("source", "expected"),
    [
        ("def (", "a.py:2: SyntaxError: invalid syntax"),
        (
            "\nimport no_such_module",
            "a.py:3: ModuleNotFoundError: No module named 'no_such_module'",
        ),
        ("\n\n1 / 0", "a.py:4: ZeroDivisionError: division by zero"),
        ("raise SystemExit(3)", "a.py:2: SystemExit: 3"),
        ("class Odd(BaseException): ...\nraise Odd('x')", "a.py:3: Odd: x"),
        ("def f(): raise ValueError('deep')\n\nf()", "a.py:2: ValueError: deep"),
    ],
)
def test_a_broken_file_disables_itself_and_no_other(find: Find, source: str, expected: str) -> None:
    found = find(a=source + "\n@job\ndef lost(ctx): ...\n", b="@job\ndef kept(ctx): ...\n")

    assert list(found.jobs) == ["b.kept"]
    assert problems(found) == [expected]


def test_a_file_that_was_interrupted_by_its_user_is_not_broken(find: Find) -> None:
    with pytest.raises(KeyboardInterrupt):
        find(a="raise KeyboardInterrupt")


@pytest.mark.parametrize(
    ("declared", "expected"),
    [
        ("timeout='soon'", "timeout: expected a duration such as 30s, 5m or 1h30m, got 'soon'"),
        ("timeout=5", "timeout: expected a duration such as 30s, 5m or 1h30m, got '5'"),
        ("schedule=5", "schedule: expected a cron expression, got 5"),
        (
            "schedule='every day'",
            "schedule: expected a cron expression of five fields, got 'every day'",
        ),
        ("retries=-1", "retries: expected a whole number from 0, got -1"),
        ("retries=True", "retries: expected a whole number from 0, got True"),
        ("retry=3", "retries: expected a RetryPolicy, got 3"),
        (
            "retries=2, retry=RetryPolicy()",
            "retries: expected either a number of retries or a policy, got both",
        ),
        (
            "retry=RetryPolicy(attempts=0)",
            "retries: expected attempts to be a whole number from 1, got 0",
        ),
        (
            "retry=RetryPolicy(wait=30)",
            "retries: expected wait to be a timedelta from 0, got 30",
        ),
        (
            "retry=RetryPolicy(on=('x',))",
            "retries: expected on to be a tuple of exception classes, got ('x',)",
        ),
        (
            "options={'days': Option(3, minimum=5)}",
            "options: days: its default: expected at least 5, got 3",
        ),
        (
            "options={'days': Option({'a': 1}, choices=('b',))}",
            "options: days: its default: expected one of b, got 'a'",
        ),
        (
            "scope='fleet', timezone='tenant'",
            "timezone: expected an IANA name for a job of fleet scope, which has no tenant, got 'tenant'",
        ),
        (
            "scope='fleet', server_lock=True",
            'server_lock: expected scope="tenant": the lock is one of the tenant\'s server',
        ),
        ("scope='galaxy'", "scope: expected tenant or fleet, got 'galaxy'"),
        ("scope=5", "scope: expected tenant or fleet, got 5"),
        ("isolation='fork'", "isolation: expected thread or process, got 'fork'"),
        (
            "transaction='batch', scope='fleet'",
            "transaction: expected tenant or none for a job of fleet scope, got 'batch'",
        ),
        ("transaction='two'", "transaction: expected tenant or batch or none, got 'two'"),
        ("tenants=[1]", "tenants: expected a glob or a list of globs, got [1]"),
        ("tenants=1", "tenants: 'int' object is not iterable"),
        ("labels='gold'", "labels: expected a mapping of names to values, got 'gold'"),
        ("options=[1]", "options: expected a mapping of names to values, got [1]"),
        (
            "options={'a': None}",
            "options: a: expected a bool, number, text, list or mapping as default, got None",
        ),
        ("prepare='x'", "prepare: expected a function, got 'x'"),
        ("summarize=1", "summarize: expected a function, got 1"),
        ("enabled='no'", "enabled: expected True or False, got 'no'"),
    ],
)
def test_a_bad_declaration_is_named_with_job_file_and_line(
    find: Find, declared: str, expected: str
) -> None:
    found = find(a=f"@job({declared})\ndef x(ctx): ...\n", b="@job\ndef kept(ctx): ...\n")

    assert problems(found) == [f"a.py:2: job a.x: {expected}"]
    assert list(found.jobs) == ["b.kept"]


@pytest.mark.parametrize("name", ["'two words'", "'.a'", "'a..b'", "'9a'", "5", f"'{'a' * 81}'"])
def test_a_name_that_cannot_be_a_jobs_is_refused(find: Find, name: str) -> None:
    (problem,) = problems(find(a=f"@job(name={name})\ndef x(ctx): ...\n"))

    assert "name: expected letters, digits, _ and dots, at most 80 long" in problem


def test_a_coroutine_is_a_job(find: Find) -> None:
    assert only(find(a="@job\nasync def x(ctx): ...\n")).name == "a.x"


@pytest.mark.parametrize("kind", ["def", "async def"])
def test_a_function_that_yields_is_no_job(find: Find, kind: str) -> None:
    (problem,) = problems(find(a=f"@job\n{kind} x(ctx):\n    yield\n"))

    assert problem == "a.py:2: job a.x: expected a function that returns, got one that yields"


def test_all_mistakes_of_a_file_are_reported_together(find: Find) -> None:
    found = find(
        a="""
        @job(timeout="soon", scope="galaxy")
        def x(ctx): ...

        @job(retries="many")
        def y(ctx): ...

        @job(schedule="61 4 * * *", nme="z")
        def z(ctx): ...

        @job(options={"a": None, "b": Option(3, minimum=5), "c": Option("x", choices=("y",))})
        def w(ctx): ...

        @job
        def right(ctx): ...
        """
    )

    assert [problem.line for problem in found.problems] == [3, 3, 6, 9, 9, 12, 12, 12]
    assert found.jobs == {}


@pytest.mark.parametrize(
    "source", ["@job\nclass X: ...\n", "@job('0 0 * * *')\ndef x(ctx): ...\n", "x = job(len)\n"]
)
def test_what_is_decorated_must_be_a_function(find: Find, source: str) -> None:
    (problem,) = problems(find(a=source))

    assert problem.startswith("a.py:2: TypeError: expected @job on a function, got ")


def test_an_unknown_keyword_is_a_mistake_of_its_line(find: Find) -> None:
    (problem,) = problems(find(a="\n@job(scedule='5 * * * *')\ndef x(ctx): ...\n"))

    assert problem == "a.py:3: job a.x: unknown argument 'scedule'; the nearest are schedule, scope"


def test_an_unknown_argument_of_an_option_is_a_mistake_of_its_line(find: Find) -> None:
    (problem,) = problems(find(a="\nkeep = Option(30, minimun=1)\n"))

    assert problem == "a.py:3: Option: unknown argument 'minimun'; the nearest are minimum, maximum"


def test_two_jobs_of_one_name_are_an_error_and_the_first_stays(find: Find) -> None:
    found = find(
        a="@job(name='same')\ndef x(ctx): ...\n", b="\n@job(name='same')\ndef y(ctx): ...\n"
    )

    assert found.jobs["same"].origin == "a.py:2"
    assert problems(found) == ["b.py:3: two jobs are named 'same': a.py:2 and b.py:3; rename one"]


def test_job_files_import_each_other_in_every_way(find: Find) -> None:
    found = find(
        shared_words="WORD = 'w'\n@job\ndef shared(ctx): ...\n",
        one="from some_jobs.shared_words import WORD, shared\n@job\ndef x(ctx): return WORD\n",
        three="from .shared_words import WORD\n@job\ndef x(ctx): return WORD\n",
        two="from shared_words import WORD, shared\n@job\ndef x(ctx): return WORD\n",
    )

    assert found.problems == ()
    # What is imported stays the job of its own file.
    assert sorted(found.jobs) == ["one.x", "shared_words.shared", "three.x", "two.x"]
    assert {found.jobs[f"{n}.x"].call(None) for n in ("one", "two", "three")} == {"w"}


def test_a_mistake_in_an_imported_file_is_reported_where_it_is_and_where_it_is_used(
    find: Find,
) -> None:
    found = find(tools="\n\n\n\ndef (", user="\nfrom some_jobs.tools import x\n")

    assert problems(found) == [
        "tools.py:6: SyntaxError: invalid syntax",
        "user.py:3: SyntaxError: invalid syntax (tools.py, line 6)",
    ]


def test_a_file_with_a_leading_underscore_is_no_job_and_can_be_imported(find: Find) -> None:
    found = find(
        _base="@job\ndef hidden(ctx): ...\nWORD = 1\n",
        a="from some_jobs._base import WORD\n@job\ndef x(ctx): ...\n",
    )

    assert list(found.jobs) == ["a.x"]


def test_a_job_file_does_not_shadow_an_installed_package(find: Find) -> None:
    found = find(
        json="@job\ndef x(ctx): ...\n", user="import json\n@job\ndef y(ctx): return json.dumps(1)\n"
    )

    assert found.jobs["user.y"].call(None) == "1"
    assert "json.x" in found.jobs


def test_files_that_are_links_into_another_folder_are_jobs_as_well(
    tmp_path: Path, find: Find
) -> None:
    real = tmp_path / "..data_2026"
    real.mkdir()
    (real / "linked.py").write_text(
        "from cronrunner import job\n\n@job\ndef x(ctx): ...\n\n1 / 0\n"
    )
    (tmp_path / "some_jobs" / "linked.py").symlink_to(real / "linked.py")

    assert problems(find()) == ["linked.py:6: ZeroDivisionError: division by zero"]
    (real / "linked.py").write_text("from cronrunner import job\n\n@job\ndef x(ctx): ...\n")
    assert list(find().jobs) == ["linked.x"]


def test_a_folder_that_is_not_there_is_one_problem(tmp_path: Path) -> None:
    (problem,) = problems(find_jobs(tmp_path / "nowhere"))

    assert "expected a folder of jobs at" in problem


def test_what_is_neither_python_nor_sql_is_left_alone(tmp_path: Path, find: Find) -> None:
    (tmp_path / "some_jobs" / "README.md").write_text("no job")
    (tmp_path / "some_jobs" / ".hidden.py").write_text("1 / 0")

    assert find() == Found(jobs={}, problems=())
