"""Every command with its options. Their work is done by modules that are imported then."""

from __future__ import annotations

from datetime import datetime
from typing import Any

import click

from cronrunner.cli.options import (
    Duration,
    Instant,
    config_option,
    json_option,
    limit_options,
    selection_options,
    values_option,
)

_OUTCOMES = (
    "succeeded", "failed", "timed_out", "stuck", "skipped", "cancelled", "interrupted",
    "tenant_gone",
)  # fmt: skip


@click.command()
@click.argument("jobs", nargs=-1, metavar="[JOB]...")
@selection_options
@click.option(
    "--scheduled-at",
    type=Instant(),
    envvar="CRONRUNNER_SCHEDULED_AT",
    help="The slot: the time for which this was scheduled. One slot is done once.",
)
@click.option("--dry-run", is_flag=True, help="Roll everything back, and say what was changed.")
@click.option("--again", is_flag=True, help="Repeat a slot that is done, on purpose.")
@click.option("--resume", metavar="RUN", help="Do what an earlier run has left; `last` is one.")
@click.option("--only-failed", metavar="RUN", help="Repeat what did not go well in a run.")
@values_option
@click.option("--alert", is_flag=True, help="Let jobs alert on failure, whatever is configured.")
@limit_options
@config_option
@json_option
def run(**asked: Any) -> int:  # noqa: ANN401 - the options above
    """Run all jobs, or those named, on all tenants, now.

    A JOB is a name, a glob, or the last part of a name.
    """
    from cronrunner.cli.running import run_now  # noqa: PLC0415 - see the module

    return run_now(**asked)


@click.command()
@click.argument("jobs", nargs=-1, metavar="[JOB]...")
@selection_options
@click.option(
    "--scheduled-at",
    type=Instant(),
    envvar="CRONRUNNER_SCHEDULED_AT",
    help="The moment that the trigger was for. It decides what is due, not the clock.",
)
@limit_options
@config_option
@json_option
def due(**asked: Any) -> int:  # noqa: ANN401 - the options above
    """Run what is due: of each job and tenant the newest slot that is not done.

    A JOB is a name, a glob, or the last part of a name.
    """
    from cronrunner.cli.running import run_now  # noqa: PLC0415 - see the module

    return run_now(**asked, due=True)


@click.command()
@click.argument("jobs", nargs=-1, metavar="[JOB]...")
@selection_options
@click.option("--why", is_flag=True, help="Also show what is left out, and why.")
@values_option
@config_option
@json_option
def plan(**asked: Any) -> int:  # noqa: ANN401 - the options above
    """Show what a run would do, in which order, and run nothing."""
    from cronrunner.cli.plans import show_plan  # noqa: PLC0415 - see the module

    return show_plan(**asked)


@click.command()
@click.argument("jobs", nargs=-1, metavar="[JOB]...")
@config_option
@json_option
def jobs(**asked: Any) -> int:  # noqa: ANN401 - the options above
    """Show the jobs that there are, or all that is to know of those named.

    A JOB is a name, a glob, or the last part of a name.
    """
    from cronrunner.cli.inspecting import show_jobs  # noqa: PLC0415 - see the module

    return show_jobs(**asked)


@click.command()
@selection_options
@config_option
@json_option
def tenants(**asked: Any) -> int:  # noqa: ANN401 - the options above
    """Show the tenants that there are, and how their last executions went."""
    from cronrunner.cli.inspecting import show_tenants  # noqa: PLC0415 - see the module

    return show_tenants(**asked)


@click.command()
@click.option("--job", metavar="NAME", help="Only this job. Globs.")
@click.option("--tenant", metavar="NAME", help="Only this tenant. Globs.")
@click.option(
    "--outcome", "outcomes", multiple=True, type=click.Choice(_OUTCOMES), help="Only these."
)
@click.option("--since", type=Instant(), help="Started at or after this time.")
@click.option("--until", type=Instant(), help="Started before this time.")
@click.option(
    "--limit", type=click.IntRange(min=1), default=50, show_default=True, help="At most so many."
)
@click.option("--runs", is_flag=True, help="Show runs, not executions.")
@config_option
@json_option
def history(  # noqa: PLR0913 - the options above
    config: str | None,
    *,
    as_json: bool,
    runs: bool,
    limit: int,
    job: str | None,
    tenant: str | None,
    outcomes: tuple[str, ...],
    since: datetime | None,
    until: datetime | None,
) -> int:
    """Show what was done, newest first."""
    from cronrunner.cli.remembering import show_history  # noqa: PLC0415 - see the module
    from cronrunner.ledger import ExecutionFilter  # noqa: PLC0415

    wanted = ExecutionFilter(
        job=job, tenant=tenant, outcomes=outcomes, since=since, until=until, limit=limit
    )
    return show_history(config, wanted, runs=runs, as_json=as_json)


@click.command()
@click.argument("run", metavar="RUN")
@click.option("--job", metavar="NAME", help="Only this job. Globs.")
@click.option("--tenant", metavar="NAME", help="Only this tenant. Globs.")
@click.option("--all", "everything", is_flag=True, help="Also what went well.")
@config_option
@json_option
def show(**asked: Any) -> int:  # noqa: ANN401 - the options above
    """Show one run: its outcomes, its failures by cause. RUN is an id, or `last`."""
    from cronrunner.cli.remembering import show_run  # noqa: PLC0415 - see the module

    return show_run(**asked)


