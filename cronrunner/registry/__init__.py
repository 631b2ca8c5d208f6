"""Jobs as authors declare them: the ``@job`` decorator, ``.sql`` files, and finding both.

A declaration is checked when its file is loaded, not when it is decorated, so that all
mistakes of all files are reported at once. A broken file disables its own jobs and no others.
"""

from cronrunner.registry.declaration import Declaration, JobFunction, job

__all__ = ["Declaration", "JobFunction", "job"]
