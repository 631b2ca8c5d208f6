"""What is printed as a table, on a terminal and elsewhere."""

import json
from datetime import UTC, datetime

import pytest

from cronrunner.cli import documents
from cronrunner.cli.tables import print_table
from cronrunner.model import Outcome

COLUMNS = ("tenant", "seconds", "result")


def test_a_table_in_a_pipe_is_plain_and_its_cells_are_below_each_other(
    capsys: pytest.CaptureFixture[str],
) -> None:
    print_table(
        COLUMNS,
        [
            ("a[b]", 1.5, {"rows": 3, "left": 0}),
            ("Zürich-株式会社", 12.0, ""),
            (datetime(2026, 3, 1, 2, tzinfo=UTC), None, Outcome.FAILED),
        ],
    )

    assert capsys.readouterr().out.splitlines() == [
        "tenant               seconds  result",
        "a[b]                   1.500  rows=3 left=0",
        "Zürich-株式会社       12.000  -",
        "2026-03-01 02:00:00        -  failed",
    ]


def test_what_would_break_a_line_is_a_blank(capsys: pytest.CaptureFixture[str]) -> None:
    print_table(("one", "two"), [("a\nb", "\x1b[31mred\r")])

    assert capsys.readouterr().out.splitlines() == ["one  two", "a b   [31mred"]


def test_a_pipe_gets_every_row(capsys: pytest.CaptureFixture[str]) -> None:
    print_table(("n",), ((n,) for n in range(1000)), most=10)

    assert len(capsys.readouterr().out.splitlines()) == 1001


def test_a_terminal_gets_the_first_rows_and_how_many_more_there_are(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("FORCE_COLOR", "1")
    print_table(("n",), ((n,) for n in range(2000)), most=10)
    lines = capsys.readouterr().out.splitlines()

    assert len(lines) == 12
    assert lines[-1] == "... and 1,990 more; all are in a pipe, or with --json"


@pytest.mark.parametrize("members", [0, 1, 1000, 1001, 3000])
def test_a_list_of_any_length_is_one_document(
    capsys: pytest.CaptureFixture[str], members: int
) -> None:
    given = [{"tenant": f"é{n}", "at": datetime(2026, 3, 1, tzinfo=UTC)} for n in range(members)]
    documents.write(given)
    said = capsys.readouterr().out

    assert json.loads(said) == [
        {"tenant": f"é{n}", "at": "2026-03-01T00:00:00Z"} for n in range(members)
    ]
