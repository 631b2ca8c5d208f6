"""Turns what was logged into one line of text.

Whatever is logged, rendering never raises, and a line of JSON is one valid document of less
than ``LINE_LIMIT`` bytes. Values are first made plain, then redacted, then shortened: in this
order, because half a secret would not be recognised.
"""

from __future__ import annotations

import json
import math
import re
import sys
import time
from abc import ABC, abstractmethod
from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping
from contextvars import ContextVar
from dataclasses import dataclass
from datetime import date, timedelta
from decimal import Decimal
from functools import lru_cache
from itertools import islice
from pathlib import Path
from typing import Any, Final, NamedTuple
from uuid import UUID

import structlog
from ecs_logging import StructlogFormatter
from structlog.contextvars import get_contextvars
from structlog.typing import EventDict, WrappedLogger

from cronrunner import __version__
from cronrunner.logs.lines import Line, words_of
from cronrunner.model import WELL, Outcome, Request
from cronrunner.redaction import Redactor, clip, description, format_traceback

#: Bytes of a line of JSON; collectors cut or refuse what is longer.
LINE_LIMIT: Final = 32_000
#: Whose words are on each line: of what a request asks for, on which server.
EXECUTION: Final[ContextVar[tuple[Request, str] | None]] = ContextVar("execution", default=None)

_DEPTH: Final = 4
_INT64: Final = 2**63
_SERVICE: Final = {"name": "cronrunner", "version": __version__}
# What breaks a line, a terminal or a strict reader of JSON; tabs and newlines do not.
_CONTROL: Final = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\u2028\u2029\ud800-\udfff]")
_ERROR_TYPE: Final = re.compile(r"([A-Z]\w*)(?: [A-Z0-9_]+)?(?:: |$)")
#: Fields that ECS has a place for; the others stand below `cronrunner`.
_ECS: Final = {
    "reason": ("event", "reason"),
    "error_type": ("error", "type"),
    "error": ("error", "message"),
    "code": ("error", "code"),
}
#: Fields that need more than another name.
_CONVERTED: Final = frozenset({"duration_seconds", "traceback"})
#: What the console's renderer takes for its own.
_CONSOLE_KEYS: Final = frozenset(
    {"event", "exc_info", "exception", "level", "logger", "logger_name", "stack", "timestamp"}
)


@dataclass(frozen=True, slots=True, kw_only=True)
class _Limits:
    """How much of a line is kept."""

    #: Characters.
    text: int
    traceback: int
    #: Members of a list or mapping.
    members: int


#: Ever less, until a line fits; the last fits always.
_LIMITS: Final = (
    _Limits(text=2_000, traceback=16_000, members=50),
    _Limits(text=400, traceback=4_000, members=20),
    _Limits(text=40, traceback=400, members=3),
)


class _Entry(NamedTuple):
    """What was logged, sorted by who says it."""

    text: object
    action: str | None
    #: The words of the execution and the fields of the product's line.
    fields: Mapping[str, Any]
    #: What the author of a job, or a library, added.
    labels: Mapping[str, Any]
    #: The library that logs.
    logger: str | None
    #: When it came about, in seconds since 1970.
    at: float


