"""One run: discover, plan, claim, execute, record, report. ``run`` is the story."""

from cronrunner.runner.orders import FailureLimit, Hooks, Order, Parts, RunLedger, RunLost
from cronrunner.runner.run import Runner

__all__ = ["FailureLimit", "Hooks", "Order", "Parts", "RunLedger", "RunLost", "Runner"]
