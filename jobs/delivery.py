"""The delivery of an outbox: each message is claimed, sent, and recorded, in this order.

The claim is a conditional UPDATE of one row and is committed before anything is sent, so that two
runs never send one message at once. A process that dies in between leaves the claim behind; when
its lease is over the message is sent again, under the same id. So each message is sent at least
once, and twice only if somebody died after the server had taken it.

==============================  =====================================================
what happens                    the message
==============================  =====================================================
the server takes it             ``sent``
it will never be taken          ``dead``, with the reason
the server asks for a pause     ``pending`` until then; the try does not count; the
                                channel pauses for all tenants of the run
anything else                   ``pending`` again, later each time; ``dead`` after the
                                last try. A silent server pauses its channel
the channel has no permit left  left as it is, for the next run
==============================  =====================================================
"""

from __future__ import annotations

import os
import uuid
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from functools import partial
from typing import TYPE_CHECKING, Any, Final

from sqlalchemy import ColumnElement, Connection, Table, and_, or_, select, update

from jobs.transports import TRANSPORTS
from jobs.transports.contract import Failed, Message, Refused, Settings, Throttled
from jobs.wording import shorten

if TYPE_CHECKING:
    from cronrunner import JobContext
    from jobs.transports.contract import Transport

#: With less of the timeout left nothing more is begun.
LEAST: Final = timedelta(seconds=5)
#: For how long a server that said nothing is left in peace.
PAUSE: Final = timedelta(seconds=60)
_FIRST_WAIT: Final = 60
_LONGEST_WAIT: Final = 3600
_ERROR_LIMIT: Final = 500

#: What is raised for a message that is none: nested too deeply (`RecursionError`), for example.
_BROKEN: Final = (ValueError, TypeError, LookupError, ArithmeticError, RecursionError)

CHANNELS: Final = ("email", "slack", "webhook")

#: Gives a connection in a transaction of its own, committed at the end.
Step = Callable[[], AbstractContextManager[Connection]]


def step_of(ctx: JobContext) -> Step:
    """Return what gives short transactions: on the tenant's database, or on the fleet's."""
    if not ctx.tenant.name:
        return ctx.fleet_engine.begin
    return partial(_on_tenant, ctx)


@contextmanager
def _on_tenant(ctx: JobContext) -> Iterator[Connection]:
    with ctx.connection.begin():
        yield ctx.connection


@dataclass(frozen=True, slots=True, kw_only=True)
class Ended:
    """How one try ended: what is counted, and what is written."""

    counter: str
    values: Mapping[str, Any]
    #: For how long the channel is to pause.
    pause: timedelta | None = None


