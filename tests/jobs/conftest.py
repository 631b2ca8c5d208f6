"""A tenant with all of its tables, once on each kind of server."""

from cronrunner.testing import throwaway_tenant
from jobs.schema import metadata

tenant = throwaway_tenant(metadata, servers={"mariadb": "mariadb_url"}, name="agency_acorn")
