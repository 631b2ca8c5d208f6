"""The demo's commands: ``python -m demo init``, ``lock`` and ``show``."""

from __future__ import annotations

import contextlib
import functools
import sys
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final

import click

from cronrunner.model import parse_duration
from demo.configuration import PASSWORD, write_configuration
from demo.files import Places, make_files
from demo.planting import plant, scene_of
from demo.show import Demo, show_mariadb, show_sqlite
from demo.stores import open_store
from demo.tenants import Defect, DemoTenant, fleet
from demo.terminal import ROOT, URL_VARIABLE

_AT: Final = "2026-03-01T00:00Z"
_URL: Final = f"sqlite:///{ROOT / 'var/demo/tenants'}"
#: The fleet that `tenants.yaml` describes.
_COUNT: Final = 24

_Command = Callable[..., Any]


@dataclass(frozen=True, slots=True, kw_only=True)
class _Fleet:
    tenants: tuple[DemoTenant, ...]
    seed: int
    at: datetime
    #: Whether the shipped configuration fits it.
    is_shipped: bool


def _takes_fleet(command: _Command) -> _Command:
    """Add the options that say which fleet, and give the command the fleet."""

    @functools.wraps(command)
    def call(
        *,
        tenants: int,
        seed: int,
        at: datetime,
        defects: Mapping[str, Defect],
        **rest: Any,  # noqa: ANN401 - the command's own
    ) -> Any:  # noqa: ANN401 - whatever the command returns
        try:
            planned = fleet(tenants, defects)
        except ValueError as error:
            raise click.BadParameter(str(error), param_hint="--defects") from error
        is_shipped = tenants == _COUNT and not defects
        made = _Fleet(tenants=planned, seed=seed, at=at, is_shipped=is_shipped)
        return command(fleet=made, **rest)

    kinds = ", ".join(Defect)
    for option in (
        click.option("--tenants", default=_COUNT, type=click.IntRange(1), show_default=True),
        click.option("--seed", default=1, show_default=True),
        click.option("--at", default=_AT, callback=_instant, show_default=True),
        click.option("--defects", multiple=True, callback=_defects, help=f"NAME=KIND: {kinds}."),
    ):
        call = option(call)
    return call


def _instant(_: click.Context, __: click.Parameter, value: str) -> datetime:
    try:
        moment = datetime.fromisoformat(value)
    except ValueError as error:
        msg = f"expected an instant such as {_AT}, got {value!r}"
        raise click.BadParameter(msg) from error
    return moment.replace(tzinfo=moment.tzinfo or UTC).astimezone(UTC)


def _defects(_: click.Context, __: click.Parameter, given: tuple[str, ...]) -> dict[str, Defect]:
    try:
        return {name: Defect(kind) for name, _, kind in (each.partition("=") for each in given)}
    except ValueError as error:
        msg = f"expected NAME=KIND with a kind of {', '.join(Defect)}: {error}"
        raise click.BadParameter(msg) from error


_takes_url = click.option(
    "--url", default=_URL, envvar=URL_VARIABLE, show_envvar=True,
    help="sqlite:///folder or mysql+pymysql://user:password@host:port.",
)  # fmt: skip


@click.group(help="A believable fleet of tenants, some of them broken on purpose.")
def main() -> None:
    pass


@main.command()
@_takes_fleet
@_takes_url
@click.option("--config", type=click.Path(path_type=Path), help="Write a tenants.yaml here.")
@click.option(
    "--files",
    default=ROOT / "var/demo",
    type=click.Path(path_type=Path),
    help="Make backups, log files and what others publish here.",
)
def init(fleet: _Fleet, url: str, config: Path | None, files: Path) -> None:
    """Make the databases and files, in place of those of the same names."""
    places = Places(files.absolute())
    scenes = (scene_of(tenant, seed=fleet.seed, at=fleet.at) for tenant in fleet.tenants)
    make_files(places, scenes, fleet.at)
    for tenant in plant(open_store(url), fleet.tenants, seed=fleet.seed, at=fleet.at):
        print(f"{tenant.name:<16} {tenant.zone:<20} {tenant.defect.meaning}", flush=True)
    if config:
        write_configuration(config, url, fleet.tenants, places)
        print(f"Wrote {config}, which takes a server's password from ${PASSWORD}")


@main.command()
@click.argument("names", metavar="NAME...", nargs=-1, required=True)
@_takes_url
@click.option("--table", default="work_items", show_default=True)
@click.option("--for", "duration", default="60s", show_default=True, help="Such as 60s or 5m.")
def lock(names: tuple[str, ...], url: str, table: str, duration: str) -> None:
    """Hold a lock on tenants, so that jobs which write there fail."""
    store = open_store(url)
    with contextlib.ExitStack() as locks:
        for name in names:
            locks.enter_context(store.lock(name, table))
            print(f"{name} is locked", flush=True)
        time.sleep(parse_duration(duration).total_seconds())


@main.command()
@_takes_fleet
@click.option("--mariadb", is_flag=True, help="On a private MariaDB instead of SQLite files.")
@click.option("--folder", type=click.Path(path_type=Path), help="Where files are made.")
@click.option("--sabotage", multiple=True, help="Break this tenant without telling the plan.")
def show(fleet: _Fleet, *, mariadb: bool, folder: Path | None, sabotage: tuple[str, ...]) -> None:
    """Make a fleet, run cronrunner on it, and hold what happened against what was planted."""
    uses_shipped = fleet.is_shipped and not mariadb and folder is None
    demo = Demo(
        folder=(folder or ROOT / "var" / ("demo-mariadb" if mariadb else "demo")).absolute(),
        tenants=fleet.tenants,
        seed=fleet.seed,
        at=fleet.at,
        config=ROOT / "tenants.yaml" if uses_shipped else None,
        sabotaged=sabotage,
    )
    went_as_planned = show_mariadb(demo) if mariadb else show_sqlite(demo)
    sys.exit(0 if went_as_planned else 1)


if __name__ == "__main__":
    main(prog_name="python -m demo")