class Cleaner:
    """Makes values plain, free of secrets, and short."""

    def __init__(self, redactor: Redactor, describe: Callable[[BaseException], str]) -> None:
        self._redactor = redactor
        self._describe = describe

    def text(self, text: str, limit: int) -> str:
        """Return ``text`` redacted, without control characters, in about ``limit`` characters."""
        text = self._redactor.text(text)
        if not text.isprintable():
            text = _CONTROL.sub(_escape, text)
        return clip(text, limit)

    def value(self, value: object, limits: _Limits, depth: int = _DEPTH) -> Any:  # noqa: ANN401 - JSON
        """Return ``value`` as JSON has it; what JSON has not becomes text."""
        if type(value) is str:  # most are
            return self.text(value, limits.text)
        if isinstance(value, Outcome):  # lines are counted by it, whatever somebody's password is
            return value.value
        if isinstance(value, str):
            return self.text(value, limits.text)
        if value is None or _is_number(value):
            return value
        match value:
            case Mapping() | list() | tuple() | set() | frozenset() if depth:
                return self._members(value, limits, depth - 1)
            case _:
                return self.text(self.write(value), limits.text)

    def _members(
        self, value: Mapping[Any, Any] | Iterable[Any], limits: _Limits, depth: int
    ) -> Any:  # noqa: ANN401 - JSON
        kept = islice(value.items() if isinstance(value, Mapping) else value, limits.members)
        if isinstance(value, Mapping):
            return {self.key(key, limits): self.value(one, limits, depth) for key, one in kept}
        return [self.value(member, limits, depth) for member in kept]

    def key(self, key: object, limits: _Limits) -> str:
        """Return a mapping's key; a dot in it would be taken for a level."""
        return self.text(self.write(key), limits.text).replace(".", "_")

    def traceback(self, error: BaseException) -> str:
        """Write the traceback of ``error``: no locals, row values or secrets."""
        return format_traceback(error, self._describe, self._redactor)

    def message(self, error: BaseException) -> str:
        """Describe ``error`` without its type."""
        return description(error, self._describe)

    def write(self, value: object) -> str:
        """Write any value as text; that is all this does."""
        try:
            return value if isinstance(value, str) else self._write(value)
        except Exception:  # noqa: BLE001 - a job may log what cannot even be written
            return f"({type(value).__name__} cannot be written)"

    def _write(self, value: object) -> str:
        match value:
            case BaseException():
                return f"{type(value).__name__}: {self.message(value)}"
            case bytes():
                return value.decode("utf-8", "backslashreplace")
            case date():
                return value.isoformat()
            case timedelta() | Path() | UUID() | Decimal():
                return str(value)
            case _:
                return repr(value)


class Renderer(ABC):
    """What both formats have in common: taking a call to the logger apart, and fitting it in."""

    def __init__(self, cleaner: Cleaner) -> None:
        self._cleaner = cleaner

    def __call__(self, _: WrappedLogger, name: str, event_dict: EventDict) -> str:
        """Write a line, ever shorter until it is below ``LINE_LIMIT``. A structlog processor."""
        entry = self._entry(event_dict)
        for limits in _LIMITS:
            line = self._write(entry, limits, name)
            if len(line) < LINE_LIMIT:
                break
        return line

    @abstractmethod
    def _write(self, entry: _Entry, limits: _Limits, level: str) -> str: ...

    def _entry(self, event_dict: EventDict) -> _Entry:
        context = get_contextvars()
        bound = EXECUTION.get()
        fields = {} if bound is None else words_of(*bound)
        text, logger = event_dict.pop("event", ""), event_dict.pop("_logger", None)
        line, error = event_dict.pop("_line", None), _exception(event_dict.pop("exc_info", None))
        at = event_dict.pop("_at", None)
        stack = event_dict.pop("stack_info", None)
        if isinstance(stack, str):
            fields["traceback"] = stack
        if error is not None:
            fields["error_type"] = type(error).__name__
            fields["error"] = self._cleaner.message(error)
            fields["traceback"] = self._cleaner.traceback(error)
        action = None
        if isinstance(line, Line):
            fields, action = {**fields, **line.fields}, line.action
        return _Entry(
            text=text,
            action=action,
            fields=fields,
            labels={**context, **event_dict},
            logger=logger,
            at=time.time() if at is None else at,
        )


