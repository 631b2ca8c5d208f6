"""What the tests of the shipped jobs say often."""

from collections.abc import Mapping
from datetime import datetime, timedelta
from pathlib import Path

from cronrunner.model import Job
from cronrunner.registry.finding import find_jobs
from cronrunner.testing import SLOT as S
from cronrunner.testing import ThrowawayTenant as TenantDatabase
from cronrunner.testing.scene import LATE

__all__ = ["JOBS", "NOW", "S", "TenantDatabase", "ago"]

#: When a job runs whose test does not say when.
NOW = S + LATE

JOBS: Mapping[str, Job] = find_jobs(Path(__file__).parents[2] / "jobs").jobs


def ago(**parts: float) -> datetime:
    """Return an instant before the slot: `ago(days=1)`."""
    return S - timedelta(**parts)
