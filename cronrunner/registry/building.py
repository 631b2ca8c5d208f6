"""From what was declared to a job, or to all that is wrong with it."""

from __future__ import annotations

import inspect
import re
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from datetime import timedelta
from enum import StrEnum
from functools import partial
from typing import Any, Final, TypeVar
from zoneinfo import ZoneInfo

from cronrunner.errors import Problem
from cronrunner.model import (
    EMPTY,
    Effects,
    Isolation,
    Job,
    Option,
    Overlap,
    RetryPolicy,
    Scope,
    TenantFilter,
    Transaction,
    format_duration,
    parse_duration,
)
from cronrunner.planning import nearest
from cronrunner.registry.declaration import ARGUMENTS, Declaration, JobFunction
from cronrunner.registry.loops import LoopJob
from cronrunner.schedule import SHORTEST, TENANT_ZONE, check

T = TypeVar("T")
W = TypeVar("W", bound=StrEnum)
_NAME: Final = re.compile(r"[A-Za-z][A-Za-z0-9_]*(\.[A-Za-z0-9_]+)*")
#: What a job of one part is called by: 80 is the width of `job_items.job`.
_NAME_LIMIT: Final = 80


def build(  # noqa: PLR0913 - the parts of one job, from two kinds of file
    declaration: Declaration,
    *,
    call: Callable[[Any], Any],
    default_name: str,
    file: str,
    line: int,
    description: str,
    lines: Mapping[str, int] = EMPTY,
) -> Job | list[Problem]:
    """Turn a declaration into a job, or into all that is wrong with it.

    ``lines`` says where a key stands that has a line of its own.
    """
    texts: list[str] = []
    if inspect.isasyncgenfunction(call) or inspect.isgeneratorfunction(call):
        texts.append("expected a function that returns, got one that yields")
    texts += [
        f"unknown argument {each!r}; {nearest(each, ARGUMENTS)}" for each in declaration.unknown
    ]

    def take(label: str, read: Callable[[], T], fallback: T) -> T:
        try:
            return read()
        except (ValueError, TypeError) as error:
            texts.append(f"{label}: {error}")
            return fallback

    def options() -> Mapping[str, Option]:
        none: Mapping[str, Any] = {}
        declared = take("options", lambda: _mapping(declaration.options), none)
        read = {
            name: take("options", partial(_option, name, value), None)
            for name, value in declared.items()
        }
        return {name: option for name, option in read.items() if option is not None}

    name = take("name", lambda: _name(declaration.name or default_name), default_name)
    built = Job(
        name=name,
        call=call,
        origin=f"{file}:{line}",
        description=description,
        schedule=take("schedule", lambda: _schedule(declaration.schedule), None),
        every=take("every", lambda: _every(declaration), None),
        timezone=take("timezone", lambda: _zone(declaration), "UTC"),
        catch_up=take("catch_up", lambda: _duration(declaration.catch_up), timedelta(hours=24)),
        timeout=take("timeout", lambda: _duration(declaration.timeout), timedelta(minutes=5)),
        retry=take("retries", lambda: _retry(declaration), RetryPolicy()),
        scope=take("scope", lambda: _word(Scope, declaration.scope), Scope.TENANT),
        transaction=take(
            "transaction", lambda: _transaction(declaration, call), Transaction.TENANT
        ),
        overlap=take("overlap", lambda: _word(Overlap, declaration.overlap), Overlap.SKIP),
        server_lock=take(
            "server_lock",
            lambda: _server_lock(declaration),
            fallback=False,
        ),
        tenants=TenantFilter(
            names=take("tenants", lambda: _globs(declaration.tenants), ()),
            labels=take("labels", lambda: _mapping(declaration.labels), {}),
        ),
        options=options(),
        prepare=take("prepare", lambda: _hook(declaration.prepare), None),
        summarize=take("summarize", lambda: _hook(declaration.summarize), None),
        exactly_once=take("exactly_once", lambda: _exactly_once(declaration), fallback=False),
        isolation=take("isolation", lambda: _isolation(declaration), None),
        effects=take("effects", lambda: _word(Effects, declaration.effects), Effects.DATABASE),
        enabled=take("enabled", lambda: _flag(declaration.enabled), fallback=True),
    )
    if texts:
        return [
            Problem(
                text=f"job {name}: {text}", file=file, line=lines.get(text.partition(":")[0], line)
            )
            for text in texts
        ]
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


def _schedule(value: str | None) -> str | None:
    expression = _typed(value, str | None, "a cron expression")
    if expression is not None:
        check(expression)
    return expression


def _every(declaration: Declaration) -> timedelta | None:
    if declaration.every is None:
        return None
    every = _duration(declaration.every)
    if declaration.schedule is not None:
        msg = "expected either a schedule or an interval, got both"
        raise ValueError(msg)
    if every < SHORTEST:
        msg = f"expected at least {format_duration(SHORTEST)}, got {format_duration(every)}"
        raise ValueError(msg)
    return every