@dataclass(slots=True)
class Delivery:
    """Delivers what is due in one outbox."""

    ctx: JobContext
    table: Table
    step: Step
    counters: dict[str, int] = field(init=False)
    #: Channel -> its transport; ``None`` for one that could not be set up.
    transports: dict[str, Transport | None] = field(default_factory=dict)

    def __post_init__(self) -> None:
        names = ("sent", "retried", "dead", "throttled", "deferred", "errors")
        self.counters = dict.fromkeys(names, 0)

    def run(self) -> Mapping[str, int]:
        """Deliver; return how many messages came to what."""
        try:
            for number, channel in self._due():
                counter = self._deliver(number, channel)
                if counter is not None:
                    self.counters[counter] += 1
        finally:
            for transport in self.transports.values():
                if transport is not None:
                    transport.close()
        return self.counters

    def _due(self) -> list[tuple[int, str]]:
        """Return id and channel of what is to be sent. Bodies are read one by one."""
        message = self.table.c
        chosen = select(message.id, message.channel).where(self._is_due(self.ctx.now))
        # Those that were cut off (`sending`) come last: one at which each run ends stops no other.
        ordered = chosen.order_by(message.status, message.not_before, message.id)
        with self.step() as connection:
            rows = connection.execute(ordered.limit(self.ctx.options["limit"])).all()
        return [(row.id, row.channel) for row in rows]

    def _is_due(self, now: datetime) -> ColumnElement[bool]:
        message = self.table.c
        cut_off = and_(message.status == "sending", message.claimed_until < now)
        return and_(or_(message.status == "pending", cut_off), message.not_before <= now)

    def _deliver(self, number: int, channel: str) -> str | None:
        """Deliver one message; return what to count, ``None`` if another run has it."""
        if self.ctx.remaining() < LEAST or not self._is_open(channel):
            return "deferred"
        token = str(uuid.uuid4())
        if not self._claim(number, token):
            return None
        ended = self._send(number, channel)
        if ended.pause is not None:
            self._pause(channel, ended.pause)
        self._record(number, token, ended)
        return ended.counter

    def _is_open(self, channel: str) -> bool:
        """Tell whether a channel may be used now; takes a permit if so."""
        if channel not in CHANNELS:
            return True
        if channel not in self.transports:
            self.transports[channel] = self._set_up(channel)
        if self.transports[channel] is None:
            return False
        per_minute = self.ctx.options[f"{channel}_per_minute"]
        limit = self.ctx.rate_limit(f"comms.{channel}", per_minute / 60, burst=per_minute)
        return limit.take()

    def _set_up(self, channel: str) -> Transport | None:
        """Make the transport of a channel; what is wrong with one stops no other."""
        ctx = self.ctx
        settings = Settings(
            options=ctx.options, environ=os.environ, http=lambda: ctx.http, clock=lambda: ctx.now
        )
        try:
            return TRANSPORTS[ctx.options[f"{channel}_transport"]](settings)
        except (ValueError, OSError) as error:
            self.counters["errors"] += 1
            # The texts of such errors are the transports' own, or the system's.
            ctx.log.error("channel.unusable", channel=channel, error=str(error))
            return None

    def _claim(self, number: int, token: str) -> bool:
        now = self.ctx.now
        message = self.table.c
        claim = update(self.table).where(message.id == number, self._is_due(now))
        with self.step() as connection:
            claimed = connection.execute(
                claim.values(
                    status="sending",
                    attempts=message.attempts + 1,
                    claim_token=token,
                    claimed_until=now + timedelta(seconds=self.ctx.options["lease_s"]),
                )
            )
        return claimed.rowcount == 1

    def _send(self, number: int, channel: str) -> Ended:
        """Send a claimed message, and say what became of it."""
        attempts = 0
        try:
            attempts = self._attempts(number)
            # Before it is read: that may be what ends each try.
            self._heed_limit(attempts)
            row = self._read(number)
            name = f"{self.ctx.tenant.name or '-'}/{row.pop('dedupe_key')}"
            self._try(channel, Message(id=name, **row))
        except Throttled as error:
            return self._throttled(attempts, error.retry_after)
        except Failed as error:
            return self._failed(attempts, str(error), pause=PAUSE if error.pauses else None)
        except Refused as error:
            return _dead(str(error))
        except _BROKEN as error:
            # It cannot be read, or made into what the channel takes; nor will it be later.
            return _dead(f"broken: {type(error).__name__}")
        sent = {"status": "sent", "sent_at": self.ctx.now, "last_error": None}
        return Ended(counter="sent", values=sent)

    def _heed_limit(self, attempts: int) -> None:
        if attempts > self.ctx.options["max_attempts"]:
            raise Refused("given up: the last try was cut off")

    def _try(self, channel: str, message: Message) -> None:
        transport = self.transports.get(channel)
        if transport is None:
            raise Refused("unknown channel")
        left = self.ctx.remaining().total_seconds() - 1
        timeout = min(self.ctx.options["timeout_s"], max(left, 1))
        transport.send(message, timeout_seconds=timeout)

    def _attempts(self, number: int) -> int:
        with self.step() as connection:
            attempts = select(self.table.c.attempts).where(self.table.c.id == number)
            return int(connection.scalar(attempts) or 0)

    def _read(self, number: int) -> dict[str, Any]:
        message = self.table.c
        parts = (message.recipient, message.subject, message.body, message.payload)
        chosen = select(message.dedupe_key, *parts).where(message.id == number)
        with self.step() as connection:
            return dict(connection.execute(chosen).mappings().one())

    def _throttled(self, attempts: int, retry_after: timedelta) -> Ended:
        values = {
            "status": "pending",
            "attempts": attempts - 1,
            "not_before": self.ctx.now + retry_after,
            "last_error": "the server asked for a pause",
        }
        return Ended(counter="throttled", values=values, pause=retry_after)

    def _failed(self, attempts: int, text: str, *, pause: timedelta | None) -> Ended:
        if attempts >= self.ctx.options["max_attempts"]:
            ended = _dead(text)
            return Ended(counter=ended.counter, values=ended.values, pause=pause)
        wait = min(_FIRST_WAIT * 4 ** (attempts - 1), _LONGEST_WAIT)
        not_before = self.ctx.now + timedelta(seconds=wait)
        values = {"status": "pending", "not_before": not_before, "last_error": _short(text)}
        return Ended(counter="retried", values=values, pause=pause)

    def _pause(self, channel: str, duration: timedelta) -> None:
        now = self.ctx.now
        self.ctx.rate_limit(f"comms.{channel}", 1).pause(now + duration)
        self.ctx.log.warning("channel.paused", channel=channel, until=str(now + duration))

    def _record(self, number: int, token: str, ended: Ended) -> None:
        """Write what became of a message, unless its lease ran out and another run has it."""
        message = self.table.c
        mine = update(self.table).where(message.id == number, message.claim_token == token)
        values = {"claim_token": None, "claimed_until": None, **ended.values}
        with self.step() as connection:
            written = connection.execute(mine.values(values))
        log = self.ctx.log.debug if ended.counter == "sent" else self.ctx.log.warning
        log(f"message.{ended.counter}", outbox_id=number, reason=ended.values["last_error"])
        if not written.rowcount:
            self.ctx.log.warning("message.lease_lost", outbox_id=number)


def _dead(text: str) -> Ended:
    return Ended(counter="dead", values={"status": "dead", "last_error": _short(text)})


def _short(text: str) -> str:
    return shorten(text, _ERROR_LIMIT)
