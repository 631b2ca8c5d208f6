"""The general log of a MySQL or MariaDB server."""

import re
from collections.abc import Iterator
from dataclasses import dataclass

_LOG_LINE = re.compile(
    # MariaDB says the time once a second, MySQL in each line.
    r"^(?:\d{6}\s+\d{1,2}:\d\d:\d\d|[\d-]+T[\d:.]+Z)?\t\s*(?P<thread>\d+) (?P<command>[A-Z][\w ]*)\t(?P<argument>.*)$"
)


@dataclass(frozen=True, slots=True, kw_only=True)
class LogEntry:
    """One line of the general log: what one connection sent."""

    thread: int
    command: str  # Connect, Query, Init DB, Quit, Prepare, Execute, Reset connection, ...
    argument: str


def parse_general_log(text: str) -> Iterator[LogEntry]:
    """Yield entries; a line that begins none continues the statement before it."""
    begun: re.Match[str] | None = None
    argument: list[str] = []
    for line in text.split("\n"):
        match = _LOG_LINE.match(line)
        if match is None:
            argument.append(line)
            continue
        if begun is not None:
            yield _entry(begun, argument)
        begun, argument = match, [match["argument"]]
    if begun is not None:
        yield _entry(begun, argument)


def _entry(begun: re.Match[str], argument: list[str]) -> LogEntry:
    return LogEntry(
        thread=int(begun["thread"]),
        command=begun["command"],
        argument="\n".join(argument).rstrip("\n"),
    )
