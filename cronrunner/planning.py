"""Planning: which jobs on which tenants, in which order. Pure functions over words.

The order of visits: tenants that failed last go last; among the others the longest go first,
so that no long visit is left over at the end, and those that take equally long by name, since the
ledger writes neighbours for half of what it writes strangers for; servers are interleaved in
proportion to their number of visits, so that each is busy from the first moment to the last.

After a run that was drained, what it has left goes before all that, and of two tenants the one
that went well longer ago: if each run comes to a third of the fleet, three come to all of it.
"""

from __future__ import annotations

import difflib
import re
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from fnmatch import fnmatchcase, translate
from hashlib import blake2b
from heapq import merge
from itertools import product, starmap, zip_longest
from operator import itemgetter
from typing import Final

from cronrunner.errors import ConfigError, Problem
from cronrunner.model import (
    EMPTY,
    FLEET_TENANT,
    Job,
    LeftOut,
    Pair,
    Pause,
    Plan,
    Reason,
    Scope,
    SetAside,
    Tenant,
    TenantFilter,
    Visit,
)

_GLOB_CHARACTERS: Final = frozenset("*?[")
_NEAREST: Final = 3
#: Unknown tenants of which the nearest known ones are said.
_SAID: Final = 10
#: Visits whose expected times are in the same step of this length count as equally long.
_ALIKE_SECONDS: Final = 0.01
_NEVER: Final = datetime.min.replace(tzinfo=UTC)

#: Tells why a job does not run on a tenant, or is only recorded as skipped; ``None`` when it runs.
Veto = Callable[[Job, Tenant], str | None]


@dataclass(frozen=True, slots=True, kw_only=True)
class Selection:
    """What the command line asks for: globs, labels and a shard; empty means everything."""

    jobs: tuple[str, ...] = ()
    tenants: tuple[str, ...] = ()
    exclude_tenants: tuple[str, ...] = ()
    labels: Mapping[str, str] = field(default_factory=lambda: EMPTY)
    servers: tuple[str, ...] = ()
    #: (index from 0, count)
    shard: tuple[int, int] | None = None

    @property
    def narrows_tenants(self) -> bool:
        """Tell whether some tenants are left out on purpose: such a run is not the fleet's."""
        return bool(self.tenants or self.exclude_tenants or self.labels or self.servers)


def is_glob(pattern: str) -> bool:
    """Tell whether ``pattern`` holds a wildcard. An underscore is none."""
    return not _GLOB_CHARACTERS.isdisjoint(pattern)


def select_jobs(jobs: Mapping[str, Job], patterns: Sequence[str]) -> tuple[Job, ...]:
    """Return the enabled jobs, or those that ``patterns`` name: globs, names, last parts.

    A job named exactly is returned even if it is disabled. Raises ``ConfigError`` with every
    pattern that names none, or more than one by its last part.
    """
    if not patterns:
        return tuple(job for job in jobs.values() if job.enabled)
    chosen: dict[str, Job] = {}
    problems: list[Problem] = []
    for pattern in patterns:
        names = _match_jobs(jobs, pattern)
        if len(names) == 1 or (names and is_glob(pattern)):
            chosen |= {name: jobs[name] for name in names}
        elif names:
            text = f"job {pattern!r} is ambiguous: {', '.join(names)}; give the whole name"
            problems.append(Problem(text=text))
        else:
            problems.append(Problem(text=f"no job {pattern!r}; {nearest(pattern, jobs)}"))
    if problems:
        raise ConfigError(problems)
    return tuple(chosen.values())


def _match_jobs(jobs: Mapping[str, Job], pattern: str) -> list[str]:
    if pattern in jobs:
        return [pattern]
    if is_glob(pattern):
        return [name for name, job in jobs.items() if job.enabled and fnmatchcase(name, pattern)]
    return [name for name in jobs if name.rpartition(".")[2] == pattern]


def nearest(wanted: str, known: Iterable[str]) -> str:
    """Say which known names come nearest to ``wanted``."""
    names = {part: name for name in known for part in (name, name.rpartition(".")[2])}
    found = difflib.get_close_matches(wanted, names, n=_NEAREST, cutoff=0.5)
    close = list(dict.fromkeys(names[part] for part in found))
    if not close:
        return "no known name is near it"
    return f"the nearest {'is' if len(close) == 1 else 'are'} {', '.join(close)}"


def select_tenants(tenants: Sequence[Tenant], selection: Selection) -> tuple[Tenant, ...]:
    """Return the tenants that ``selection`` asks for.

    Raises ``ConfigError`` with every ``--tenant`` that matches none.
    """
    if selection.tenants and (problems := _unmatched(tenants, selection.tenants)):
        raise ConfigError(problems)
    wanted = Names(selection.tenants) if selection.tenants else None
    excluded = Names(selection.exclude_tenants)
    return tuple(
        tenant
        for tenant in tenants
        if (wanted is None or tenant.name in wanted)
        and tenant.name not in excluded
        and _wants(selection, tenant)
    )


