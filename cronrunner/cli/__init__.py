"""The command line: parse, call ``app``, render.

Commands import what they need when they run: ``cronrunner --help`` pays for click alone.
"""

from __future__ import annotations

import gc
import os
import signal
import sys
import threading
from contextlib import suppress
from typing import NoReturn

import click

from cronrunner import __version__
from cronrunner.cli.commands import COMMANDS
from cronrunner.errors import ConfigError, CronrunnerError
from cronrunner.model import ExitCode

#: What a shell reports for a process that SIGINT ended.
_INTERRUPTED = 130
_STANDARD_ERROR = 2
#: Threads that do not keep the interpreter from ending.
_OUR_THREADS = ("MainThread", "visit-", "watchdog-", "ledger-", "log-", "metrics", "one-cpu")


class RunByDefault(click.Group):
    """A group whose command is ``run`` when none is named."""

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        """Put ``run`` in front of options that are not the group's own."""
        own = {name for option in self.get_params(ctx) for name in option.opts}
        if not args or (args[0].startswith("-") and args[0].partition("=")[0] not in own):
            args = ["run", *args]
        return super().parse_args(ctx, args)


@click.group(cls=RunByDefault, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(__version__, prog_name="cronrunner")
def cronrunner() -> None:
    """Visit every tenant database and run the jobs that are wanted there.

    Without a command: run. `cronrunner --tenant=X` runs all jobs on one tenant.

    Exit codes: 0 well; 1 some execution did not go well; 2 usage or configuration; 3 a live
    run holds all of the work; 4 discovery failed or shrank; 5 stopped by the limit of
    failures; 70 the runner failed; 75 drained by a signal with work left.
    """


for command in COMMANDS:
    cronrunner.add_command(command)


def main(args: list[str] | None = None) -> None:
    """Run the command line and exit with its code. Nothing ends in a traceback."""
    _end_as_init()
    _stand_in_for_closed_streams()
    # What a command imports, reads and plans is there until it ends. To look through all that for
    # garbage again and again is a third of its time; what lasts longer begins with it by itself.
    gc.disable()
    try:
        code = cronrunner.main(args=args, prog_name="cronrunner", standalone_mode=False)
    except click.ClickException as error:
        error.show()
        code = ExitCode.USAGE
    except (click.Abort, KeyboardInterrupt):
        code = _INTERRUPTED
    except ConfigError as error:
        for problem in error.problems:
            _complain(str(problem))
        code = ExitCode.USAGE
    except CronrunnerError as error:
        _complain(str(error))
        code = ExitCode.RUNNER
    except BrokenPipeError:
        # Whoever read our output has gone (`| head`); nothing is left to be said to him.
        # What is left in its buffer would be written once more at the end, and fail again.
        sys.stdout = None
        code = ExitCode.OK
    except Exception as error:  # noqa: BLE001 - the catch-all around main
        code = _crash(error)
    _leave(code if isinstance(code, int) else ExitCode.OK)


def _end_as_init() -> None:
    """Let SIGTERM end a process that is the first of its container, from the beginning on.

    The kernel gives such a process no signal that it has not asked for. A run takes over when
    there is something to drain.
    """
    if os.getpid() == 1:
        signal.signal(signal.SIGTERM, lambda *_: os._exit(ExitCode.DRAINED))


def _stand_in_for_closed_streams() -> None:
    """Let a stream that is closed from the beginning take everything, and give nothing.

    The work goes on without its lines; and the next file that is opened does not get them.
    """
    while (number := os.open(os.devnull, os.O_RDWR)) <= _STANDARD_ERROR:
        os.set_inheritable(number, True)
    os.close(number)
    for number, (name, mode) in enumerate((("stdin", "r"), ("stdout", "w"), ("stderr", "w"))):
        if getattr(sys, name) is None:
            stream = open(number, mode, encoding="utf-8", closefd=False)  # noqa: SIM115 - for good
            setattr(sys, name, stream)


def _leave(code: int) -> NoReturn:
    """End the process, also when a thread that a job has started does not end.

    The interpreter would wait for it for ever, for those of a pool even if they are daemons;
    everything of ours is written by now.
    """
    if any(not each.name.startswith(_OUR_THREADS) for each in threading.enumerate()):
        for stream in (sys.stdout, sys.stderr):
            with suppress(AttributeError, OSError, ValueError):
                stream.flush()
        os._exit(code)
    # The interpreter looks for garbage once more at its end, in all that was ever imported.
    gc.freeze()
    sys.exit(code)


def _complain(text: str) -> None:
    click.echo(f"cronrunner: {text}", err=True)


def _crash(error: Exception) -> int:
    """Report a mistake of the runner itself, without values that may be secrets or rows."""
    from cronrunner.databases import describe  # noqa: PLC0415
    from cronrunner.redaction import Redactor, format_traceback, secret_values  # noqa: PLC0415

    redactor = Redactor(secret_values(os.environ, ()))
    _complain("the runner itself failed:\n" + format_traceback(error, describe, redactor))
    return ExitCode.RUNNER
