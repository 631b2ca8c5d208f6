"""``tenants.yaml`` and the environment, as frozen ``Settings``.

``find_config`` says which file; ``load`` reads it and reports all of its mistakes at once,
each with its line. Database kinds, cron expressions and jobs are not known here: whoever
knows them checks them, and finds the lines with ``Settings.line_of``.

How a file is read: ``document`` makes plain data with line numbers, ``references`` replaces
``${NAME}``, ``sections`` are the models, ``rules`` look across keys, ``report`` words what is
wrong, ``settings`` is the result.
"""

from cronrunner.config.loading import find_config, load, load_rest
from cronrunner.config.references import Reference
from cronrunner.config.schema import json_schema
from cronrunner.config.sections import (
    Discover,
    JobSettings,
    LedgerSettings,
    ListedTenant,
    LogSettings,
    MetricsSettings,
    RunnerSettings,
    ServerSettings,
    ShrinkSettings,
    TenantSettings,
    TenantsFile,
)
from cronrunner.config.settings import Settings

__all__ = [
    "Discover",
    "JobSettings",
    "LedgerSettings",
    "ListedTenant",
    "LogSettings",
    "MetricsSettings",
    "Reference",
    "RunnerSettings",
    "ServerSettings",
    "Settings",
    "ShrinkSettings",
    "TenantSettings",
    "TenantsFile",
    "find_config",
    "json_schema",
    "load",
    "load_rest",
]
