"""One visit, one attempt after another. ``performing`` is the story."""

from cronrunner.execution.attempt import Attempt, Work
from cronrunner.execution.classifying import Classifier, cause_of
from cronrunner.execution.isolated import Isolated
from cronrunner.execution.performing import Performer

__all__ = ["Attempt", "Classifier", "Isolated", "Performer", "Work", "cause_of"]
