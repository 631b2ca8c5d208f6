"""What is the fleet's: the tables of the ledger that jobs write to, and the limits of a run."""

from __future__ import annotations

from functools import cached_property
from typing import Any

from sqlalchemy import Engine, StaticPool, create_engine, select

from cronrunner.context import Shared
from cronrunner.ledger.tables import fleet_outbox
from cronrunner.limiting import Limits


class FleetDatabase:
    """A database in memory, for one test."""

    def __init__(self) -> None:
        self.shared = Shared(limits=Limits(), fleet_engine=lambda: self.engine)

    @cached_property
    def engine(self) -> Engine:
        """The database, made when it is first needed."""
        # One connection: another one would see a database of its own.
        engine = create_engine(
            "sqlite://", poolclass=StaticPool, connect_args={"check_same_thread": False}
        )
        fleet_outbox.create(engine)
        return engine

    def messages(self) -> list[dict[str, Any]]:
        """Return the messages of the fleet, in the order in which they were queued."""
        with self.engine.connect() as connection:
            found = connection.execute(select(fleet_outbox).order_by(fleet_outbox.c.id))
            return [dict(row) for row in found.mappings()]

    def close(self) -> None:
        """Forget it."""
        if "engine" in self.__dict__:
            self.engine.dispose()
        self.shared.limits.close()