def _zone(declaration: Declaration) -> str:
    name: object = declaration.timezone
    if name == TENANT_ZONE and declaration.scope == Scope.FLEET:
        msg = f"expected an IANA name for a job of fleet scope, which has no tenant, got {name!r}"
        raise ValueError(msg)
    with suppress(KeyError, ValueError, OSError):
        if isinstance(name, str):
            return name if name == TENANT_ZONE else ZoneInfo(name).key
    msg = f"expected an IANA name such as Europe/Berlin, or {TENANT_ZONE!r}, got {name!r}"
    raise ValueError(msg)


def _flag(value: bool) -> bool:  # noqa: FBT001 - what the author wrote
    return _typed(value, bool, "True or False")


def _exactly_once(declaration: Declaration) -> bool:
    wanted = _flag(declaration.exactly_once)
    if wanted and (_said(declaration) != "tenant" or declaration.scope != "tenant"):
        msg = 'expected transaction="tenant" and scope="tenant": the marker is part of it'
        raise ValueError(msg)
    return wanted


def _said(declaration: Declaration) -> str:
    said = declaration.transaction
    return Transaction.TENANT if said is None else said


def _transaction(declaration: Declaration, call: Callable[[Any], Any]) -> Transaction:
    wanted = _word(Transaction, _said(declaration))
    if isinstance(call, LoopJob) and wanted is not Transaction.NONE:
        msg = f"expected none for a function of (db_name, engine), which commits, got {wanted!s}"
        raise ValueError(msg)
    if wanted is Transaction.BATCH and declaration.scope == Scope.FLEET:
        msg = "expected tenant or none for a job of fleet scope, got 'batch'"
        raise ValueError(msg)
    return wanted


def _server_lock(declaration: Declaration) -> bool:
    wanted = _flag(declaration.server_lock)
    if wanted and declaration.scope != Scope.TENANT:
        msg = 'expected scope="tenant": the lock is one of the tenant\'s server'
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


def _isolation(declaration: Declaration) -> Isolation | None:
    wanted = declaration.isolation
    return None if wanted is None else _word(Isolation, wanted)


def _duration(value: str | timedelta) -> timedelta:
    return value if isinstance(value, timedelta) else parse_duration(str(value))


def _retry(declaration: Declaration) -> RetryPolicy:
    retries: object = declaration.retries
    if declaration.retry is not None:
        if retries:
            msg = "expected either a number of retries or a policy, got both"
            raise ValueError(msg)
        return _policy(_typed(declaration.retry, RetryPolicy, "a RetryPolicy"))
    if not isinstance(retries, int) or isinstance(retries, bool) or retries < 0:
        msg = f"expected a whole number from 0, got {retries!r}"
        raise ValueError(msg)
    return RetryPolicy(attempts=retries + 1)


def _policy(policy: RetryPolicy) -> RetryPolicy:
    """Check what a policy consists of; like all of a job file it is whatever its author wrote."""
    attempts: object = policy.attempts
    if not isinstance(attempts, int) or isinstance(attempts, bool) or attempts < 1:
        msg = f"expected attempts to be a whole number from 1, got {attempts!r}"
        raise ValueError(msg)
    delays: dict[str, object] = {"wait": policy.wait, "cap": policy.cap}
    for name, delay in delays.items():
        if not isinstance(delay, timedelta) or delay < timedelta():
            msg = f"expected {name} to be a timedelta from 0, got {delay!r}"
            raise ValueError(msg)
    kinds: object = policy.on
    if not isinstance(kinds, tuple) or not all(
        isinstance(kind, type) and issubclass(kind, BaseException) for kind in kinds
    ):
        msg = f"expected on to be a tuple of exception classes, got {kinds!r}"
        raise ValueError(msg)
    return policy


def _globs(value: str | Sequence[str]) -> tuple[str, ...]:
    names = (value,) if isinstance(value, str) else tuple(value)
    if not all(isinstance(name, str) for name in names):
        msg = f"expected a glob or a list of globs, got {value!r}"
        raise ValueError(msg)
    return names


def _option(name: str, value: object) -> Option:
    option = value if isinstance(value, Option) else Option(_default(name, value))
    try:
        option.read(option.default)
    except ValueError as error:
        msg = f"{name}: its default: {error}"
        raise ValueError(msg) from error
    return option


def _default(name: str, value: object) -> Any:  # noqa: ANN401 - one of the types an option may have
    if isinstance(value, list):
        return tuple(value)
    if isinstance(value, bool | int | float | str | tuple | Mapping):
        return value
    msg = f"{name}: expected a bool, number, text, list or mapping as default, got {value!r}"
    raise ValueError(msg)