def _unmatched(tenants: Sequence[Tenant], patterns: Sequence[str]) -> list[Problem]:
    """Return a problem for each pattern without a tenant; the first ones say what is near.

    To look for that takes longer than anything else here, and nobody reads it a thousand times.
    """
    names = dict.fromkeys(tenant.name for tenant in tenants)
    missing = [each for each in patterns if each not in names and not _any_matches(names, each)]
    near = [f"; {nearest(pattern, names)}" for pattern in missing[:_SAID]]
    return [
        Problem(text=f"no tenant {pattern!r}{said}")
        for pattern, said in zip_longest(missing, near, fillvalue="")
    ]


def _any_matches(names: Iterable[str], pattern: str) -> bool:
    globs = Names([pattern])
    return is_glob(pattern) and any(name in globs for name in names)


class Names:
    """Names and globs, to be compared with many names at the cost of one."""

    def __init__(self, patterns: Sequence[str]) -> None:
        self._exact = frozenset(patterns)
        globs = [translate(pattern) for pattern in patterns if is_glob(pattern)]
        self._globs = re.compile("|".join(globs)) if globs else None

    def __contains__(self, name: object) -> bool:
        """Tell whether ``name`` is one of the names, or matches one of the globs."""
        if name in self._exact:
            return True
        return self._globs is not None and self._globs.match(str(name)) is not None


def _matches(name: str, pattern: str) -> bool:
    return name == pattern or fnmatchcase(name, pattern)


def matches_any(name: str, patterns: Iterable[str]) -> bool:
    """Tell whether ``name`` is one of ``patterns``, or matches one."""
    return any(_matches(name, pattern) for pattern in patterns)


def _wants(selection: Selection, tenant: Tenant) -> bool:
    if selection.servers and not matches_any(tenant.server, selection.servers):
        return False
    if any(tenant.labels.get(key) != value for key, value in selection.labels.items()):
        return False
    return selection.shard is None or in_shard(tenant.name, *selection.shard)


def in_shard(name: str, index: int, count: int) -> bool:
    """Tell whether a tenant belongs to shard ``index`` of ``count``, by a stable hash."""
    digest = blake2b(name.encode(), digest_size=8).digest()
    return int.from_bytes(digest, "big") % count == index


def set_nothing_aside(job: Job, tenant: Tenant) -> str | None:
    """Let every pair be visited."""
    del job, tenant
    return None


def filter_veto(job: Job, tenant: Tenant) -> str | None:
    """Leave out tenants that the job's own filter does not want."""
    return None if _fits(job.tenants, tenant) else "not wanted by the job's tenants filter"


def _fits(wanted: TenantFilter, tenant: Tenant) -> bool:
    if any(tenant.labels.get(key) != value for key, value in wanted.labels.items()):
        return False
    return wanted.names == ("*",) or matches_any(tenant.name, wanted.names)


def pausing(pauses: Iterable[Pause]) -> Veto:
    """Return what sets aside whatever is paused; of several pauses the last to end says why.

    The fleet's tenant is on no server: only a pause of the whole job holds for it.
    """
    by_names = {pause.names: pause for pause in pauses}

    def setting_aside(job: Job, tenant: Tenant) -> str | None:
        if not by_names:
            return None
        # A pair may be named in eight ways, however many pauses there are.
        ways = product((job.name, ""), (tenant.name, ""), (tenant.server, ""))
        found = [by_names[names] for names in ways if names in by_names]
        return f"{Reason.PAUSED}: {max(found, key=_end).text}" if found else None

    return setting_aside


def _end(pause: Pause) -> tuple[bool, datetime]:
    return pause.until is None, pause.until or pause.paused_at


def make_plan(  # noqa: PLR0913 - each has a name of its own
    jobs: Sequence[Job],
    tenants: Sequence[Tenant],
    *,
    veto: Veto = filter_veto,
    setting_aside: Veto = set_nothing_aside,
    missed: Callable[[Job, Tenant], bool] = lambda job, tenant: False,  # noqa: ARG005 - none is
    statistics: Mapping[tuple[str, str], Pair] | None = None,
    drained_since: datetime | None = None,
    fleet: bool = True,
) -> Plan:
    """Lay out the visits of a run, in order.

    ``veto`` leaves a pair out of the plan; what ``setting_aside`` names is to be recorded as
    skipped, and so is what was ``missed``, for good. ``drained_since`` is when the last run of
    this selection began, if it was drained. ``fleet`` is false for a run over a part of the
    tenants: fleet-scope jobs stay out.
    """
    parts = _Parts(veto=veto, setting_aside=setting_aside, missed=missed)
    tenant_jobs = [job for job in jobs if job.scope is Scope.TENANT]
    fleet_jobs = [job for job in jobs if job.scope is Scope.FLEET]
    visits = [
        _candidate(tenant, wanted, statistics or {})
        for tenant in tenants
        if (wanted := parts.wanted(tenant_jobs, tenant))
    ]
    if not fleet:
        for job in fleet_jobs:
            parts.leave_out(job, FLEET_TENANT, "fleet-scope jobs run with the whole fleet")
        fleet_jobs = []
    return Plan(
        visits=_order(visits, drained_since),
        fleet_jobs=parts.not_set_aside(fleet_jobs, FLEET_TENANT),
        left_out=tuple(parts.left_out),
        set_aside=tuple(parts.set_aside),
    )


