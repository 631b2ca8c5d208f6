"""Jobs as authors declare them: the ``@job`` decorator, ``.sql`` files, and finding both.

A declaration is checked when its file is loaded, not when it is decorated, so that all
mistakes of all files are reported at once. A broken file disables its own jobs and no others.
"""

from __future__ import annotations

import importlib
import inspect
import re
import sys
import traceback
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import timedelta
from enum import StrEnum
from pathlib import Path
from types import ModuleType
from typing import Any, Final, TypeVar, overload

from cronrunner.errors import JobFileError, Problem
from cronrunner.model import (
    Job,
    Option,
    RetryPolicy,
    Scope,
    TenantFilter,
    Transaction,
    parse_duration,
)

JobFunction = Callable[..., Any]
T = TypeVar("T")
W = TypeVar("W", bound=StrEnum)

_MARK: Final = "__cronrunner_declaration__"
_NAME: Final = re.compile(r"[A-Za-z][A-Za-z0-9_]*(\.[A-Za-z0-9_]+)*")
_HEADER: Final = re.compile(r"--\s*([a-z_]+)\s*:\s*(.*?)\s*$")
_COMMENT: Final = re.compile(r"--(.*)$")
#: What a job of one part is called by: 80 is the width of `job_items.job`.
_NAME_LIMIT: Final = 80


@dataclass(frozen=True, slots=True, kw_only=True)
class Declaration:
    """What an author wrote, as it was written."""

    name: str | None = None
    schedule: str | None = None
    timeout: str | timedelta = "5m"
    retries: int = 0
    retry: RetryPolicy | None = None
    scope: str = "tenant"
    transaction: str = "tenant"
    tenants: str | Sequence[str] = "*"
    labels: Mapping[str, str] = field(default_factory=dict)
    options: Mapping[str, Any] = field(default_factory=dict)
    prepare: JobFunction | None = None
    summarize: JobFunction | None = None
    exactly_once: bool = False
    enabled: bool = True


@overload
def job(function: JobFunction) -> JobFunction: ...
@overload
def job(
    *,
    name: str | None = None,
    schedule: str | None = None,
    timeout: str | timedelta = "5m",
    retries: int = 0,
    retry: RetryPolicy | None = None,
    scope: str = "tenant",
    transaction: str = "tenant",
    tenants: str | Sequence[str] = "*",
    labels: Mapping[str, str] = ...,
    options: Mapping[str, Any] = ...,
    prepare: JobFunction | None = None,
    summarize: JobFunction | None = None,
    exactly_once: bool = False,
    enabled: bool = True,
) -> Callable[[JobFunction], JobFunction]: ...
def job(
    function: JobFunction | None = None, **declared: Any
) -> JobFunction | Callable[[JobFunction], JobFunction]:
    """Declare a function that takes a ``JobContext`` to be a job.

    ``schedule`` is a cron expression of five fields. ``timeout`` is a duration such as
    ``"5m"``. ``retries`` is how often a transient failure is repeated; ``retry`` gives the
    whole policy instead. ``scope`` is ``"tenant"`` or ``"fleet"``. ``transaction`` is
    ``"tenant"`` (one transaction, committed on return), ``"batch"`` or ``"none"`` (the job
    commits). ``tenants`` (globs) and ``labels`` say which tenants the job is for. ``options``
    maps names to defaults, or to ``Option``s. ``prepare`` runs once before the fan-out and
    gives each execution its ``ctx.prepared``; ``summarize`` runs once after it.
    ``exactly_once`` writes a marker into the tenant's database in the job's transaction, so
    that not even a killed process makes a slot run twice.

    The function returns ``None`` or a mapping of counter names to whole numbers.
    """
    declaration = Declaration(**declared)

    def mark(function: JobFunction) -> JobFunction:
        if not inspect.isfunction(function):
            msg = f"expected @job on a function, got {function!r}; use @job(schedule=...) for keys"
            raise TypeError(msg)
        setattr(function, _MARK, declaration)
        return function

    return mark if function is None else mark(function)


