"""The jobs that a command names, and why one that was written is not there."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import PurePath

from cronrunner import planning
from cronrunner.errors import ConfigError, Problem
from cronrunner.model import Job
from cronrunner.registry.finding import Found


def choose_jobs(jobs: Mapping[str, Job], found: Found, patterns: Sequence[str]) -> tuple[Job, ...]:
    """Return the jobs that are asked for, as ``planning.select_jobs`` does.

    Raises ``ConfigError``, which also says what is wrong with files that may hold them.
    """
    try:
        return planning.select_jobs(jobs, patterns)
    except ConfigError as error:
        raise ConfigError([*error.problems, *_beside(found, patterns)]) from error


def _beside(found: Found, patterns: Sequence[str]) -> Iterator[Problem]:
    # That there is no folder belongs to no file.
    yield from (each for each in found.problems if not each.file)
    problems = [each for each in (*found.problems, *found.warnings) if each.file]
    meant = [each for each in problems if any(_may_hold(each, name) for name in patterns)]
    if meant:
        yield from meant
    elif files := sorted({each.file for each in found.problems if each.file}):
        yield Problem(text=f"it may be in a file that is broken: {', '.join(files)}")


def _may_hold(problem: Problem, name: str) -> bool:
    """Tell whether a job of that name may be in the file: it is called like it as a rule."""
    return PurePath(problem.file or "").stem in {*name.split("."), name, name.replace(".", "_")}
