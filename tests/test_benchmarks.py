"""The benchmarks run, on a handful of tenants; what they measure is nobody's promise."""

from collections.abc import Iterator
from contextlib import closing
from fnmatch import fnmatchcase
from pathlib import Path

import pytest

from benchmarks.fleet import Fleet, Setting, first
from benchmarks.jobs import Work, least_seconds, write_jobs
from benchmarks.measuring import Sample
from benchmarks.tables import Ratio, Row, Wanted, table
from benchmarks.ways import Cronrunner, loop
from tests.servers import MariaDB

pytestmark = pytest.mark.mariadb_alone("they start a MariaDB of their own")

NAMES = tuple(f"bench_{number:04d}" for number in range(20))


@pytest.fixture
def fleet(mariadb: MariaDB, tmp_path: Path) -> Iterator[Fleet]:
    schema = ("CREATE TABLE items (id INT PRIMARY KEY)", "INSERT INTO items VALUES (1), (2), (3)")
    mariadb.create_databases(NAMES, *schema)
    (tmp_path / "jobs").mkdir()
    write_jobs(tmp_path / "jobs", NAMES)
    with closing(mariadb.connect()) as status:
        yield Fleet(server=mariadb, tls=False, folder=tmp_path, tenants=NAMES, status=status)
    mariadb.drop_databases("bench_")


def test_cronrunner_is_measured_without_what_its_start_costs(fleet: Fleet) -> None:
    work = Work(jobs="bench.count", tenants=20)

    sample = Cronrunner(fleet).measure(work, Setting(threads=2))

    assert sample.count == 20
    assert 0 < sample.seconds < sample.whole_seconds
    # Its statement, its commit, and little else.
    assert 2 <= sample.statements_each <= 5


@pytest.mark.parametrize(
    ("key", "statements"), [("dialect", 5), ("raw-pipelined", 3), ("engines-fresh", 3)]
)
def test_loops_send_what_the_table_says(fleet: Fleet, key: str, statements: int) -> None:
    sample = loop(key, key, fleet, tenants=20, threads=1).measure()

    assert sample.count == 20
    assert abs(sample.statements_each - statements) < 1


def test_a_setting_that_is_not_there_is_told(fleet: Fleet) -> None:
    assert not fleet.accepts(Setting(connections="never"))


@pytest.mark.parametrize("count", [1, 20, 400, 437, 2000, 9999])
def test_globs_for_the_first_tenants_match_no_others(count: int) -> None:
    globs = first(count)
    names = [f"bench_{number:04d}" for number in range(10_000)]

    assert [any(fnmatchcase(name, glob) for glob in globs) for name in names] == [
        number < count for number in range(10_000)
    ]


def test_the_table_has_medians_spreads_and_what_is_met() -> None:
    rounds = [
        {"a": Sample(count=10, seconds=n), "b": Sample(count=10, seconds=2)} for n in (1, 2, 4)
    ]
    ratio = Ratio(name="a / b", above="a", below=("b",), wanted=Wanted(at_least=1.1))

    assert table([ratio.row(rounds, absent="")]).splitlines()[-1] == (
        "| a / b | 1.00 times | 0.500 .. 2.00 |  |  | 1.1 or more | **no** |"
    )
    assert (
        str(ratio.row([], absent="not there")) == "| a / b | not there |  |  |  | 1.1 or more |  |"
    )
    assert str(Row(name="c", values=(3.0,), wanted=Wanted(at_most=5))).endswith(
        "| 5 or less | yes |"
    )


def test_the_start_of_a_process_is_paid_once() -> None:
    sample = Sample(count=100, seconds=2.0, cpu_seconds=1.1, whole_seconds=3.0)

    assert sample.whole_rate(200) == 40.0
    start = Sample(count=10, seconds=0.2, cpu_seconds=0.2)
    assert sample.without(start).cpu_milliseconds == pytest.approx(10.0)


def test_no_order_beats_the_longest_job() -> None:
    assert least_seconds([1.0, 1.0, 1.0, 1.0], 2) == 2.0
    assert least_seconds([5.0, 1.0], 2) == 5.0
