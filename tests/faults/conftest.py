"""Faults again and again, at random moments: a few times in each test run, many with `--long`.

A test that is marked `repeated(few, many)` asks for `repetition`, whose dice choose the moment; what
is counted with a tally is summed up at the end of the run.
"""

import random
from collections import Counter, defaultdict
from collections.abc import Iterator
from dataclasses import dataclass

import pytest

from tests.servers import MariaDB

_TALLY = "tally"


class Tally:
    """What has happened in one repetition of a fault."""

    def __init__(self, properties: list[tuple[str, object]]) -> None:
        self._properties = properties

    def add(self, fault: str, **counts: int) -> None:
        """Count what is summed up over all repetitions: `rows_written=3`."""
        self._properties.append((_TALLY, ["sum", fault, counts]))

    def highest(self, fault: str, **values: int) -> None:
        """Note what is compared over all repetitions."""
        self._properties.append((_TALLY, ["highest", fault, values]))


@pytest.fixture
def tally(request: pytest.FixtureRequest) -> Tally:
    """Count what happens; properties of a test reach the terminal from another process, too."""
    return Tally(request.node.user_properties)


@pytest.fixture
def long(request: pytest.FixtureRequest) -> bool:
    """Tell whether there is time for more than a few repetitions."""
    return bool(request.config.getoption("--long"))


@dataclass(frozen=True)
class Repetition:
    """One time that a fault is done."""

    number: int
    #: Other ones for each test; `--randomly-seed` repeats them.
    dice: random.Random
    tally: Tally
    #: Whether there is time for more than a few repetitions.
    long: bool


@pytest.fixture
def repetition(request: pytest.FixtureRequest, tally: Tally, long: bool) -> Repetition:
    seed = request.config.getoption("randomly_seed")
    dice = random.Random(f"{seed} {request.node.nodeid}")
    return Repetition(request.param, dice, tally, long)


@pytest.fixture(scope="module")
def own_prefix(mariadb: MariaDB, request: pytest.FixtureRequest) -> Iterator[str]:
    """Give a beginning for the names of what all repetitions share."""
    own = "fault_" + request.module.__name__.rpartition("test_")[2] + "_"
    yield own
    mariadb.drop_databases(own)


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    marker = metafunc.definition.get_closest_marker("repeated")
    if marker is not None:
        times = max(_times(marker, metafunc.config), 1)
        metafunc.parametrize("repetition", range(times), indirect=True)


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    markers = {item: item.get_closest_marker("repeated") for item in items}
    left_out = [item for item, marker in markers.items() if marker and not _times(marker, config)]
    if left_out:
        config.hook.pytest_deselected(items=left_out)
        items[:] = [item for item in items if item not in left_out]


def _times(marker: pytest.Mark, config: pytest.Config) -> int:
    times: int = marker.kwargs["many" if config.getoption("--long") else "few"]
    return times


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    counts: defaultdict[str, Counter[str]] = defaultdict(Counter)
    for reports in terminalreporter.stats.values():
        for report in reports:
            for name, value in getattr(report, "user_properties", []):
                if name == _TALLY and report.when == "call":
                    _fold(counts, *value)
    if counts:
        terminalreporter.section("faults")
    for fault in sorted(counts):
        told = (f"{count:,} {what.replace('_', ' ')}" for what, count in counts[fault].items())
        terminalreporter.line(f"{fault}: {', '.join(told)}")


def _fold(
    counts: defaultdict[str, Counter[str]], how: str, fault: str, values: dict[str, int]
) -> None:
    for what, value in values.items():
        before = counts[fault][what]
        counts[fault][what] = before + value if how == "sum" else max(before, value)
