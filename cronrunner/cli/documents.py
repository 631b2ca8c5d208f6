"""The JSON documents: their keys are an interface."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterable, Mapping
from datetime import datetime
from typing import Any, Final

from cronrunner.model import WELL, Outcome

SCHEMA: Final = 1
#: Above this many executions only those that did not go well are listed.
EXECUTIONS_LIMIT: Final = 10_000

#: A longer list is not indented, which takes ten times as long.
_INDENTED: Final = 1000

Document = dict[str, Any]


def write(document: Any) -> None:  # noqa: ANN401 - what JSON can hold
    """Print one document on stdout. A long list has a line for each of its members."""
    if isinstance(document, list) and len(document) > _INDENTED:
        encode = json.JSONEncoder(default=_text, ensure_ascii=False).encode
        sys.stdout.write("[\n")
        sys.stdout.writelines(f"{encode(each)},\n" for each in document[:-1])
        sys.stdout.write(f"{encode(document[-1])}\n]\n")
        return
    json.dump(document, sys.stdout, default=_text, ensure_ascii=False, indent=2)
    sys.stdout.write("\n")


def _text(value: object) -> str:
    return iso(value) if isinstance(value, datetime) else str(value)


def iso(moment: datetime) -> str:
    """Write an instant as in slot keys: ``2026-03-01T02:00:00Z``."""
    return moment.isoformat().replace("+00:00", "Z")


def execution(row: Mapping[str, Any], *, with_run: bool = False) -> Document:
    """Make the document of one execution."""
    names = ("job", "tenant", "server", "slot", "outcome", "reason", "error", "attempts")
    times = ("started_at", "duration_seconds", "counters", "note")
    head = {"run": row["run"]} if with_run else {}
    only_dry = tuple(name for name in ("rows_changed",) if name in row)
    return head | {name: row[name] for name in (*names, *times, *only_dry)}


def run_document(  # noqa: PLR0913 - the keys of the interface
    *,
    run: str | None,
    scheduled_at: datetime | None,
    exit_code: int | None,
    duration_seconds: float,
    tenants: int,
    outcomes: Mapping[str, int],
    duplicates: int,
    errors: Iterable[str],
    causes: Iterable[Mapping[str, Any]],
    executions: Iterable[Mapping[str, Any]],
    dry_run: bool = False,
) -> Document:
    """Make the document of a run."""
    total = sum(outcomes.values())
    document: Document = {
        "schema": SCHEMA,
        "run": run,
        "scheduled_at": scheduled_at,
        "exit_code": exit_code,
        "duration_seconds": duration_seconds,
        "tenants": tenants,
        "outcomes": dict(outcomes),
        "duplicates": duplicates,
        "errors": list(errors),
        "causes": list(causes),
    }
    if dry_run:
        document["dry_run"] = True
    if total > EXECUTIONS_LIMIT:
        executions = (row for row in executions if Outcome(row["outcome"]) not in WELL)
        document["executions_truncated"] = True
    document["executions"] = [execution(row) for row in executions]
    return document
