"""``cronrunner init``: a configuration and a job to begin with."""

from __future__ import annotations

from pathlib import Path
from typing import Final

import click

from cronrunner.cli.creating import JOB_FOLDER, job_files, write_new
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

# Tenants that are SQLite files, one each in a folder beside this file:
#  files:
#    url: sqlite://
#    discover:
#      directory: var/tenants
#      pattern: "*.db"
"""


def write_starter(folder: str) -> int:
    """Write the files; raises ``ConfigError`` if one is there already, and writes none."""
    project = Path(folder)
    first = job_files("first.ping", project, JOB_FOLDER, sql=False)
    write_new({project / "tenants.yaml": _CONFIG, **first})
    click.echo("next: set DB_PASSWORD, change the server's url, then: cronrunner check --connect")
    click.echo("and a job of your own: cronrunner new job billing.remind")
    return ExitCode.OK
