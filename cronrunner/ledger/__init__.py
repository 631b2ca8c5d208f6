"""The database which remembers runs, executions and tenants, and arbitrates every race.

Its read side is here; ``store`` has the write side, which whoever only reads does not import.
"""

from cronrunner.ledger.engine import open_engine
from cronrunner.ledger.history import ExecutionFilter
from cronrunner.ledger.queries import Queries

__all__ = ["ExecutionFilter", "Queries", "open_engine"]
