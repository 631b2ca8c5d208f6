"""``cronrunner init``: a configuration and a job to begin with."""

from __future__ import annotations

from pathlib import Path
from typing import Final

import click

from cronrunner.errors import ConfigError, Problem
from cronrunner.model import ExitCode

_CONFIG: Final = """\
# What cronrunner visits. `cronrunner check` finds mistakes in this file.
ledger: sqlite:///var/ledger.db

servers:
  main:
    # A reference keeps the password out of this file.
    url: mysql+pymysql://cron:${DB_PASSWORD}@127.0.0.1:3306
    # The most connections that a run takes on this server.
    max_connections: 16
    discover:
      databases: "agency_*"
      exclude: ["agency_template"]
"""

_JOB: Final = '''\
"""The first job: it changes nothing and shows that every tenant can be reached."""

from sqlalchemy import text

from cronrunner import job


@job(schedule="0 2 * * *", timeout="1m")
def ping(ctx):
    """Ask the tenant's database for an answer."""
    ctx.connection.execute(text("SELECT 1")).scalar_one()
    return {"answers": 1}
'''


def write_starter(folder: str) -> int:
    """Write the files; raises ``ConfigError`` if one is there already, and writes none."""
    files = {
        Path(folder) / "tenants.yaml": _CONFIG,
        Path(folder) / "jobs" / "first.py": _JOB,
    }
    problems = [
        Problem(text=f"{path} is there already; choose an empty folder, or remove it")
        for path in files
        if path.exists()
    ]
    if problems:
        raise ConfigError(problems)
    for path, text in files.items():
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, encoding="utf-8")
        click.echo(f"wrote {path}")
    click.echo("next: set DB_PASSWORD, change the server's url, then: cronrunner check --connect")
    return ExitCode.OK
