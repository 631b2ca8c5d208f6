"""Finding jobs in a folder, and importing it as authors expect."""

from __future__ import annotations

import importlib
import inspect
import sys
import traceback
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from hashlib import blake2b
from pathlib import Path
from types import ModuleType

from cronrunner.errors import JobFileError, Problem
from cronrunner.model import (
    Job,
)
from cronrunner.registry.building import build
from cronrunner.registry.declaration import MARK, Declaration, JobFunction
from cronrunner.registry.sql import load_sql


@dataclass(frozen=True, slots=True, kw_only=True)
class Found:
    """The jobs of a folder, and what is wrong with the files that gave none."""

    jobs: Mapping[str, Job]
    problems: tuple[Problem, ...]


def find_jobs(folder: Path) -> Found:
    """Load every ``*.py`` and ``*.sql`` of ``folder``; names with a leading ``_`` are not jobs.

    Job files may import each other, as ``from jobs.schema import users`` or
    ``from schema import users``.
    """
    jobs: dict[str, Job] = {}
    problems: list[Problem] = []
    if not folder.is_dir():
        return Found(jobs={}, problems=(Problem(text=_no_folder(folder)),))
    _make_importable(folder)
    for path in sorted(folder.iterdir()):
        if path.name.startswith(("_", ".")) or path.suffix not in {".py", ".sql"}:
            continue
        try:
            loaded = list(_load_python(path) if path.suffix == ".py" else load_sql(path))
        except JobFileError as error:
            problems.extend(error.problems)
            continue
        digest = blake2b(path.read_bytes(), digest_size=16).hexdigest() if loaded else ""
        for each in loaded:
            if each.name in jobs:
                problems.append(_twice(each, jobs[each.name]))
            else:
                jobs[each.name] = replace(each, code_digest=digest)
    return Found(jobs=dict(sorted(jobs.items())), problems=tuple(problems))


def _no_folder(folder: Path) -> str:
    return f"expected a folder of jobs at {folder}, found none; set job_folder, or create it"


def _twice(later: Job, first: Job) -> Problem:
    text = f"two jobs are named {later.name!r}: {first.origin} and {later.origin}; rename one"
    file, _, line = later.origin.rpartition(":")
    return Problem(text=text, file=file, line=int(line))


def _make_importable(folder: Path) -> None:
    """Let ``folder`` be imported as a package of its own name, and its files as modules.

    The folder goes to the end of the path: a job file never shadows an installed package.
    """
    folder = folder.resolve()
    package = sys.modules.get(folder.name)
    if package is None or str(folder) not in map(str, getattr(package, "__path__", ())):
        stale = [n for n in sys.modules if n == folder.name or n.startswith(f"{folder.name}.")]
        for name in stale:
            del sys.modules[name]
        package = ModuleType(folder.name)
        package.__path__ = [str(folder)]
        sys.modules[folder.name] = package
    if str(folder) not in sys.path:
        sys.path.append(str(folder))


def _load_python(path: Path) -> Iterator[Job]:
    # The folder is resolved and not the file, which may be a link: a mounted ConfigMap is made
    # of links into a folder of another name.
    path = path.parent.resolve() / path.name
    name = f"{path.parent.name}.{path.stem}"
    try:
        module = importlib.import_module(name)
    except KeyboardInterrupt:
        raise
    except BaseException as error:
        # A SystemExit, or whatever else a file raises, disables that file and no other.
        sys.modules.pop(name, None)
        raise JobFileError([_import_problem(path, error)]) from error
    problems: list[Problem] = []
    for function in vars(module).values():
        declaration = getattr(function, MARK, None)
        if not isinstance(declaration, Declaration) or function.__module__ != name:
            continue
        try:
            yield job_of(function)
        except JobFileError as error:
            problems.extend(error.problems)
    if problems:
        raise JobFileError(problems)


def job_of(function: JobFunction) -> Job:
    """Return the job that a function is, with or without a declaration.

    Raises ``JobFileError`` with all that is wrong with it.
    """
    code = inspect.unwrap(function).__code__
    found = build(
        getattr(function, MARK, Declaration()),
        call=function,
        default_name=f"{function.__module__.rpartition('.')[2]}.{function.__name__}",
        file=Path(code.co_filename).name,
        line=code.co_firstlineno,
        description=inspect.getdoc(function) or "",
    )
    if isinstance(found, Job):
        return found
    raise JobFileError(found)


def _import_problem(path: Path, error: BaseException) -> Problem:
    """Name the line of the job file at which its import failed."""
    if isinstance(error, SyntaxError) and error.filename == str(path):
        return Problem(text=f"SyntaxError: {error.msg}", file=path.name, line=error.lineno)
    lines = [
        frame.lineno
        for frame in traceback.extract_tb(error.__traceback__)
        if frame.filename == str(path)
    ]
    text = f"{type(error).__name__}: {error}"
    return Problem(text=text, file=path.name, line=lines[-1] if lines else None)
