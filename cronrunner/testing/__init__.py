"""What authors use in their own tests: a throw-away tenant, and a way to run a job on it.

In ``conftest.py``::

    from cronrunner.testing import throwaway_tenant
    from jobs.schema import metadata

    tenant = throwaway_tenant(metadata)

and in a test::

    def test_invitations_that_nobody_accepted_are_forgotten(tenant):
        tenant.add(users, {"status": "invited", "created_at": SLOT - timedelta(days=31)})
        assert tenant.run("invitations.forget_unanswered") == {"deleted": 1}

Nothing here stands in for a part of cronrunner: databases are real, and the attempt is made by
what makes it in a run. ``docs/jobs.md`` tells the rest.
"""

from __future__ import annotations

from cronrunner.testing.fixtures import throwaway_tenant
from cronrunner.testing.idempotence import assert_idempotent
from cronrunner.testing.scene import SLOT
from cronrunner.testing.stage import Attempted
from cronrunner.testing.tenant import ThrowawayTenant

__all__ = [
    "SLOT",
    "Attempted",
    "ThrowawayTenant",
    "assert_idempotent",
    "throwaway_tenant",
]