@click.command()
@click.argument("statement", metavar="STATEMENT")
@selection_options
@click.option(
    "--timeout", type=Duration(), default="30s", show_default=True, help="Limit for each tenant."
)
@click.option(
    "--limit",
    type=click.IntRange(min=1),
    default=1000,
    show_default=True,
    help="Rows that are shown of each tenant.",
)
@click.option("--concurrency", type=click.IntRange(min=1), help="Tenants at the same time.")
@click.option("--write", is_flag=True, help="Allow changes, and commit them.")
@click.option("--yes", is_flag=True, help="With --write: do not ask.")
@click.option("--csv", "as_csv", is_flag=True, help="Print comma-separated values.")
@config_option
@json_option
def sql(**asked: Any) -> int:  # noqa: ANN401 - the options above
    """Execute one STATEMENT on all tenants, or on those chosen, and print one table.

    It may only read, unless --write is there. The ledger knows nothing of it.
    """
    from cronrunner.cli.querying import ask_tenants  # noqa: PLC0415 - see the module

    return ask_tenants(**asked)


@click.command()
@click.option("--job", metavar="NAME", help="This job; its last part will do. No globs.")
@click.option("--tenant", metavar="NAME", help="This tenant. No globs.")
@click.option("--server", metavar="NAME", help="All tenants on this server. No globs.")
@click.option("--reason", metavar="TEXT", help="Why: shown wherever something is skipped for it.")
@click.option("--until", type=Instant(), help="When the pause ends by itself.")
@click.option("--for", "after", type=Duration(), help="Let the pause end by itself after so long.")
@config_option
@json_option
def pause(**asked: Any) -> int:  # noqa: ANN401 - the options above
    """Let runs skip a job, a tenant, a server or a pair; alone: show what is paused.

    Each name narrows the others: a job and a tenant are that job on that tenant.
    """
    from cronrunner.cli.pausing import pause_or_show  # noqa: PLC0415 - see the module

    return pause_or_show(**asked)


@click.command()
@click.option("--job", metavar="NAME", help="The job of the pause.")
@click.option("--tenant", metavar="NAME", help="The tenant of the pause.")
@click.option("--server", metavar="NAME", help="The server of the pause.")
@config_option
@json_option
def unpause(**asked: Any) -> int:  # noqa: ANN401 - the options above
    """End a pause, which is named as it was when it began."""
    from cronrunner.cli.pausing import unpause_named  # noqa: PLC0415 - see the module

    return unpause_named(**asked)


@click.command()
@click.option("--keep", type=Duration(), help="Keep so long. Default: `ledger.keep`.")
@config_option
@json_option
def prune(**asked: Any) -> int:  # noqa: ANN401 - the options above
    """Remove old history from the ledger; each run does a little of it."""
    from cronrunner.cli.pruning import prune_now  # noqa: PLC0415 - see the module

    return prune_now(**asked)


@click.command()
@click.option("--connect", is_flag=True, help="Also connect to servers and ledger, and discover.")
@click.option("--print-schema", is_flag=True, help="Print the JSON Schema of tenants.yaml.")
@config_option
@json_option
def check(**asked: Any) -> int:  # noqa: ANN401 - the options above
    """Show all mistakes and warnings of the configuration and the jobs; run nothing."""
    from cronrunner.cli.checking import check_all  # noqa: PLC0415 - see the module

    return check_all(**asked)


@click.command()
@click.option("--host", default="127.0.0.1", show_default=True, help="Address to listen on.")
@click.option(
    "--port",
    type=click.IntRange(0, 65535),
    default=9464,
    show_default=True,
    help="Port to listen on.",
)
@config_option
def serve(config: str | None, host: str, port: int) -> int:
    """Answer /metrics and /health from the ledger, until stopped."""
    from cronrunner.cli.serving import serve_metrics  # noqa: PLC0415 - see the module

    return serve_metrics(config, host, port)


@click.command()
@click.argument("folder", default=".", type=click.Path(file_okay=False))
def init(folder: str) -> int:
    """Write a first tenants.yaml, a job and its test into FOLDER; nothing is overwritten."""
    from cronrunner.cli.starting import write_starter  # noqa: PLC0415 - see the module

    return write_starter(folder)


@click.group()
def logs() -> None:
    """Read log files."""


@logs.command()
@click.argument(
    "paths",
    nargs=-1,
    required=True,
    metavar="PATH...",
    type=click.Path(exists=True, allow_dash=True),
)
@json_option
def summary(**asked: Any) -> int:  # noqa: ANN401 - the options above
    """Show how often each job ran and failed, and its last error.

    A PATH is a log file of JSON, compressed or not, a folder of them, or - for stdin.
    """
    from cronrunner.cli.logs import summarize  # noqa: PLC0415 - see the module

    return summarize(**asked)


@click.command()
@click.argument("what", type=click.Choice(["job"]))
@click.argument("name")
@click.option("--sql", is_flag=True, help="Write a file of SQL instead of Python.")
@config_option
def new(what: str, name: str, *, sql: bool, config: str | None) -> int:
    """Write a job called NAME, such as billing.remind, and a test for it.

    Both pass as they are. Nothing is overwritten.
    """
    from cronrunner.cli.creating import write_job  # noqa: PLC0415 - see the module

    del what
    return write_job(name, sql=sql, config=config)


COMMANDS = (
    run, due, plan, jobs, tenants, history, show, pause, unpause, sql, prune, logs, check, serve,
    init, new,
)  # fmt: skip
