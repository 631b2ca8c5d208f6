"""What a test says of an attempt, and what it leaves to the kit."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, fields
from datetime import UTC, datetime, timedelta
from typing import Any, Final, Self

from cronrunner.errors import ConfigError, Problem
from cronrunner.model import EMPTY, FLEET_TENANT, Job, Key, Request, Scope, Slot, Tenant
from cronrunner.planning import nearest

#: The slot of a test that names none: midnight UTC, the first of a month, a Sunday.
SLOT: Final = datetime(2026, 3, 1, tzinfo=UTC)
#: How late the job begins, so that a stamp of the clock is told from one of the slot.
LATE: Final = timedelta(minutes=7)
#: The value of ``prepared`` that has the job's own ``prepare`` called.
BY_JOB: Final[Any] = object()


@dataclass(frozen=True, slots=True, kw_only=True)
class Scene:
    """The circumstances of one attempt."""

    slot: datetime = SLOT
    #: The tenant's time zone and labels.
    zone: str = "UTC"
    labels: Mapping[str, str] = field(default_factory=lambda: EMPTY)
    #: What ``ctx.now`` is: an instant at which time stands still, or a function.
    clock: datetime | Callable[[], datetime] | None = None
    dry_run: bool = False
    prepared: Any = BY_JOB
    #: What ``ctx.app`` is: no start-up hook is called.
    app: Any = None
    #: By name; text is read as it would be on the command line.
    options: Mapping[str, Any] = field(default_factory=lambda: EMPTY)

    @classmethod
    def of(cls, given: Mapping[str, Any]) -> Self:
        """Take what is no field of a scene for an option of the job."""
        known = {each.name for each in fields(cls)} & given.keys()
        options = {name: given[name] for name in given.keys() - known}
        scene = {name: given[name] for name in known}
        return cls(**scene | {"options": {**scene.get("options", EMPTY), **options}})

    def now(self) -> Callable[[], datetime]:
        """Return the clock."""
        clock = self.clock
        if callable(clock):
            return clock
        instant = self.slot + LATE if clock is None else clock
        return lambda: instant

    def tenant(self, job: Job, name: str, database: str) -> Tenant:
        """Return the tenant that the job is run on; that of the fleet for fleet-scope work."""
        if job.scope is Scope.FLEET:
            return FLEET_TENANT
        return Tenant(
            name=name, server="test", database=database, timezone=self.zone, labels=self.labels
        )

    def request(self, work: str, tenant: Tenant) -> Request:
        """Ask for one attempt at the work of this name: a job's, or that of one of its hooks."""
        slot = Slot.scheduled(self.slot)
        return Request(
            key=Key(job=work, tenant=tenant.name, slot_key=slot.key),
            run="test",
            slot=slot.at,
            attempt=1,
            fence=1,
            dry_run=self.dry_run,
        )

    def values(self, job: Job) -> Mapping[str, Any]:
        """Return the job's options: what the test says, and otherwise the defaults.

        Neither tenants.yaml nor the environment has a say. Raises ``ConfigError``.
        """
        problems: list[Problem] = []
        values = {name: option.read(option.default) for name, option in job.options.items()}
        for name, raw in self.options.items():
            try:
                values[name] = job.options[name].read(raw)
            except KeyError:
                text = f"{job.name} has no option {name!r}; {nearest(name, job.options)}"
                problems.append(Problem(text=text))
            except ValueError as error:
                problems.append(Problem(text=f"{job.name}: option {name}: {error}"))
        if problems:
            raise ConfigError(problems)
        return values
