"""What `--option` means, and what is wrong with it."""

from typing import Any

import pytest

from cronrunner.app.asking import read_asked, remembered
from cronrunner.errors import ConfigError
from cronrunner.model import Job, Option


def job(name: str, **given: Any) -> Job:
    options = {"days": Option(30, minimum=1), "word": Option("w")}
    return Job(name=name, call=print, origin="a.py:1", options=options, **given)


JOBS = {
    each.name: each
    for each in (job("a.x"), job("a.y"), job("b.z"), Job(name="b.none", call=print, origin="b"))
}


def read(*typed: str, named: tuple[str, ...] = ()) -> dict[str, dict[str, str]]:
    pairs = [(name, value) for name, _, value in (each.partition("=") for each in typed)]
    return read_asked(pairs, JOBS, named, redact=lambda text: text.replace("hunter2", "***"))


@pytest.mark.parametrize(
    ("typed", "named", "expected"),
    [
        ((), (), {}),
        (("days=3",), ("a.x",), {"a.x": {"days": "3"}}),
        (("days=3",), ("a.*",), {"a.x": {"days": "3"}, "a.y": {"days": "3"}}),
        (("days=3",), ("b.*",), {"b.z": {"days": "3"}}),
        (("a.x.days=3", "a.y.days=4"), (), {"a.x": {"days": "3"}, "a.y": {"days": "4"}}),
        (("z.word=a=b",), (), {"b.z": {"word": "a=b"}}),
        (("a.*.days=3",), ("a.y", "b.z"), {"a.y": {"days": "3"}}),
        (("days=3", "a.x.days=4"), ("a.*",), {"a.x": {"days": "4"}, "a.y": {"days": "3"}}),
        (("word=",), ("a.x",), {"a.x": {"word": ""}}),
    ],
)
def test_a_value_is_for_the_jobs_named_or_for_the_job_before_the_last_dot(
    typed: tuple[str, ...], named: tuple[str, ...], expected: dict[str, dict[str, str]]
) -> None:
    assert read(*typed, named=named) == expected


@pytest.mark.parametrize(
    ("typed", "named", "expected"),
    [
        ("days=3", (), "name the jobs that it is for, or write JOB.days=3"),
        ("dais=3", ("a.x",), "job a.x has no option 'dais'; the nearest is days"),
        ("days=3", ("b.none",), "job b.none has no option 'days'; no known name is near it"),
        ("dais=3", ("a.*",), "jobs a.x, a.y have no option 'dais'; the nearest is days"),
        ("days=0", ("a.x",), "job a.x: expected at least 1, got 0"),
        ("days=soon", ("a.x",), "job a.x: expected a whole number, got 'soon'"),
        ("b.z.days=3", ("a.x",), "job b.z is not run; name it as well"),
        ("word=hunter2", (), "the value is a secret, and a command line is kept;"),
    ],
)
def test_a_mistake_is_told(typed: str, named: tuple[str, ...], expected: str) -> None:
    with pytest.raises(ConfigError) as refused:
        read(typed, named=named)

    (problem,) = refused.value.problems
    assert problem.text.startswith(f"--option {typed.partition('=')[0]}: {expected}")
    assert "hunter2" not in problem.text


def test_each_mistake_is_told_once() -> None:
    with pytest.raises(ConfigError) as refused:
        read("dais=3", "days=0", "a.q.days=1", "a.x.days=x", named=("a.x", "nobody", "b.*"))
    assert [each.text for each in refused.value.problems] == [
        "no job 'nobody'; no known name is near it",
    ]
    with pytest.raises(ConfigError) as refused:
        read("dais=3", "days=0", "a.q.days=1", "a.x.days=2", named=("a.*",))

    assert [each.text.partition(";")[0] for each in refused.value.problems] == [
        "--option dais: jobs a.x, a.y have no option 'dais'",
        "--option days: job a.x: expected at least 1, got 0",
        "--option days: job a.y: expected at least 1, got 0",
        "no job 'a.q'",
    ]


def test_what_is_remembered_is_typed_again_for_the_jobs_that_run() -> None:
    kept = {"a.x": {"days": "3"}, "a.y": {"days": "4"}}

    assert list(remembered(kept, [JOBS["a.x"], JOBS["b.z"]])) == [("a.x.days", "3")]
