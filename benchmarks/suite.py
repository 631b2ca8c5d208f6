"""What is compared with what, and what is wanted of it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

from benchmarks import alternatives
from benchmarks.alternatives import CELERY, CLASSIC, RAW_POOL
from benchmarks.fleet import Fleet
from benchmarks.jobs import MANY, WAIT_SECONDS, Work, least_seconds, skewed_seconds
from benchmarks.modes import Mode, Modes
from benchmarks.tables import Ratio, Wanted
from benchmarks.ways import Cronrunner, Section, Way, ideal, loop

_PER_TENANT = "tenants/s"
_WAITING_THREADS = 16
_SKEWED_THREADS = 8
#: Tenants whose jobs wait.
_WAITING = 400
_FEWEST = 20
#: Runs on a few tenants, of which the middle one counts.
_STARTS = 3


@dataclass(frozen=True, slots=True, kw_only=True)
class Suite:
    """Makes the sections of the table."""

    fleet: Fleet
    #: The same, with TLS.
    encrypted: Fleet
    modes: Modes
    #: Of Redis; ``None`` if Celery is not installed.
    broker: str | None
    quick: bool
    say: Callable[[str], None]

    def sections(self) -> list[Section]:
        """Return them all; the best numbers of threads are found meanwhile."""
        starts = 1 if self.quick else _STARTS
        plain, encrypted = Cronrunner(self.fleet, starts), Cronrunner(self.encrypted, starts)
        one = Work(jobs="bench.count", tenants=len(self.fleet.tenants))
        many = Work(jobs="many.*", tenants=self._part(4), each=MANY)
        known = self.modes
        few = (known.fresh, known.reset, known.best_two)
        modes = self._tuned(plain, one, few if self.quick else known.all)
        best = [mode for mode in modes if mode.key in {known.best.key, known.best_two.key}]
        return [
            self._one_job(plain, one, modes),
            # There is no time for finding more of the best numbers.
            self._with_tls(
                encrypted, one, best if self.quick else self._tuned(encrypted, one, known.all)
            ),
            self._many_jobs(
                plain, many, best if self.quick else self._tuned(plain, many, known.all)
            ),
            self._waiting(plain, best[:1] if self.quick else modes[:2]),
            self._skewed(plain, best[:1] if self.quick else modes[:2]),
            self._computing(plain, best),
        ]

    def _part(self, share: int) -> int:
        return max(len(self.fleet.tenants) // share, _FEWEST)

    def _tuned(self, runner: Cronrunner, work: Work, modes: Sequence[Mode]) -> list[Mode]:
        tries = 1 if self.quick else 2
        return [mode.tuned(runner, work, tries, self.say) for mode in modes]

    def _one_job(self, runner: Cronrunner, work: Work, modes: Sequence[Mode]) -> Section:
        ways = [mode.way(runner, "one", work) for mode in modes]
        if self.quick:
            ways = [*alternatives.essential(self.fleet), *ways]
        else:
            (best,) = (mode.setting for mode in modes if mode.key == self.modes.best.key)
            scattered = runner.way("one scattered", work, replace(best, one_cpu=False))
            ways = [*alternatives.every(self.fleet, self.broker), *ways, scattered]
            ways += self._alone("engines-reset", "`reset`, 8 threads", work, threads=8)
            ways += self._alone("engines-fresh", "`fresh`, 8 threads", work, threads=8)
        return Section(
            title=f"{work.tenants:,} tenants, one `SELECT COUNT(*)` each",
            unit=_PER_TENANT,
            ways=ways,
            ratios=_ratios_of_one_job(work.tenants),
        )

    def _alone(self, key: str, how: str, work: Work, *, threads: int) -> list[Way]:
        """Return sessions and engines without a runner, if there is time for them."""
        name, tenants = f"its sessions and engines alone, {how}", work.tenants
        way = loop(key, name, self.fleet, tenants=tenants, threads=threads, each=work.each)
        return [] if self.quick else [way]

    def _with_tls(self, runner: Cronrunner, work: Work, modes: Sequence[Mode]) -> Section:
        name = "raw PyMySQL, connect per tenant, one shared SSLContext, 8 threads"
        pool = loop("raw-tls", name, self.encrypted, tenants=work.tenants, threads=8)
        return Section(
            title=f"the same {work.tenants:,} tenants with TLS required",
            unit=_PER_TENANT,
            ways=[pool, *(mode.way(runner, "tls", work) for mode in modes)],
            ratios=[
                _ratio("TLS, `reset` / raw pool", "tls reset", pool.key, 2.5),
                _ratio("TLS, `reset`, 2 processes / raw pool", "tls reset 2", pool.key),
                _ratio("TLS, `fresh` / raw pool", "tls fresh", pool.key),
            ],
        )

    def _many_jobs(self, runner: Cronrunner, work: Work, modes: Sequence[Mode]) -> Section:
        name = "raw PyMySQL, connect per tenant, commit after each statement, 8 threads"
        pool = loop("raw-many", name, self.fleet, tenants=work.tenants, threads=8, each=work.each)
        alone = self._alone("engines-many", "`reset`, 8 threads", work, threads=8)
        return Section(
            title=f"{work.tenants:,} tenants, {work.each} jobs each; per execution",
            unit="executions/s",
            ways=[pool, *(mode.way(runner, "many", work) for mode in modes), *alone],
            ratios=[
                _ratio("20 jobs, `reset` / raw pool", "many reset", pool.key, 0.55),
                _ratio("20 jobs, `reset`, 2 processes / raw pool", "many reset 2", pool.key, 0.8),
                _ratio("20 jobs, `fresh` / raw pool", "many fresh", pool.key),
                _ratio("20 jobs, its engines alone / raw pool", "engines-many 8", pool.key),
            ],
        )

    def _waiting(self, runner: Cronrunner, modes: Sequence[Mode]) -> Section:
        work = Work(jobs="bench.wait", tenants=min(len(self.fleet.tenants), _WAITING))
        seconds = work.tenants * WAIT_SECONDS / _WAITING_THREADS
        name = f"ideal: {_WAITING_THREADS} threads that wait all the time"
        bound = ideal("waiting ideal", name, count=work.tenants, seconds=seconds)
        modes = [mode.with_threads(_WAITING_THREADS) for mode in modes]
        how = f"`reset`, {_WAITING_THREADS} threads"
        alone = self._alone("engines-waiting", how, work, threads=_WAITING_THREADS)
        return Section(
            title=f"{work.tenants:,} tenants, {WAIT_SECONDS * 1000:g} ms at the server each",
            unit=_PER_TENANT,
            ways=[bound, *(mode.way(runner, "waiting", work) for mode in modes), *alone],
            ratios=[
                _ratio("waiting jobs, `reset` / ideal", "waiting reset", bound.key, 0.93),
                _ratio("waiting jobs, `fresh` / ideal", "waiting fresh", bound.key, 0.93),
                _ratio(
                    "waiting jobs, its engines alone / ideal",
                    f"engines-waiting {_WAITING_THREADS}",
                    bound.key,
                ),
            ],
        )

    def _skewed(self, runner: Cronrunner, modes: Sequence[Mode]) -> Section:
        work = Work(jobs="bench.skewed", tenants=min(len(self.fleet.tenants), _WAITING))
        seconds = least_seconds(skewed_seconds(work.tenants), _SKEWED_THREADS)
        name = f"lower bound of {_SKEWED_THREADS} threads"
        bound = ideal("skewed bound", name, count=work.tenants, seconds=seconds)
        modes = [mode.with_threads(_SKEWED_THREADS) for mode in modes]
        for mode in modes:
            if not mode.absent:
                # The order comes from what earlier runs took.
                self.fleet.run(work, mode.setting)
        return Section(
            title=f"{work.tenants:,} tenants, skewed jobs, history known",
            unit=_PER_TENANT,
            ways=[bound, *(mode.way(runner, "skewed", work) for mode in modes)],
            ratios=[
                _ratio("skewed jobs, `reset` / bound", "skewed reset", bound.key, 0.92),
                _ratio("skewed jobs, `fresh` / bound", "skewed fresh", bound.key, 0.92),
            ],
        )

    def _computing(self, runner: Cronrunner, modes: Sequence[Mode]) -> Section:
        work = Work(jobs="bench.compute", tenants=self._part(2))
        one, two = (mode.way(runner, "computing", work) for mode in modes)
        return Section(
            title=f"{work.tenants:,} tenants, 2 ms of Python each",
            unit=_PER_TENANT,
            ways=[one, two],
            ratios=[_ratio("2 ms of Python, 2 processes / 1", two.key, one.key, 1.7)],
        )


def _ratios_of_one_job(whole: int) -> list[Ratio]:
    return [
        _ratio("`reset` / raw pool", "one reset", RAW_POOL, 1.3),
        _ratio("`fresh` / raw pool", "one fresh", RAW_POOL, 0.7),
        _ratio("`reset`, 2 processes / raw pool", "one reset 2", RAW_POOL, 2.2),
        _ratio("`fresh`, 2 processes / raw pool", "one fresh 2", RAW_POOL),
        _ratio("`reset`, its engines alone / raw pool", "engines-reset 8", RAW_POOL),
        _ratio("`fresh`, its engines alone / raw pool", "engines-fresh 8", RAW_POOL),
        _ratio("`reset` / classic loop", "one reset", CLASSIC, 45),
        _ratio("`fresh` / classic loop", "one fresh", CLASSIC, 25),
        _ratio("`reset` / Celery on Redis", "one reset", CELERY, 4),
        _ratio("`fresh` / Celery on Redis", "one fresh", CELERY, 4),
        _ratio("`reset` / raw pool, whole processes", "one reset", RAW_POOL, whole=whole),
        _ratio("`reset`, 2 processes / raw pool, whole", "one reset 2", RAW_POOL, whole=whole),
        _ratio("`fresh` / raw pool, whole processes", "one fresh", RAW_POOL, whole=whole),
        _ratio("`fresh` / classic loop, whole processes", "one fresh", CLASSIC, whole=whole),
    ]


def _ratio(
    name: str,
    above: str,
    below: str | tuple[str, ...],
    at_least: float | None = None,
    *,
    whole: int | None = None,
) -> Ratio:
    wanted = None if at_least is None else Wanted(at_least=at_least)
    below = (below,) if isinstance(below, str) else below
    return Ratio(name=name, above=above, below=below, wanted=wanted, whole=whole)
