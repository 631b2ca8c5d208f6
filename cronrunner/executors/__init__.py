"""Ways to carry out visits. Threads are the one there is."""

from cronrunner.executors.base import Executor
from cronrunner.executors.breaking import Breakers
from cronrunner.executors.threads import ThreadExecutor

__all__ = ["Breakers", "Executor", "ThreadExecutor"]
