"""How log lines are written, and all of the product's own lines.

A line has three kinds of contents, kept apart so that none can pass for another: what the
runner says itself (an action and its fields), the words bound to the execution (``bound``),
and what the authors of jobs add, which goes to ``labels``. Lines of libraries take the same
way. ``docs/events.md`` is the public description.

``lines`` holds every line of the product, ``rendering`` turns what was logged into one line of
text, ``setup`` brings the two to a stream, ``listening`` does so with what happens.
"""

from __future__ import annotations

from cronrunner.logs.listening import LogListener
from cronrunner.logs.setup import (
    Format,
    bound,
    configure,
    flush,
    job_logger,
    rendered_lines,
    request_logger,
)

__all__ = [
    "Format",
    "LogListener",
    "bound",
    "configure",
    "flush",
    "job_logger",
    "rendered_lines",
    "request_logger",
]