@dataclass(frozen=True, slots=True, kw_only=True)
class Found:
    """The jobs of a folder, and what is wrong with the files that gave none."""

    jobs: Mapping[str, Job]
    problems: tuple[Problem, ...]

    @property
    def broken(self) -> int:
        """How many mistakes disable a file or a job."""
        return len(self.problems)


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
            loaded = list(_load_python(path) if path.suffix == ".py" else _load_sql(path))
        except JobFileError as error:
            problems.extend(error.problems)
            continue
        for each in loaded:
            if each.name in jobs:
                problems.append(_twice(each, jobs[each.name]))
            else:
                jobs[each.name] = each
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
        declaration = getattr(function, _MARK, None)
        if not isinstance(declaration, Declaration) or function.__module__ != name:
            continue
        line = inspect.unwrap(function).__code__.co_firstlineno
        found = _build(
            declaration,
            call=function,
            default_name=f"{path.stem}.{function.__name__}",
            file=path.name,
            line=line,
            description=inspect.getdoc(function) or "",
        )
        if isinstance(found, Job):
            yield found
        else:
            problems.extend(found)
    if problems:
        raise JobFileError(problems)


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


def _build(  # noqa: PLR0913 - the parts of one job, from two kinds of file
    declaration: Declaration,
    *,
    call: Callable[[Any], Any],
    default_name: str,
    file: str,
    line: int,
    description: str,
) -> Job | list[Problem]:
    """Turn a declaration into a job, or into all that is wrong with it."""
    texts: list[str] = []

    def take(label: str, read: Callable[[], T], fallback: T) -> T:
        try:
            return read()
        except (ValueError, TypeError) as error:
            texts.append(f"{label}: {error}")
            return fallback

    name = take("name", lambda: _name(declaration.name or default_name), default_name)
    built = Job(
        name=name,
        call=call,
        origin=f"{file}:{line}",
        description=description,
        schedule=take(
            "schedule", lambda: _typed(declaration.schedule, str | None, "a cron expression"), None
        ),
        timeout=take("timeout", lambda: _duration(declaration.timeout), timedelta(minutes=5)),
        retry=take("retries", lambda: _retry(declaration), RetryPolicy()),
        scope=take("scope", lambda: _word(Scope, declaration.scope), Scope.TENANT),
        transaction=take(
            "transaction", lambda: _word(Transaction, declaration.transaction), Transaction.TENANT
        ),
        tenants=TenantFilter(
            names=take("tenants", lambda: _globs(declaration.tenants), ()),
            labels=take("labels", lambda: _mapping(declaration.labels), {}),
        ),
        options=take("options", lambda: _options(declaration.options), {}),
        prepare=take("prepare", lambda: _hook(declaration.prepare), None),
        summarize=take("summarize", lambda: _hook(declaration.summarize), None),
        exactly_once=take("exactly_once", lambda: _exactly_once(declaration), fallback=False),
        enabled=take("enabled", lambda: _typed(declaration.enabled, bool, "True or False"), True),
    )
    if texts:
        return [Problem(text=f"job {name}: {text}", file=file, line=line) for text in texts]
    return built


def _name(value: object) -> str:
    if isinstance(value, str) and _NAME.fullmatch(value) and len(value) <= _NAME_LIMIT:
        return value
    msg = f"expected letters, digits, _ and dots, at most {_NAME_LIMIT} long, got {value!r}"
    raise ValueError(msg)


def _typed(value: T, kind: Any, expected: str) -> T:  # noqa: ANN401 - what isinstance takes
    if isinstance(value, kind):
        return value
    msg = f"expected {expected}, got {value!r}"
    raise ValueError(msg)


def _exactly_once(declaration: Declaration) -> bool:
    wanted = _typed(declaration.exactly_once, bool, "True or False")
    if wanted and (declaration.transaction != "tenant" or declaration.scope != "tenant"):
        msg = 'expected transaction="tenant" and scope="tenant": the marker is part of it'
        raise ValueError(msg)
    return wanted


def _mapping(value: Mapping[str, Any]) -> Mapping[str, Any]:
    return dict(_typed(value, Mapping, "a mapping of names to values"))


def _hook(value: JobFunction | None) -> JobFunction | None:
    return _typed(value, Callable | None, "a function")


def _word(words: type[W], value: str) -> W:
    if value in list(words):
        return words(value)
    msg = f"expected {' or '.join(words)}, got {value!r}"
    raise ValueError(msg)


def _duration(value: str | timedelta) -> timedelta:
    return value if isinstance(value, timedelta) else parse_duration(str(value))


