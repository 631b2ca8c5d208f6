"""Jobs that are Python functions: their files imported, and what was declared in them."""

from __future__ import annotations

import importlib
import inspect
import re
import sys
import traceback
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from cronrunner.errors import JobFileError, Problem
from cronrunner.model import Job, Option, RetryPolicy
from cronrunner.planning import nearest
from cronrunner.registry.building import build
from cronrunner.registry.declaration import MARK, STARTUP, Declaration, JobFunction
from cronrunner.registry.loops import callable_of, looks_like_one, odd_parameters, takes

#: What an author gives arguments to, beside the decorator.
_ARGUED: Final = {"Option": Option, "RetryPolicy": RetryPolicy}
_UNKNOWN: Final = re.compile(
    rf"({'|'.join(_ARGUED)})\.__init__\(\) got an unexpected keyword argument '(\w+)'"
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Startup:
    """The start-up hook."""

    call: Callable[[], Any]
    origin: str


def load_python(path: Path) -> Iterator[Job | Startup | Problem]:
    """Give the jobs of a file, its start-up hook, and what to warn of. Raises ``JobFileError``."""
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
    own = [each for each in vars(module).values() if getattr(each, "__module__", None) == name]
    yield from _declared(own)


def _declared(own: Sequence[Any]) -> Iterator[Job | Startup | Problem]:
    """Give what the functions of a file were declared to be. Raises ``JobFileError``."""
    found: list[Job | Startup] = []
    problems: list[Problem] = []
    for function in own:
        try:
            if isinstance(getattr(function, MARK, None), Declaration):
                found.append(job_of(function))
            elif getattr(function, STARTUP, False) is True:
                found.append(_startup(function))
        except JobFileError as error:
            problems.extend(error.problems)
    if problems:
        raise JobFileError(problems)
    yield from found or _maybe_meant(own)
    yield from _oddly_called(own)


def job_of(function: JobFunction) -> Job:
    """Return the job that a function is, with or without a declaration.

    Raises ``JobFileError`` with all that is wrong with it.
    """
    file, _, line = _origin(function).partition(":")
    declaration = getattr(function, MARK, Declaration())
    name = f"{function.__module__.rpartition('.')[2]}.{function.__name__}"
    try:
        call, declaration = callable_of(function, declaration)
    except ValueError as error:
        text = f"job {declaration.name or name}: {error}"
        raise JobFileError([Problem(text=text, file=file, line=int(line))]) from error
    found = build(
        declaration,
        call=call,
        default_name=name,
        file=file,
        line=int(line),
        description=inspect.getdoc(function) or "",
    )
    if isinstance(found, Job):
        return found
    raise JobFileError(found)


def _origin(function: Callable[..., Any]) -> str:
    """Return where a function is: the file's name and the line."""
    code = inspect.unwrap(function).__code__
    return f"{Path(code.co_filename).name}:{code.co_firstlineno}"


def _startup(function: Callable[..., Any]) -> Startup:
    origin = _origin(function)
    if not takes(function, 0):
        text = f"expected the start-up hook {function.__name__} to take no arguments"
        file, _, line = origin.partition(":")
        raise JobFileError([Problem(text=text, file=file, line=int(line))])
    return Startup(call=function, origin=origin)


def _maybe_meant(own: Iterable[object]) -> Iterator[Problem]:
    """Name functions as a loop calls them, in a file that gives nothing else."""
    for each in own:
        if inspect.isfunction(each) and not each.__name__.startswith("_") and looks_like_one(each):
            text = f"{each.__name__}(db_name, engine) is no job; put @job from cronrunner above it"
            file, _, line = _origin(each).partition(":")
            yield Problem(text=text, file=file, line=int(line))


def _unknown_argument(error: BaseException) -> str | None:
    """Say so if a file gives an ``Option`` or a ``RetryPolicy`` an argument that it has not."""
    found = _UNKNOWN.match(str(error)) if isinstance(error, TypeError) else None
    if found is None:
        return None
    known = inspect.signature(_ARGUED[found[1]]).parameters
    return f"{found[1]}: unknown argument {found[2]!r}; {nearest(found[2], known)}"


def _oddly_called(own: Iterable[object]) -> Iterator[Problem]:
    """Name jobs whose parameters are called like what they are not."""
    for each in own:
        is_job = isinstance(getattr(each, MARK, None), Declaration)
        if is_job and inspect.isfunction(each) and (text := odd_parameters(each)):
            file, _, line = _origin(each).partition(":")
            yield Problem(text=f"{each.__name__}: {text}", file=file, line=int(line))


def _import_problem(path: Path, error: BaseException) -> Problem:
    """Name the line of the job file at which its import failed."""
    if isinstance(error, SyntaxError) and error.filename == str(path):
        return Problem(text=f"SyntaxError: {error.msg}", file=path.name, line=error.lineno)
    lines = [
        frame.lineno
        for frame in traceback.extract_tb(error.__traceback__)
        if frame.filename == str(path)
    ]
    text = _unknown_argument(error) or f"{type(error).__name__}: {error}"
    return Problem(text=text, file=path.name, line=lines[-1] if lines else None)
