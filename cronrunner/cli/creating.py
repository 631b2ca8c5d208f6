"""``cronrunner new``: a job and its test, which pass as they are and wait to be changed."""

from __future__ import annotations

import keyword
import os
import re
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from string import Template
from typing import Final

import click

from cronrunner.errors import ConfigError, Problem
from cronrunner.model import ExitCode

_NAME: Final = re.compile(r"[a-z][a-z0-9_]*(\.[a-z][a-z0-9_]*)?")
#: The width of a job's name in tenants' tables.
_NAME_LIMIT: Final = 80
#: Where jobs are unless `tenants.yaml` says otherwise.
JOB_FOLDER: Final = "jobs"

_PYTHON: Final = Template('''\
"""$title: say here what these jobs are about."""

from datetime import timedelta

from cronrunner import Option, job


@job(
    schedule="0 2 * * *",
    timeout="5m",
    options={"days": Option(30, minimum=1, help="how far it looks back")},
)
def $function(ctx):
    """Say in a line what it does; this one counts the days and changes nothing."""
    # Decide by the slot and not by the clock, and leave out what is done: a slot may be run twice.
    since = ctx.slot - timedelta(days=ctx.options["days"])
    found = ctx.execute("SELECT :since AS since", since=since).one()
    ctx.log.info("looked back", since=str(found.since))
    return {"days": ctx.options["days"]}
''')

_SQL: Final = Template("""\
-- name: $name
-- schedule: 0 2 * * *
-- timeout: 5m
-- option: days = 30, minimum 1, how far it looks back
-- Say in a line what it does; this one finds one row and changes nothing.

-- counter: found
SELECT :slot AS slot, :days AS days;
""")

_TEST: Final = Template('''\
"""$name, on a tenant that is thrown away."""

from pathlib import Path

from cronrunner.testing import assert_idempotent, throwaway_tenant

PROJECT = Path(__file__).resolve().parents[1]

# Its first argument is what tables there are: SQLAlchemy's MetaData, SQL text, or a file of it.
tenant = throwaway_tenant(jobs=PROJECT / "$folder")


def test_$function(tenant):
    assert tenant.run("$name") == $counters


def test_${function}_takes_its_option(tenant):
    assert tenant.run("$name", days=7) == $with_option


def test_${function}_changes_nothing_when_a_slot_is_run_twice(tenant):
    assert_idempotent(tenant, "$name")
''')


def write_job(name: str, *, sql: bool, config: str | None) -> int:
    """Write the job and its test; raises ``ConfigError`` if one is there, and writes none."""
    _check_name(name)
    project, folder = _project(config)
    files = job_files(name, project, folder, sql=sql)
    path, _ = files
    write_new(files, _in_the_way(path, name, sql=sql))
    click.echo(f"next: change both, run pytest, then: cronrunner run {name} --tenant=NAME")
    return ExitCode.OK


def _in_the_way(path: Path, name: str, *, sql: bool) -> Iterator[Problem]:
    """Say what else keeps a job from being written, and how it gets into a file that is there."""
    function = name.rpartition(".")[2]
    module = path.stem
    wanted = name if sql else f"{module}.{function}"
    if not path.parent.is_dir():
        return
    from cronrunner.cli.opening import stdout_for_results  # noqa: PLC0415 - who has no jobs pays nothing
    from cronrunner.registry.finding import find_jobs  # noqa: PLC0415 - as above

    with stdout_for_results():
        known = find_jobs(path.parent).jobs
    if wanted in known:
        yield Problem(text=f"there is a job {wanted} already, at {known[wanted].origin}")
    elif path.exists() and not sql:
        yield Problem(text=f"write it there by hand: @job above `def {function}(ctx):`")


def write_new(files: Mapping[Path, str], in_the_way: Iterable[Problem] = ()) -> None:
    """Write files that are not there yet. Raises ``ConfigError`` if one is, and writes none.

    So it does if anything is ``in_the_way``.
    """
    problems = [
        Problem(text=f"{path} is there already; nothing was written")
        for path in files
        if path.exists()
    ]
    problems += in_the_way
    if problems:
        raise ConfigError(problems)
    for path, text in files.items():
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, encoding="utf-8")
        click.echo(f"wrote {path}")


def _check_name(name: str) -> None:
    parts = name.split(".")
    reserved = [part for part in parts if keyword.iskeyword(part)]
    if reserved or _NAME.fullmatch(name) is None or len(name) > _NAME_LIMIT:
        text = f"expected a name such as billing.remind, in small letters, got {name!r}"
        if reserved:
            text += f", of which {reserved[0]} is a word of Python"
        raise ConfigError([Problem(text=text)])


def _project(config: str | None) -> tuple[Path, str]:
    """Return the project's folder, and the name of its folder of jobs there."""
    given = config or os.environ.get("CRONRUNNER_CONFIG") or "tenants.yaml"
    path = Path(given)
    if not path.is_file():
        return path.parent, JOB_FOLDER
    from cronrunner.config.document import read_document  # noqa: PLC0415 - only who has one pays

    return path.parent, str(read_document(path).data.get("job_folder", JOB_FOLDER))


def job_files(name: str, project: Path, folder: str, *, sql: bool) -> dict[Path, str]:
    """Return the files of a job and its test, with their texts."""
    module, _, function = name.rpartition(".")
    # A job of one part has a file of its own name.
    module = module or function
    words = {
        "name": name if sql else f"{module}.{function}",
        "title": module.replace("_", " ").capitalize(),
        "function": function,
        "folder": folder,
        "counters": '{"found": 1}' if sql else '{"days": 30}',
        "with_option": '{"found": 1}' if sql else '{"days": 7}',
    }
    flat = name.replace(".", "_")
    template, file = (_SQL, f"{flat}.sql") if sql else (_PYTHON, f"{module}.py")
    return {
        project / folder / file: template.substitute(words),
        project / "tests" / f"test_{flat}.py": _TEST.substitute(words),
    }