def _retry(declaration: Declaration) -> RetryPolicy:
    if declaration.retry is not None:
        return _typed(declaration.retry, RetryPolicy, "a RetryPolicy")
    retries: object = declaration.retries
    if not isinstance(retries, int) or isinstance(retries, bool) or retries < 0:
        msg = f"expected a whole number from 0, got {retries!r}"
        raise ValueError(msg)
    return RetryPolicy(attempts=retries + 1)


def _globs(value: str | Sequence[str]) -> tuple[str, ...]:
    names = (value,) if isinstance(value, str) else tuple(value)
    if not all(isinstance(name, str) for name in names):
        msg = f"expected a glob or a list of globs, got {value!r}"
        raise ValueError(msg)
    return names


def _options(declared: Mapping[str, Any]) -> Mapping[str, Option]:
    return {
        name: value if isinstance(value, Option) else Option(_default(value))
        for name, value in _mapping(declared).items()
    }


def _default(value: object) -> Any:  # noqa: ANN401 - one of the types an option may have
    if isinstance(value, list):
        return tuple(value)
    if isinstance(value, bool | int | float | str | tuple):
        return value
    msg = f"expected a bool, number, text or list as default, got {value!r}"
    raise ValueError(msg)


@dataclass(frozen=True, slots=True)
class SqlJob:
    """The body of a ``.sql`` job: its statements in order, and the counter they add to."""

    statements: tuple[str, ...]
    counter: str

    def __call__(self, ctx: Any) -> Mapping[str, int]:  # noqa: ANN401 - a JobContext, a layer above
        """Execute the statements with ``:now``, ``:slot``, ``:tenant`` and the options bound."""
        affected = [ctx.execute(statement).rowcount for statement in self.statements]
        return {self.counter: sum(count for count in affected if count > 0)}


#: Header keys of a `.sql` file and how their text is read.
_SQL_KEYS: Final[Mapping[str, Callable[[str], Any]]] = {
    "name": str,
    "schedule": str,
    "timeout": str,
    "retries": lambda text: int(text) if text.isdigit() else text,
    "transaction": str,
    "tenants": lambda text: [part.strip() for part in text.split(",")],
    "enabled": lambda text: {"true": True, "false": False}.get(text.lower(), text),
}


def _load_sql(path: Path) -> Iterator[Job]:
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise JobFileError([Problem(text=str(error), file=path.name)]) from error
    declared, description, problems = _read_header(text, path.name)
    counter = declared.pop("counter", "rows")
    statements = _split(text)
    if not statements:
        problems.append(Problem(text="expected a SQL statement, found none", file=path.name))
    built = _build(
        Declaration(**declared),
        call=SqlJob(statements, counter),
        default_name=path.stem,
        file=path.name,
        line=1,
        description=description,
    )
    if isinstance(built, Job) and not problems:
        yield built
        return
    raise JobFileError([*problems, *([] if isinstance(built, Job) else built)])


def _read_header(text: str, file: str) -> tuple[dict[str, Any], str, list[Problem]]:
    """Read ``-- key: value`` lines; the other comment lines at the top are the description."""
    declared: dict[str, Any] = {}
    description: list[str] = []
    problems: list[Problem] = []
    for number, line in enumerate(text.splitlines(), start=1):
        comment = _COMMENT.match(line.strip())
        if comment is None:
            break
        key_value = _HEADER.match(line.strip())
        if key_value is None:
            description.append(comment.group(1).strip())
        elif key_value.group(1) == "counter":
            declared["counter"] = key_value.group(2)
        elif key_value.group(1) in _SQL_KEYS:
            declared[key_value.group(1)] = _SQL_KEYS[key_value.group(1)](key_value.group(2))
        else:
            problems.append(_unknown_key(key_value.group(1), file, number))
    return declared, "\n".join(description).strip(), problems


def _unknown_key(key: str, file: str, line: int) -> Problem:
    known = ", ".join([*_SQL_KEYS, "counter"])
    return Problem(text=f"unknown header key {key!r}; known are {known}", file=file, line=line)


def _split(text: str) -> tuple[str, ...]:
    """Split a file into statements; sqlparse knows strings, comments and BEGIN blocks."""
    import sqlparse  # noqa: PLC0415 - only a folder with .sql jobs pays for it

    stripped = (sqlparse.format(each, strip_comments=True) for each in sqlparse.split(text))
    return tuple(each.strip().rstrip(";").strip() for each in stripped if each.strip(" ;\n\t"))
