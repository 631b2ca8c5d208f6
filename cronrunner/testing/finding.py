"""Which jobs a test can run: those of the project's folder, and any function."""

from __future__ import annotations

from collections.abc import Callable
from functools import cache, cached_property
from pathlib import Path
from typing import Any

from cronrunner.config.document import read_document
from cronrunner.config.loading import DEFAULT_NAME
from cronrunner.config.sections import TenantsFile
from cronrunner.errors import ConfigError
from cronrunner.model import Job
from cronrunner.planning import select_jobs
from cronrunner.registry.finding import Found, find_jobs
from cronrunner.registry.python import job_of


def job_folder(project: Path) -> Path:
    """Return the folder of a project's jobs, as its ``tenants.yaml`` says or by default."""
    configuration = project / DEFAULT_NAME
    said = read_document(configuration).data if configuration.is_file() else {}
    default = TenantsFile.model_fields["job_folder"].default
    return project / str(said.get("job_folder", default))


@cache
def jobs_in(folder: Path) -> Jobs:
    """Return the jobs of a folder, found once for all tests."""
    return Jobs(folder)


class Jobs:
    """The jobs of a folder, found when the first of them is asked for by name."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    @cached_property
    def _found(self) -> Found:
        return find_jobs(self._folder)

    def find(self, job: str | Callable[..., Any]) -> Job:
        """Return a job by its name or the last part of it, or the one that a function is.

        Raises ``ConfigError`` and ``JobFileError``, saying what is wrong with broken files.
        """
        if callable(job):
            return job_of(job)
        try:
            (found,) = select_jobs(self._found.jobs, (job,))
        except ConfigError as error:
            raise ConfigError([*error.problems, *self._found.problems]) from None
        return found
