"""Ways to carry out visits: in threads, or in several processes with threads each."""

from cronrunner.executors.base import Executor, Perform
from cronrunner.executors.breaking import Breakers
from cronrunner.executors.far import Crew, Outside
from cronrunner.executors.processes import ProcessExecutor
from cronrunner.executors.serving import Serving
from cronrunner.executors.threads import ThreadExecutor

__all__ = [
    "Breakers",
    "Crew",
    "Executor",
    "Outside",
    "Perform",
    "ProcessExecutor",
    "Serving",
    "ThreadExecutor",
]
