"""Values of options on the command line: ``NAME=VALUE`` for the jobs named, ``JOB.NAME=VALUE``."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any, Final

from cronrunner.errors import ConfigError, Problem
from cronrunner.model import Job
from cronrunner.planning import nearest, select_jobs

#: As they were typed: name and value.
Typed = Iterable[tuple[str, str]]
#: Job -> option -> value, as it was typed.
Asked = Mapping[str, Mapping[str, str]]

#: What the option is called by which a job is told to alert.
_ALERT: Final = "alert_on_failure"


def read_asked(
    typed: Typed,
    jobs: Mapping[str, Job],
    named: Sequence[str],
    *,
    redact: Callable[[str], str],
) -> dict[str, dict[str, str]]:
    """Return the values by job and option; of two for one option the later.

    Raises ``ConfigError`` with a problem for each mistake.
    """
    asked: dict[str, dict[str, str]] = {}
    problems: list[Problem] = []
    for name, value in typed:
        try:
            for job, option in _meant(name, value, jobs, named, redact):
                asked.setdefault(job, {})[option] = value
        except ConfigError as error:
            # What is wrong with the jobs named is wrong once.
            problems += [each for each in error.problems if each not in problems]
    if problems:
        raise ConfigError(problems)
    return asked


def remembered(kept: Mapping[str, Any], jobs: Iterable[Job]) -> Iterator[tuple[str, str]]:
    """Give what a run was asked for as if it were typed again, as far as it is about ``jobs``."""
    for job in jobs:
        for option, value in kept.get(job.name, {}).items():
            yield f"{job.name}.{option}", value


def alerting(jobs: Iterable[Job]) -> Iterator[tuple[str, str]]:
    """Give what lets all jobs alert that have a switch for it, as if it were typed."""
    for job in jobs:
        if _ALERT in job.options and isinstance(job.options[_ALERT].default, bool):
            yield f"{job.name}.{_ALERT}", "true"


def _meant(
    name: str,
    value: str,
    jobs: Mapping[str, Job],
    named: Sequence[str],
    redact: Callable[[str], str],
) -> list[tuple[str, str]]:
    """Return the options that a name stands for, if all of them can have the value."""
    if redact(value) != value:
        _refuse(name, "the value is a secret, and a command line is kept; use the environment")
    pattern, _, option = name.rpartition(".")
    if not pattern and not named:
        _refuse(name, f"name the jobs that it is for, or write JOB.{option}={value}")
    running = select_jobs(jobs, named)
    chosen = select_jobs(jobs, [pattern]) if pattern else running
    wanted = [job for job in chosen if job in running]
    if not wanted:
        _refuse(name, f"job {chosen[0].name} is not run; name it as well")
    declaring = [job for job in wanted if option in job.options]
    if not declaring:
        known = [each for job in wanted for each in job.options]
        _refuse(name, f"{_names(wanted)} no option {option!r}; {nearest(option, known)}")
    wrong = [text for job in declaring if (text := _bad_value(job, option, value))]
    if wrong:
        raise ConfigError([Problem(text=f"--option {name}: {text}") for text in wrong])
    return [(job.name, option) for job in declaring]


def _bad_value(job: Job, option: str, value: str) -> str | None:
    try:
        job.options[option].read(value)
    except ValueError as error:
        return f"job {job.name}: {error}"
    return None


def _names(jobs: Sequence[Job]) -> str:
    if len(jobs) == 1:
        return f"job {jobs[0].name} has"
    return f"jobs {', '.join(job.name for job in jobs)} have"


def _refuse(name: str, why: str) -> None:
    raise ConfigError([Problem(text=f"--option {name}: {why}")])
