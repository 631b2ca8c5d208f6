"""Who holds a claim, and who lives: the arbiter of every race.

Claims, and who wins
    A claim is one row. It is inserted by the first who asks; a second asker finds it closed
    (a duplicate), held by a live run (held), or open without a holder, and then takes it
    with the next fence number by an UPDATE that names the fence it saw: of two takers one
    changes a row. SQLite orders them by its write lock, MySQL by the row's lock.

Who is alive
    A run is alive while its lease lasts. The writer renews it at every heartbeat. A holder
    on the same host and boot whose process is gone is dead at once, lease or not. A run that
    was found dead stays so: it can neither renew its lease nor claim anything more.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Container, Iterable, Mapping, Sequence
from datetime import datetime, timedelta
from functools import cache
from typing import Any, Final, TypeVar

from sqlalchemy import Connection, bindparam, exists, select, update

from cronrunner.errors import LedgerError
from cronrunner.ledger import liveness
from cronrunner.ledger.rows import statistics_row
from cronrunner.ledger.statements import Statements
from cronrunner.ledger.tables import (
    claims,
    executions,
    runs,
    tenants,
)
from cronrunner.model import (
    WELL,
    Claims,
    Holder,
    Key,
    Outcome,
    Reason,
    Repeat,
    Run,
)

#: Tenants in one IN list: SQLite allows 32,766 parameters, MySQL's packets are the limit.
_CHUNK: Final = 500
_FIRST_FENCE: Final = 1

_RENEW: Final = (
    update(runs)
    .where(runs.c.run == bindparam("of_run"), runs.c.finished_at.is_(None))
    .values(heartbeat_at=bindparam("beat"), lease_until=bindparam("until"))
)

T = TypeVar("T")


class Arbiter:
    """Decides within the transaction that it is given."""

    def __init__(
        self, statements: Statements, clock: Callable[[], datetime], lease: timedelta
    ) -> None:
        self._statements = statements
        self._clock = clock
        self._lease = lease

    def renew(self, connection: Connection, run: Run) -> None:
        """Renew the lease, which keeps others from finding the run dead until this commits.

        Raises ``LedgerError`` if one of them has done so already.
        """
        now = self._clock()
        beat = {"of_run": run.id, "beat": now, "until": now + self._lease}
        if connection.execute(_RENEW, beat).rowcount != 1:
            msg = "the lease was lost: another command has recorded this run as dead"
            raise LedgerError(msg)

    def claim(
        self,
        connection: Connection,
        run: Run,
        keys: Sequence[Key],
        repeat: Repeat,
        alone: Container[str] = (),
    ) -> Claims:
        """Decide on ``keys``; of the jobs in ``alone`` only one slot at a time is held."""
        overlapping = self._overlapping(connection, run, [key for key in keys if key.job in alone])
        keys = [key for key in keys if key not in overlapping]
        self.renew(connection, run)
        granted: dict[Key, int] = {}
        duplicates: dict[Key, str] = {}
        unwell: set[Key] = set()
        held: dict[Key, str] = {}
        # Of many keys the holder is mostly one run.
        lives = cache(lambda holder: self._is_alive(connection, holder))
        inserted = self._insert_claims(connection, run, keys)
        if inserted == len(keys) and self._statements.counts_new_claims:
            # Nobody else has ever asked for any of them, as for nearly all groups of a night.
            granted = dict.fromkeys(keys, _FIRST_FENCE)
            return Claims(granted=granted, duplicates={}, held={}, overlapping=overlapping)
        for row in self._claim_rows(connection, keys):
            key = Key(job=row.job, tenant=row.tenant, slot_key=row.slot_key)
            if row.run == run.id and row.state == "open":
                granted[key] = row.fence
            elif row.state == "closed" and not is_repeated(row.outcome, repeat):
                duplicates[key] = row.run
                if Outcome(row.outcome) not in WELL:
                    unwell.add(key)
            elif row.state == "open" and row.run and lives(row.run):
                held[key] = row.run
            elif self._take_over(connection, run, row):
                granted[key] = row.fence + 1
            else:
                held[key] = row.run
        return Claims(
            granted=granted,
            duplicates=duplicates,
            held=held,
            overlapping=overlapping,
            unwell=frozenset(unwell),
        )

    def done(
        self, connection: Connection, keys: Sequence[Key], repeat: Repeat
    ) -> Mapping[Key, str]:
        """Return the run that has done it for each of ``keys`` that is not to be repeated."""
        return {
            Key(job=row.job, tenant=row.tenant, slot_key=row.slot_key): row.run
            for row in self._claim_rows(connection, keys)
            if row.state == "closed" and not is_repeated(row.outcome, repeat)
        }

    def _overlapping(
        self, connection: Connection, run: Run, keys: Sequence[Key]
    ) -> Mapping[Key, Holder]:
        """Find what live runs hold of other slots of the same pairs.

        Runs that claim at the same time take turns: otherwise neither would see what the other
        is about to insert.
        """
        if not keys:
            return {}
        self._statements.take_turn(connection)
        unfinished = select(runs).where(runs.c.finished_at.is_(None))
        now = self._clock()
        others = [
            row.run
            for row in connection.execute(unfinished).all()
            if row.run != run.id and liveness.is_alive(row, now=now)
        ]
        wanted = {(key.job, key.tenant): key for key in keys}
        held = (claims.c.state == "open") & claims.c.run.in_(others)
        found: dict[Key, Holder] = {}
        for row in connection.execute(select(claims).where(held)) if others else ():
            key = wanted.get((row.job, row.tenant))
            if key is not None and key.slot_key != row.slot_key:
                found[key] = Holder(run=row.run, since=row.claimed_at)
        return found

    def _claim_rows(self, connection: Connection, keys: Sequence[Key]) -> Iterable[Any]:
        names: dict[tuple[str, str], list[str]] = defaultdict(list)
        for key in keys:
            names[key.job, key.slot_key].append(key.tenant)
        for (job, slot_key), of_job in names.items():
            for chunk in chunks(of_job):
                wanted = {"job": job, "slot_key": slot_key, "tenant_names": chunk}
                yield from connection.execute(self._statements.find_claims, wanted).all()

    def _insert_claims(self, connection: Connection, run: Run, keys: Sequence[Key]) -> int:
        now = self._clock()
        rows = [
            {
                "job": key.job,
                "tenant": key.tenant,
                "slot_key": key.slot_key,
                "run": run.id,
                "fence": _FIRST_FENCE,
                "state": "open",
                "outcome": None,
                "claimed_at": now,
                "closed_at": None,
            }
            for key in keys
        ]
        return self._statements.new_claims(connection, rows)

    def _take_over(self, connection: Connection, run: Run, row: Any) -> bool:  # noqa: ANN401 - a row
        statement = (
            update(claims)
            .where(
                claims.c.job == row.job,
                claims.c.tenant == row.tenant,
                claims.c.slot_key == row.slot_key,
                claims.c.fence == row.fence,
                claims.c.state == row.state,
            )
            .values(
                run=run.id,
                fence=row.fence + 1,
                state="open",
                claimed_at=self._clock(),
                closed_at=None,
            )
        )
        return connection.execute(statement).rowcount == 1

    def _is_alive(self, connection: Connection, run: str) -> bool:
        """Tell whether a holder lives; one found dead is recorded as such on the way."""
        row = connection.execute(of_run(select(runs), run)).one_or_none()
        if row is None or row.finished_at is not None:
            return False
        if liveness.is_alive(row, now=self._clock()):
            return True
        self._bury(connection, row)
        # It lives after all if it has renewed its lease since it was looked at.
        finished = connection.execute(of_run(select(runs.c.finished_at), run)).scalar_one()
        return finished is None

    def bury_the_dead(self, connection: Connection) -> Mapping[str, int]:
        unfinished = connection.execute(select(runs).where(runs.c.finished_at.is_(None))).all()
        now = self._clock()
        dead = [row for row in unfinished if not liveness.is_alive(row, now=now)]
        return {row.run: self._bury(connection, row) for row in dead}

    def _bury(self, connection: Connection, row: Any) -> int:  # noqa: ANN401 - a row of `runs`
        """Record what a dead run left as interrupted, and free its claims.

        Of two who find it dead at once, the one whose UPDATE changes the row does it; none
        does if the run has renewed its lease in the meantime.
        """
        as_seen = (runs.c.finished_at.is_(None), runs.c.lease_until == row.lease_until)
        mark = of_run(update(runs), row.run).where(*as_seen)
        if connection.execute(mark.values(finished_at=self._clock())).rowcount != 1:
            return 0
        return self.interrupt_left(connection, row)

    def interrupt_left(self, connection: Connection, row: Any) -> int:  # noqa: ANN401 - as above
        """Record as interrupted what an ended run holds and has not recorded, and free it."""
        left = (claims.c.run == row.run) & (claims.c.state == "open")
        # What was stuck has its outcome, and its claim was held as long as its process lived.
        recorded = exists().where(
            executions.c.run == row.run,
            executions.c.job == claims.c.job,
            executions.c.tenant == claims.c.tenant,
        )
        found = connection.execute(select(tenants.c.tenant, tenants.c.server))
        servers = {each.tenant: each.server for each in found}
        rows = [
            _interrupted(row, claim, servers.get(claim.tenant, ""))
            for claim in connection.execute(select(claims).where(left, ~recorded)).all()
        ]
        if rows:
            self._statements.new_executions(connection, rows)
            counts = [statistics_row(each, None) for each in rows]
            self._statements.count_only(connection, counts)
        connection.execute(update(claims).where(left).values(run="", outcome="interrupted"))
        return len(rows)


def _interrupted(run: Any, claim: Any, server: str) -> dict[str, Any]:  # noqa: ANN401 - rows
    """Make the row of an execution whose run has ended without a word about it."""
    return {
        "run": run.run,
        "job": claim.job,
        "tenant": claim.tenant,
        "server": server,
        "slot": run.slot,
        "slot_key": claim.slot_key,
        "outcome": Outcome.INTERRUPTED.value,
        "reason": Reason.RUNNER_DIED.value,
        "attempts": 1,
        "fence": claim.fence,
        "started_at": claim.claimed_at,
        "duration_seconds": 0.0,
    }


def is_repeated(outcome: str, repeat: Repeat) -> bool:
    """Tell whether a closed claim is taken up again."""
    if repeat is Repeat.UNWELL:
        return Outcome(outcome) not in WELL
    return repeat is Repeat.EVERYTHING


def of_run(statement: Any, run: str) -> Any:  # noqa: ANN401 - a statement on `runs`
    return statement.where(runs.c.run == run)


def chunks(items: Sequence[T]) -> Iterable[Sequence[T]]:
    return (items[start : start + _CHUNK] for start in range(0, len(items), _CHUNK))
