"""What a script is told: by variables, and by files of which they are the paths."""

from __future__ import annotations

import fcntl
import os
import shutil
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, Final
from urllib.parse import quote

from cronrunner.model import format_instant

_PORT: Final = 3306
_MEMORY: Final = "/dev/shm"  # noqa: S108 - a folder of a name of its own is made there
_PREFIX: Final = "cronrunner-"
_LOCK: Final = "lock"
#: A secret that is shorter is taken out of the environment only where it is a whole value.
_WORD: Final = 4


def inherited(environ: Mapping[str, str], withheld: Iterable[str]) -> dict[str, str]:
    """Return the runner's own environment, without variables that hold a text of ``withheld``."""
    secrets = {form for each in withheld if each for form in (each, quote(each, safe=""))}
    return {
        name: value
        for name, value in environ.items()
        if value not in secrets
        and not any(len(each) >= _WORD and each in value for each in secrets)
    }


def database(url: Any, folder: Path) -> dict[str, str]:  # noqa: ANN401 - a SQLAlchemy URL
    """Say where the tenant's database is."""
    if url.get_backend_name() == "sqlite":
        path = (folder / (url.database or "")).absolute()
        return {"CRONRUNNER_KIND": "sqlite", "CRONRUNNER_DATABASE": str(path)}
    return {
        "CRONRUNNER_KIND": "mysql",
        "CRONRUNNER_DATABASE": url.database or "",
        "CRONRUNNER_HOST": url.host or "localhost",
        "CRONRUNNER_PORT": str(url.port or _PORT),
        "CRONRUNNER_USER": url.username or "",
    }


def words(ctx: Any) -> dict[str, str]:  # noqa: ANN401 - a JobContext, a layer above
    """Say what a context would say in Python."""
    return {
        "CRONRUNNER_JOB": ctx.job,
        "CRONRUNNER_TENANT": ctx.tenant.name,
        "CRONRUNNER_SERVER": ctx.tenant.server,
        "CRONRUNNER_TIMEZONE": ctx.tenant.timezone,
        "CRONRUNNER_SLOT": format_instant(ctx.slot),
        "CRONRUNNER_RUN": ctx.run,
        "CRONRUNNER_ATTEMPT": str(ctx.attempt),
        "CRONRUNNER_DRY_RUN": _written(ctx.dry_run),
        "CRONRUNNER_IDEMPOTENCY_KEY": ctx.idempotency_key,
        **{
            f"CRONRUNNER_OPTION_{name.upper()}": _written(value)
            for name, value in ctx.options.items()
        },
    }


def _written(value: object) -> str:
    if isinstance(value, bool):
        return "true" if value else "false"
    return ",".join(map(str, value)) if isinstance(value, tuple | list) else str(value)


@contextmanager
def credentials(url: Any) -> Iterator[Mapping[str, str]]:  # noqa: ANN401 - a SQLAlchemy URL
    """Keep the password in files as long as the context lasts; give variables with their names."""
    if url.get_backend_name() == "sqlite":
        yield {}
        return
    password = "" if url.password is None else str(url.password)
    options = {
        "host": url.host or "localhost",
        "port": str(url.port or _PORT),
        # The clients would take a socket for `localhost`.
        "protocol": "tcp",
        "user": url.username or "",
        "password": password,
    }
    lines = [f"{name}={_quoted(value)}\n" for name, value in options.items() if value]
    # In memory, if there is a place: nothing is left on a disk, which a container may not have.
    place = _MEMORY if os.access(_MEMORY, os.W_OK | os.X_OK) else None
    with (
        TemporaryDirectory(prefix=_PREFIX, dir=place, ignore_cleanup_errors=True) as folder,
        _held(Path(folder)),
    ):
        _sweep(Path(folder).parent)
        yield {
            "CRONRUNNER_PASSWORD_FILE": _secret_file(Path(folder, "password"), password),
            "CRONRUNNER_MYSQL_DEFAULTS": _secret_file(
                Path(folder, "my.cnf"), "".join(["[client]\n", *lines])
            ),
        }


@contextmanager
def _held(folder: Path) -> Iterator[None]:
    """Keep others from sweeping a folder as long as this process lives."""
    new = folder / "lock.new"
    # Scripts do not inherit it. Locked before it has its name: nobody finds it without.
    with new.open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        new.rename(folder / _LOCK)
        yield


def _sweep(place: Path) -> None:
    """Remove what runners have left there that were killed."""
    for lock in place.glob(f"{_PREFIX}*/{_LOCK}"):
        with suppress(OSError), lock.open() as left:
            fcntl.flock(left, fcntl.LOCK_EX | fcntl.LOCK_NB)
            shutil.rmtree(lock.parent)


def _quoted(value: str) -> str:
    """Write a value as option files of MySQL have it."""
    for char, written in (("\\", "\\\\"), ('"', '\\"'), ("\n", "\\n"), ("\r", "\\r")):
        value = value.replace(char, written)
    return f'"{value}"'


def _secret_file(path: Path, text: str) -> str:
    with os.fdopen(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w") as file:
        file.write(text)
    return str(path)
