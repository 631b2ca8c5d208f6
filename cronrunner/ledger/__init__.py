"""The database which remembers runs, executions and tenants, and arbitrates every race."""

from cronrunner.ledger.dry import DryLedger
from cronrunner.ledger.engine import open_engine
from cronrunner.ledger.history import ExecutionFilter
from cronrunner.ledger.quarantine import Quarantine
from cronrunner.ledger.queries import Queries
from cronrunner.ledger.store import Ledger

__all__ = ["DryLedger", "ExecutionFilter", "Ledger", "Quarantine", "Queries", "open_engine"]
