"""Scripts: one attempt of a job that is an executable file.

The script is the leader of a process group of its own, without a terminal. It is told what it is to
do by environment variables; the password is in files that only its user can read and that are gone
when it has ended: neither a command line nor an environment, which ``ps`` shows, ever holds it.

==========================================  =================================================
what happens                                outcome
==========================================  =================================================
exit status 0                               ``succeeded``
75 (EX_TEMPFAIL)                            ``failed``, and worth repeating
77 (what test harnesses take for it)        ``skipped`` by the job
any other, a signal, it cannot be started   ``failed``, with the last line of its stderr
the deadline, or a drain                    TERM for its group, a second later KILL
it ends and leaves processes in its group   the same for those: a visit that is over is over
one of those keeps a pipe open              nobody waits for it
==========================================  =================================================

Its output is read as it comes, so that no pipe is ever full, and logged within limits.
"""

from __future__ import annotations

import os
import signal
from collections.abc import Iterable
from pathlib import Path
from typing import Any, Final

from cronrunner.errors import DeadlineError, Retry, ScriptError, Skip
from cronrunner.shell.environment import credentials, database, inherited, words
from cronrunner.shell.group import Group, Output

#: Statuses with a meaning.
RETRY: Final = 75
SKIP: Final = 77


def run_script(
    ctx: Any,  # noqa: ANN401 - a JobContext, a layer above
    path: Path,
    *,
    folder: Path = Path(),
    withheld: Iterable[str] = (),
) -> None:
    """Run the script at ``path`` on the tenant of a context.

    Paths of SQLite files begin at ``folder``; no variable of the script holds a text of
    ``withheld``. Raises ``ScriptError``, ``Retry``, ``Skip`` and ``DeadlineError``.
    """
    url = ctx.engine.url
    with credentials(url) as files:
        environment = {
            **inherited(os.environ, withheld),
            **words(ctx),
            **database(url, folder),
            **files,
        }
        group = Group(path, environment, Output(ctx.log))
        status = group.run(ctx.ending.is_set)
    if status is None:
        raise DeadlineError
    _judge(status, group.output)


def _judge(status: int, output: Output) -> None:
    """Raise what an exit status means."""
    last = output.last["stderr"] or output.last["stdout"]
    match status:
        case 0:
            return
        case _ if status == RETRY:
            raise Retry(last or f"the script asks for it by its exit status {RETRY}")
        case _ if status == SKIP:
            raise Skip(last or f"the script says so by its exit status {SKIP}")
    by = f"ended by {signal.Signals(-status).name}" if status < 0 else f"exit status {status}"
    said = output.last["stderr"]
    raise ScriptError(f"{by}: {said}" if said else by)
