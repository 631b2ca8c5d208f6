"""``cronrunner jobs JOB``: all that there is to know of a job, as a page of Markdown."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any

from cronrunner.model import Effects, Job, Option, Scope, Transaction, format_duration
from cronrunner.registry.description import Description, read_description
from cronrunner.schedule import TENANT_ZONE, in_words


def page_of(job: Job, values: Mapping[str, Any] | None = None) -> str:
    """Write the page of a job: what it does, when, with which options, and what it counts.

    ``values`` are those that its options have here.
    """
    said = read_description(job.description)
    parts = [f"# {job.name}", said.summary, said.body, _table(("", ""), _facts(job, said))]
    if job.options:
        parts += ["## Options", _options(job, values)]
    if said.counters:
        rows = ((f"`{name}`", meaning) for name, meaning in said.counters.items())
        parts += ["## Counters", _table(("counter", "what it counts"), rows)]
    return "\n\n".join(part for part in parts if part) + "\n"


def overview_of(jobs: Iterable[Job], link: Callable[[Job], str]) -> str:
    """Write a table with a row for each job; ``link`` says where its page is."""
    said = {job.name: read_description(job.description) for job in jobs}
    rows = (
        (
            f"[`{job.name}`]({link(job)})",
            _when(job),
            said[job.name].summary.removesuffix("."),
            said[job.name].origin,
        )
        for job in jobs
    )
    return _table(("job", "schedule", "does", "comes from"), rows) + "\n"


def _when(job: Job) -> str:
    zone = "" if job.timezone == "UTC" else f", {_zone(job)}"
    scope = ", once for the fleet" if job.scope is Scope.FLEET else ""
    return f"{_slots(job)}{zone}{scope}"


def _facts(job: Job, said: Description) -> Iterator[tuple[str, str]]:
    yield "schedule", _schedule(job)
    if not job.enabled:
        yield "enabled", "no: it runs only when it is named"
    if job.scope is Scope.FLEET:
        yield "scope", "once for the whole fleet"
    yield "timeout", format_duration(job.timeout)
    if job.retry.attempts > 1:
        yield "attempts", f"{job.retry.attempts}, when the database was the cause or the job asks"
    if job.transaction is Transaction.BATCH:
        yield "transaction", "each batch commits together with how far it is"
    if job.transaction is Transaction.NONE:
        yield "transaction", "the job commits for itself"
    if job.exactly_once:
        yield "exactly once", "a slot is marked in the tenant's own database"
    if job.effects is not Effects.DATABASE:
        yield "dry run", "left out: it does what no rollback undoes"
    yield "file", f"`{job.origin.rpartition(':')[0]}`"
    if said.origin:
        yield "comes from", said.origin


def _schedule(job: Job) -> str:
    if job.schedule is None:
        return _slots(job)
    return f"{_slots(job)}, {_zone(job)}: {in_words(job.schedule)}"


def _zone(job: Job) -> str:
    return "the tenant's zone" if job.timezone == TENANT_ZONE else job.timezone


def _slots(job: Job) -> str:
    if job.every is not None:
        return f"every {format_duration(job.every)}"
    return "none" if job.schedule is None else f"`{job.schedule}`"


def _options(job: Job, values: Mapping[str, Any] | None) -> str:
    columns = ("option", "default", *(() if values is None else ("here",)), "meaning")
    rows = (
        (
            f"`{name}`",
            _value(option.default),
            *(() if values is None else (_value(values[name]),)),
            _meaning(option),
        )
        for name, option in job.options.items()
    )
    return _table(columns, rows)


def _value(value: object) -> str:
    match value:
        case bool():
            return f"`{str(value).lower()}`"
        case tuple() | list():
            return f"`{','.join(map(str, value))}`" if value else "none"
        case _:
            return f"`{value}`" if str(value) else "none"


def _meaning(option: Option) -> str:
    parts = [option.help]
    if option.choices:
        parts.append("one of " + ", ".join(f"`{choice}`" for choice in option.choices))
    if option.minimum is not None:
        parts.append(f"at least {option.minimum:g}")
    if option.maximum is not None:
        parts.append(f"at most {option.maximum:g}")
    if option.environment is not None:
        parts.append(f"environment `{option.environment}`")
    return "; ".join(part for part in parts if part)


def _table(columns: Iterable[str], rows: Iterable[Iterable[str]]) -> str:
    heads = list(columns)
    lines = [heads, ["---"] * len(heads), *(list(row) for row in rows)]
    return "\n".join("|" + "|".join(map(_cell, line)) + "|" for line in lines)


def _cell(text: str) -> str:
    # A bar would end the cell.
    escaped = text.replace("|", r"\|")
    return text if text == "---" else f" {escaped} "
