"""What the tests of the shipped jobs say often."""

from collections.abc import Mapping
from datetime import datetime, timedelta
from pathlib import Path

from cronrunner.model import Job
from cronrunner.registry.finding import find_jobs
from cronrunner.testing import SLOT as S
from cronrunner.testing import ThrowawayTenant as TenantDatabase

__all__ = ["JOBS", "S", "TenantDatabase", "ago"]

JOBS: Mapping[str, Job] = find_jobs(Path(__file__).parents[2] / "jobs").jobs


def ago(**parts: float) -> datetime:
    """Return an instant before the slot: `ago(days=1)`."""
    return S - timedelta(**parts)