@dataclass(slots=True, kw_only=True)
class _Parts:
    """Parts jobs on tenants into what is wanted, what is left out, and what is set aside."""

    veto: Veto
    setting_aside: Veto
    missed: Callable[[Job, Tenant], bool]
    left_out: list[LeftOut] = field(default_factory=list)
    set_aside: list[SetAside] = field(default_factory=list)
    alike: dict[tuple[str, ...], tuple[str, ...]] = field(default_factory=dict)

    def wanted(self, jobs: Iterable[Job], tenant: Tenant) -> tuple[str, ...]:
        """Return the jobs that run on a tenant; note the others with their reasons."""
        kept = []
        for job in jobs:
            if (reason := self.veto(job, tenant)) is None:
                kept.append(job)
            else:
                self.leave_out(job, tenant, reason)
        wanted = self.not_set_aside(kept, tenant)
        # Most tenants have the same: a large fleet has them once.
        return self.alike.setdefault(wanted, wanted)

    def leave_out(self, job: Job, tenant: Tenant, reason: str) -> None:
        """Note that a job does not run on a tenant."""
        self.left_out.append(LeftOut(tenant=tenant.name, job=job.name, reason=reason))

    def not_set_aside(self, jobs: Iterable[Job], tenant: Tenant) -> tuple[str, ...]:
        """As ``wanted``, of jobs that nothing leaves out."""
        kept = []
        for job in jobs:
            reason = self.setting_aside(job, tenant)
            is_missed = reason is None and self.missed(job, tenant)
            if is_missed:
                reason = Reason.MISSED.value
            if reason is None:
                kept.append(job.name)
                continue
            aside = SetAside(tenant=tenant, job=job.name, reason=reason, closes=is_missed)
            self.set_aside.append(aside)
        return tuple(kept)


@dataclass(frozen=True, slots=True, kw_only=True)
class _Candidate:
    """A visit, and what history says for and against doing it soon."""

    visit: Visit
    #: One of its jobs failed the last time.
    failing: bool
    #: When the job that waits longest went well; ``_NEVER`` when it never did.
    well_at: datetime


def _candidate(
    tenant: Tenant, jobs: tuple[str, ...], statistics: Mapping[tuple[str, str], Pair]
) -> _Candidate:
    known = [found for job in jobs if (found := statistics.get((job, tenant.name)))]
    seconds = {
        each.job: each.smoothed_seconds for each in known if each.smoothed_seconds is not None
    }
    well = [_well_at(each) for each in known]
    return _Candidate(
        visit=Visit(
            tenant=tenant,
            jobs=jobs,
            expected_seconds=sum(seconds.values()) if seconds else None,
            unknown=tuple(name for name in jobs if name not in seconds) if seconds else (),
        ),
        failing=any(each.consecutive_failures for each in known),
        well_at=min(well) if len(well) == len(jobs) else _NEVER,
    )


def _well_at(pair: Pair) -> datetime:
    """Return when a pair last went well; a job's own ``Skip`` is well, and no success."""
    at = pair.last_success_at if pair.consecutive_failures else pair.last_run_at
    return at or _NEVER


def _order(visits: Sequence[_Candidate], drained_since: datetime | None) -> tuple[Visit, ...]:
    """Order by group (what a drain has left, all others, failing) and interleave each group."""
    groups: dict[tuple[int, str], list[_Candidate]] = defaultdict(list)
    for each in visits:
        groups[_group(each, drained_since), each.visit.tenant.server].append(each)
    for members in groups.values():
        # By one thing after the other, the last one first: it needs less room than by all at once.
        members.sort(key=lambda each: each.visit.tenant.name)
        members.sort(key=_about_how_long, reverse=True)
        if drained_since is not None:
            members.sort(key=lambda each: each.well_at)
    # One after the other: of a large fleet there is no second list.
    ranked = merge(*starmap(_ranked, groups.items()), key=itemgetter(0))
    return tuple(each.visit for _, each in ranked)


def _ranked(
    name: tuple[int, str], members: Sequence[_Candidate]
) -> Iterator[tuple[tuple[int, float, str], _Candidate]]:
    """Give each of a server's visits its place among those of all servers in its group."""
    group, server = name
    return (
        ((group, (place + 0.5) / len(members), server), each) for place, each in enumerate(members)
    )


def _group(each: _Candidate, drained_since: datetime | None) -> int:
    if each.failing:
        return 2
    return 0 if drained_since is not None and each.well_at < drained_since else 1


def _about_how_long(each: _Candidate) -> int:
    return int((each.visit.expected_seconds or 0.0) / _ALIKE_SECONDS)