class Ecs(Renderer):
    """Writes a line as JSON in the field names of the Elastic Common Schema."""

    def __init__(self, cleaner: Cleaner) -> None:
        super().__init__(cleaner)
        self._complete = StructlogFormatter().format_to_ecs
        # Made once, and used once for a line: the library's own writing of one takes both for
        # each of four parts of it, after a walk through all parts to expand dotted names.
        self._encode = json.JSONEncoder(separators=(",", ":")).encode

    def _write(self, entry: _Entry, limits: _Limits, level: str) -> str:
        text = self._cleaner.text(self._cleaner.write(entry.text), limits.text)
        document: dict[str, Any] = {
            "@timestamp": f"{_second(int(entry.at))}.{int(entry.at % 1 * 1000):03d}Z",
            "log.level": level,
            "message": text,
            "service": _SERVICE,
        }
        self._fill(document, entry, limits)
        return self._encode(self._complete(document))

    def _fill(self, document: dict[str, Any], entry: _Entry, limits: _Limits) -> None:
        parts: defaultdict[str, dict[str, Any]] = defaultdict(dict)
        ours, clean = {}, self._cleaner.value
        for name, value in entry.fields.items():
            if name in _ECS:
                group, member = _ECS[name]
                parts[group][member] = clean(value, limits)
            elif name not in _CONVERTED:
                ours[name] = clean(value, limits)
        if ours:
            document["cronrunner"] = ours
        for group, member, value in self._converted(entry, limits):
            parts[group][member] = value
        document.update(parts)
        if entry.labels:
            document["labels"] = self._labels(entry.labels, limits)

    def _converted(self, entry: _Entry, limits: _Limits) -> Iterable[tuple[str, str, Any]]:
        """Give what ECS wants otherwise than the line has it."""
        fields = entry.fields
        if entry.action is not None:
            yield "event", "action", entry.action
        if entry.logger is not None:
            yield "log", "logger", entry.logger
        if "outcome" in fields:
            yield "event", "outcome", "success" if fields["outcome"] in WELL else "failure"
        if "duration_seconds" in fields:
            yield "event", "duration", round(fields["duration_seconds"] * 1e9)
        if "traceback" in fields:
            text = self._cleaner.text(fields["traceback"], limits.traceback)
            yield "error", "stack_trace", text
        if "error" in fields and "error_type" not in fields:
            found = _ERROR_TYPE.match(fields["error"])
            if found:
                yield "error", "type", found[1]

    def _labels(self, labels: Mapping[str, Any], limits: _Limits) -> dict[str, Any]:
        """Return labels as ECS wants them: flat. What has parts becomes a text of JSON."""
        flat = self._cleaner.value(labels, limits)
        return {
            name: clip(json.dumps(value), limits.text) if isinstance(value, dict | list) else value
            for name, value in flat.items()
        }


class Console(Renderer):
    """Writes a line for people."""

    def __init__(self, cleaner: Cleaner, *, colors: bool) -> None:
        super().__init__(cleaner)
        self._format = structlog.dev.ConsoleRenderer(
            colors=colors,
            # The default would print the locals of every frame.
            exception_formatter=structlog.dev.plain_traceback,
            sort_keys=False,
        )

    def _write(self, entry: _Entry, limits: _Limits, level: str) -> str:
        fields = dict(entry.fields)
        traceback = fields.pop("traceback", None)
        if isinstance(fields.get("duration_seconds"), float):
            fields["duration_seconds"] = round(fields["duration_seconds"], 3)
        labels = {
            f"labels_{name}" if name in fields or name in _CONSOLE_KEYS else name: value
            for name, value in entry.labels.items()
        }
        clean = self._cleaner.value
        shown = {
            **clean(labels, limits),
            **{name: clean(value, limits) for name, value in fields.items()},
            "event": clean(entry.text, limits),
            "level": level,
            "timestamp": time.strftime("%H:%M:%S", time.localtime(entry.at)),
        }
        if entry.logger:
            shown["logger"] = entry.logger
        if traceback:
            shown["exception"] = self._cleaner.text(traceback, limits.traceback)
        return self._format(None, level, shown)


@lru_cache(maxsize=4)
def _second(at: int) -> str:
    """Write the second of many lines."""
    return time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(at))


def _escape(found: re.Match[str]) -> str:
    return found[0].encode("unicode_escape").decode("ascii")


def _is_number(value: object) -> bool:
    """Tell whether JSON and the stores behind it can hold ``value`` as a number."""
    if isinstance(value, int):
        return -_INT64 <= value < _INT64
    return isinstance(value, float) and math.isfinite(value)


def _exception(exc_info: object) -> BaseException | None:
    """Return the exception that a call to a logger means by ``exc_info``."""
    match exc_info:
        case BaseException():
            return exc_info
        case (_, BaseException() as error, _):
            return error
        case None | False | (_, None, _):
            return None
        case _:
            return sys.exception()
