"""Sends every line of the process through one renderer to one stream."""

from __future__ import annotations

import logging
import os
import sys
import threading
from collections import deque
from collections.abc import Callable
from contextlib import suppress
from contextvars import Context, copy_context
from typing import Final, Literal, TextIO

import structlog
from structlog.contextvars import bind_contextvars, clear_contextvars, get_contextvars
from structlog.stdlib import ProcessorFormatter
from structlog.typing import EventDict, FilteringBoundLogger, Processor, WrappedLogger

from cronrunner.logs import lines
from cronrunner.logs.rendering import EXECUTION, Cleaner, Console, Ecs
from cronrunner.model import Request, Tenant
from cronrunner.redaction import Redactor

Format = Literal["auto", "json", "console"]

#: How long a line that may wait does so for others.
_LINGER_SECONDS: Final = 0.05

#: Bytes that a pipe takes in one piece, on Linux.
_PIECE: Final = 4096

#: Below a warning they log statements and rows, or what no operator asks for.
_QUIET_LIBRARIES: Final = ("alembic", "asyncio", "sqlalchemy", "urllib3")


def configure(
    *,
    format: Format,  # noqa: A002 - the word of tenants.yaml
    level: str,
    redactor: Redactor,
    describe: Callable[[BaseException], str],
    stream: TextIO | None = None,
) -> None:
    """Send every log line of this process, of libraries and warnings as well, to one stream.

    ``auto`` writes for people when the stream is a terminal, and JSON otherwise. ``level`` is
    ``debug``, ``info``, ``warning`` or ``error``. ``describe`` writes an exception in one line
    without row values. Without a ``stream``, lines go to what ``sys.stderr`` is when they are
    written, so that a progress bar may stand in between. May be called again.
    """
    output = Output(stream)
    cleaner = Cleaner(redactor, describe)
    for_people = format == "console" or (format == "auto" and output.is_terminal())
    render: Processor = (
        Console(cleaner, colors=output.is_terminal() and "NO_COLOR" not in os.environ)
        if for_people
        else Ecs(cleaner)
    )
    structlog.configure(
        processors=[render],
        wrapper_class=structlog.make_filtering_bound_logger(level),
        logger_factory=lambda *_: output,
        cache_logger_on_first_use=False,
    )
    _take_over_logging(_Handler(output, render), level)
    _take_over_hooks()


class bound:  # noqa: N801 - a function to whoever uses it
    """Put the words of an attempt on every line that this thread logs meanwhile.

    What a job binds for itself with ``structlog.contextvars`` ends with the attempt.
    """

    __slots__ = ("_before", "_execution", "_outer")

    def __init__(self, request: Request, tenant: Tenant) -> None:
        self._execution = request, tenant.server

    def __enter__(self) -> None:
        self._before = get_contextvars()
        if self._before:
            clear_contextvars()
        self._outer = EXECUTION.get()
        EXECUTION.set(self._execution)

    def __exit__(self, *_: object) -> None:
        EXECUTION.set(self._outer)
        clear_contextvars()
        if self._before:
            bind_contextvars(**self._before)


def job_logger() -> FilteringBoundLogger:
    """Return the logger that a job is given; its fields become ``labels``."""
    logger: FilteringBoundLogger = structlog.get_logger().bind()
    return logger


def rendered_lines() -> Callable[[str], None]:
    """Return what writes lines that another process of the run has rendered."""
    return _output().write


def flush() -> None:
    """Write the lines that wait for others: nothing may come after this."""
    _output().flush()


def soon() -> Callable[[Callable[[], None]], None]:
    """Return what has a line written a moment later, but before any that is written by then."""
    return _output().later


def _output() -> Output:
    """Return what ``configure`` has made."""
    output: Output = structlog.get_config()["logger_factory"]()
    return output


def line_writer() -> Callable[[lines.Line, float | None], None]:
    """Return what writes a line of the product, with its time if that was not just now.

    It does what the logger does, but for what the logger does for others: a line in each execution
    is worth the difference.
    """
    log, output = job_logger(), _output()
    (render,) = structlog.get_config()["processors"]
    levels = logging.getLevelNamesMapping()
    heard = {name.lower() for name, level in levels.items() if log.is_enabled_for(level)}

    def write(line: lines.Line, at: float | None) -> None:
        if line.level in heard:
            output.write(render(log, line.level, {"event": line.text, "_line": line, "_at": at}))

    return write


def request_logger() -> Callable[[str], None]:
    """Return what notes a request to the metrics server."""
    log = job_logger()
    return lambda text: lines.write(log, lines.request_served(text))


