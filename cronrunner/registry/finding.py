"""Finding jobs in a folder, and importing it as authors expect."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from hashlib import blake2b
from pathlib import Path
from types import ModuleType
from typing import Final

from cronrunner.errors import JobFileError, Problem
from cronrunner.model import (
    Job,
)
from cronrunner.registry.python import Startup, load_python
from cronrunner.registry.sql import load_sql


@dataclass(frozen=True, slots=True, kw_only=True)
class Found:
    """The jobs of a folder, and what is wrong with the files that gave none."""

    jobs: Mapping[str, Job]
    problems: tuple[Problem, ...]
    #: Files and functions that may have been meant as jobs.
    warnings: tuple[Problem, ...] = ()
    startup: Startup | None = None


def find_jobs(folder: Path) -> Found:
    """Load all jobs of ``folder``; names with a leading ``_`` are not looked at.

    Job files may import each other, as ``from jobs.schema import users`` or
    ``from schema import users``.
    """
    if not folder.is_dir():
        return Found(jobs={}, problems=(Problem(text=_no_folder(folder)),))
    _make_importable(folder)
    found = _Gathered()
    for path in sorted(folder.iterdir()):
        if path.name.startswith(("_", ".")) or path.suffix not in _LOADERS:
            continue
        try:
            loaded = list(_LOADERS[path.suffix](path))
        except JobFileError as error:
            found.problems.extend(error.problems)
            continue
        digest = blake2b(path.read_bytes(), digest_size=16).hexdigest() if loaded else ""
        for each in loaded:
            found.add(replace(each, code_digest=digest) if isinstance(each, Job) else each)
    return Found(
        jobs=dict(sorted(found.jobs.items())),
        problems=tuple(found.problems),
        warnings=tuple(found.warnings),
        startup=found.startup,
    )


@dataclass(slots=True)
class _Gathered:
    """What was found so far."""

    jobs: dict[str, Job] = field(default_factory=dict)
    problems: list[Problem] = field(default_factory=list)
    warnings: list[Problem] = field(default_factory=list)
    startup: Startup | None = None

    def add(self, each: Job | Startup | Problem) -> None:
        """Add what a file has given; a problem of a file that is none is a warning."""
        match each:
            case Problem():
                self.warnings.append(each)
            case Startup():
                if self.startup is not None:
                    self.problems.append(_second(each, self.startup))
                self.startup = self.startup or each
            case Job() if each.name in self.jobs:
                self.problems.append(_twice(each, self.jobs[each.name]))
            case Job():
                self.jobs[each.name] = each


def _no_folder(folder: Path) -> str:
    return f"expected a folder of jobs at {folder}, found none; set job_folder, or create it"


def _twice(later: Job, first: Job) -> Problem:
    text = f"two jobs are named {later.name!r}: {first.origin} and {later.origin}; rename one"
    return _at(later.origin, text)


def _second(later: Startup, first: Startup) -> Problem:
    return _at(later.origin, f"there is a start-up hook already, at {first.origin}; keep one")


def _at(origin: str, text: str) -> Problem:
    file, _, line = origin.rpartition(":")
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


def _load_script(path: Path) -> Iterator[Job | Problem]:
    from cronrunner.registry.script import load_script  # noqa: PLC0415 - only for such files

    return load_script(path)


#: By a file's ending: what gives its jobs, and what to warn of.
_LOADERS: Final[Mapping[str, Callable[[Path], Iterator[Job | Startup | Problem]]]] = {
    ".py": load_python,
    ".sql": load_sql,
    ".sh": _load_script,
}
