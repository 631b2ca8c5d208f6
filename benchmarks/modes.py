"""What this version of cronrunner can do, and with how many threads it does it best."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

from benchmarks.fleet import Fleet, Setting
from benchmarks.jobs import Work
from benchmarks.ways import Cronrunner, Way

NOT_THERE = "not there"
_THREADS = (1, 2, 4, 8)
_PROCESSES = 2


@dataclass(frozen=True, slots=True, kw_only=True)
class Mode:
    """A setting that is compared, and why it is not if it is not."""

    #: Part of the keys of its ways.
    key: str
    setting: Setting
    absent: str = ""

    def with_threads(self, threads: int) -> Mode:
        """Return it with so many threads."""
        return replace(self, setting=replace(self.setting, threads=threads))

    def tuned(self, runner: Cronrunner, work: Work, tries: int, say: Callable[[str], None]) -> Mode:
        """Return it with the number of threads that is best for ``work``."""
        if self.absent:
            return self
        threads = [number * self.setting.processes for number in _THREADS]
        best = runner.best(work, self.setting, threads, tries)
        say(f"  best for {work.jobs}: {best}")
        return replace(self, setting=best)

    def way(self, runner: Cronrunner, part: str, work: Work) -> Way:
        """Return its way in a part of the table."""
        return runner.way(f"{part} {self.key}", work, self.setting, absent=self.absent)


@dataclass(frozen=True, slots=True, kw_only=True)
class Modes:
    """The settings that are compared."""

    fresh: Mode
    reset: Mode
    fresh_two: Mode
    reset_two: Mode

    @property
    def all(self) -> tuple[Mode, ...]:
        """Return them in the order of the table."""
        return self.fresh, self.reset, self.fresh_two, self.reset_two

    @property
    def best(self) -> Mode:
        """Return the faster one that is there, in one process."""
        return self.fresh if self.reset.absent else self.reset

    @property
    def best_two(self) -> Mode:
        """Return the same in two processes."""
        return self.fresh_two if self.reset.absent else self.reset_two


def find_modes(fleet: Fleet) -> Modes:
    """Ask `cronrunner check` which settings it accepts."""
    if not fleet.accepts(Setting()):
        raise RuntimeError("cronrunner check refuses the configuration without what is compared")
    # Before there was a choice, every session was a fresh one.
    fresh = (
        Setting(connections="fresh") if fleet.accepts(Setting(connections="fresh")) else Setting()
    )
    reset, two = Setting(connections="reset"), Setting(processes=_PROCESSES)
    no_reset, no_two = _absence(fleet, reset), _absence(fleet, two)
    return Modes(
        fresh=Mode(key="fresh", setting=fresh),
        reset=Mode(key="reset", setting=reset, absent=no_reset),
        fresh_two=Mode(key="fresh 2", setting=replace(fresh, processes=_PROCESSES), absent=no_two),
        reset_two=Mode(
            key="reset 2",
            setting=replace(reset, processes=_PROCESSES),
            absent=no_reset or no_two,
        ),
    )


def _absence(fleet: Fleet, setting: Setting) -> str:
    return "" if fleet.accepts(setting) else NOT_THERE
