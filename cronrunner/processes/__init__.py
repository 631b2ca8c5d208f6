"""Processes that do the run's work, or what may harm its own process. ``lanes`` is the story."""

from cronrunner.processes.inside import Line
from cronrunner.processes.lanes import Lane, Processes

__all__ = ["Lane", "Line", "Processes"]
