"""In a process of a run: the same house, put up again.

It is made of the same configuration and environment as the run, reads its secrets itself, and
writes nothing to the ledger: what there is to say goes back to the run.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import TextIO

from cronrunner.app import App
from cronrunner.app.catalogue import ReadPrepared, ReadResults
from cronrunner.errors import ConfigError, Problem
from cronrunner.execution import Work
from cronrunner.model import Request, Tenant


class House:
    """What a process needs of the configuration to perform what the run asks for."""

    def __init__(self, config: str, *, log_to: TextIO | None = None) -> None:
        """Raises ``ConfigError``."""
        self.app = App(Path(config), os.environ, log_to=log_to)
        self._config = config

    def refuse_another(self, digest: str) -> None:
        """Raise ``ConfigError`` if the configuration is not the one that the run has read."""
        if self.app.settings.digest != digest:
            text = f"{self._config} was changed while the run lasted; start another run"
            raise ConfigError([Problem(text=text)])

    def work(
        self, request: Request, tenant: Tenant, prepared: ReadPrepared, results: ReadResults
    ) -> Work:
        """Return what a request stands for. Raises ``ConfigError`` for a job that is not here."""
        if request.key.job.partition(":")[0] not in self.app.catalogue.jobs:
            # It was there in the run: its file can be loaded there and not here.
            raise ConfigError(list(self.app.found.problems))
        return self.app.catalogue.work(request, tenant, prepared, results)
