"""The ledger's schema, version by version, for alembic."""
