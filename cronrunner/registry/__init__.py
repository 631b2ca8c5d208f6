"""Jobs as authors declare them: ``@job``, ``.sql`` and ``.sh`` files, and finding them.

A declaration is checked when its file is loaded, not when it is decorated, so that all
mistakes of all files are reported at once. A broken file disables its own jobs and no others.
"""

from cronrunner.registry.declaration import Declaration, JobFunction, job, startup

__all__ = ["Declaration", "JobFunction", "job", "startup"]