class Output:
    """A stream that may be full, closed or gone: the work goes on without its lines."""

    def __init__(self, stream: TextIO | None) -> None:
        self._stream = stream
        # A signal handler may log while the same thread is in the middle of a line.
        self._lock = threading.RLock()
        #: What writes a line each, and the context in which it is to do so.
        self._later: deque[tuple[Context, Callable[[], None]]] = deque()
        #: A thread is about to write them.
        self._is_due = False
        #: The lines of those, while they are being made.
        self._made: list[str] | None = None

    def write(self, line: str) -> None:
        """Write ``line``, unharmed by other threads, behind all that was to be written later."""
        with self._lock:
            if self._made is not None:
                self._made.append(line)
            else:
                self._put([*self._make(), line])

    debug = info = warning = error = critical = write

    def later(self, write: Callable[[], None]) -> None:
        """Have ``write`` called soon, by another thread and with others of its like.

        A line that is made among others costs half of what it costs a thread that comes from its
        database, and the thread is free for the next one.
        """
        self._later.append((copy_context(), write))
        if not self._is_due:
            self._is_due = True
            timer = threading.Timer(_LINGER_SECONDS, self._write_due)
            timer.name, timer.daemon = "log-writer", True
            try:
                timer.start()
            except RuntimeError:  # there can be no more threads: the next line takes it along
                self._is_due = False

    def flush(self) -> None:
        """Write what was to be written later."""
        with self._lock:
            if lines := self._make():
                self._put(lines)

    def _write_due(self) -> None:
        with self._lock:
            # What is added from now on has a thread of its own; no more than one waits here, for
            # as long as the stream takes nothing.
            self._is_due = False
            self.flush()

    def _make(self) -> list[str]:
        """Make the lines of what waits. The caller holds the lock."""
        if not self._later:
            return []
        lines: list[str] = []
        self._made = lines
        try:
            while self._later:
                context, write = self._later.popleft()
                try:
                    context.run(write)
                except Exception as error:  # noqa: BLE001 - whoever writes next did nothing wrong
                    kind = type(error).__name__
                    lines.append(f"cronrunner: a line could not be made: {kind}")
        finally:
            self._made = None
        return lines

    def _put(self, lines: list[str]) -> None:
        """Write lines, as many at once as arrive in one piece among those of other processes."""
        stream = self._stream or sys.stderr
        piece: list[str] = []
        size = 0
        for line in lines:
            # In characters: lines of JSON are ASCII.
            if piece and size + len(line) >= _PIECE:
                _write_piece(stream, piece)
                piece, size = [], 0
            piece.append(f"{line}\n")
            size += len(line) + 1
        _write_piece(stream, piece)

    def is_terminal(self) -> bool:
        """Tell whether people read the stream."""
        try:
            return (self._stream or sys.stderr).isatty()
        except ValueError:  # it is closed
            return False


def _write_piece(stream: TextIO, lines: list[str]) -> None:
    with suppress(OSError, ValueError, RuntimeError):
        stream.write("".join(lines))
        stream.flush()


class _Handler(logging.Handler):
    """Brings the lines of libraries to the product's renderer."""

    def __init__(self, output: Output, render: Processor) -> None:
        super().__init__()
        self._output = output
        self.setFormatter(
            ProcessorFormatter(
                foreign_pre_chain=[_name_logger],
                processors=[ProcessorFormatter.remove_processors_meta, render],
            )
        )

    def emit(self, record: logging.LogRecord) -> None:
        """Write ``record``; what is wrong with a library's call to its logger stays here."""
        try:
            self._output.write(self.format(record))
        except (TypeError, ValueError, KeyError) as error:
            # logging's own answer would print the arguments, whatever they hold.
            record.msg, record.args = f"a log call with wrong arguments: {error}", ()
            self._output.write(self.format(record))


def _name_logger(_: WrappedLogger, __: str, event_dict: EventDict) -> EventDict:
    event_dict["_logger"] = event_dict["_record"].name
    return event_dict


def _take_over_logging(handler: logging.Handler, level: str) -> None:
    root = logging.getLogger()
    root.handlers[:] = [handler]
    root.setLevel(level.upper())
    for name in _QUIET_LIBRARIES:
        logging.getLogger(name).setLevel(max(logging.WARNING, root.level))
    logging.captureWarnings(capture=True)


def _take_over_hooks() -> None:
    """Write what nothing caught as a line, without locals; by default it would go out raw."""
    log = job_logger()

    def write(place: str, error: BaseException | None) -> None:
        if error is not None:
            lines.write(log, lines.uncaught(place), error)

    def in_thread(args: threading.ExceptHookArgs) -> None:
        if args.exc_type is not SystemExit:
            write(args.thread.name if args.thread else "a thread", args.exc_value)

    sys.excepthook = lambda _type, error, _traceback: write("the main thread", error)
    sys.unraisablehook = lambda args: write("a finaliser", args.exc_value)
    threading.excepthook = in_thread
