"""Jobs that are executable ``.sh`` files with a header of comments."""

from __future__ import annotations

import os
import re
import shutil
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

from cronrunner.errors import JobFileError, Problem
from cronrunner.model import Job
from cronrunner.registry.declaration import Declaration
from cronrunner.registry.header import KEYS, Header, build_job, read_header

_SHEBANG: Final = "#!"
#: As the kernel reads it: a carriage return is a part of the name.
_INTERPRETER: Final = re.compile(r"#![ \t]*([^ \t\n]+)")


@dataclass(frozen=True, slots=True, kw_only=True)
class Script:
    """The body of a ``.sh`` job."""

    path: Path
    #: Where the paths of SQLite files begin.
    folder: Path = Path()
    #: Texts that no variable of the script may hold.
    withheld: frozenset[str] = field(default=frozenset(), repr=False)

    def __call__(self, ctx: Any) -> None:  # noqa: ANN401 - a JobContext, a layer above
        """Run it, as ``shell`` says."""
        from cronrunner.shell import run_script  # noqa: PLC0415 - only who runs a script pays

        run_script(ctx, self.path, folder=self.folder, withheld=self.withheld)


def load_script(path: Path) -> Iterator[Job | Problem]:
    """Give the job of a file, or a warning why it is none.

    A file without a header is one that others read. Raises ``JobFileError`` with all that is wrong.
    """
    try:
        content = path.read_bytes().decode("utf-8")
        first, *lines = content.splitlines() or [""]
    except (OSError, UnicodeDecodeError) as error:
        raise JobFileError([Problem(text=str(error), file=path.name)]) from error
    begins = first.startswith(_SHEBANG)
    header = read_header(
        enumerate(lines if begins else [first, *lines], start=2 if begins else 1),
        file=path.name,
        mark="#",
        keys=KEYS,
    )
    is_executable = os.access(path, os.X_OK)
    if not header.is_there:
        if is_executable:
            yield _warning(path, "has no header such as `# name: billing.remind`, and is no job")
        return
    if not is_executable:
        yield _warning(path, f"is not executable, and no job: chmod +x {path.name}")
        return
    if not begins:
        header.complain("expected a first line such as #!/bin/sh, which says what runs it", 1)
    yield _built(path, header)
    if (interpreter := _INTERPRETER.match(content)) and shutil.which(interpreter[1]) is None:
        text = f"cannot be started here: {interpreter[1]!r} in its first line is not there"
        yield _warning(path, text)


def _warning(path: Path, text: str) -> Problem:
    return Problem(text=text, file=path.name)


def _built(path: Path, header: Header) -> Job:
    declaration = Declaration(
        **header.declared,
        options=header.options,
        # It has a process of its own already, and no transaction of the runner's.
        isolation="thread",
        transaction="none",
        # No warning: it could not say otherwise.
        effects="repeatable",
    )
    return build_job(header, declaration, call=Script(path=path), path=path)
