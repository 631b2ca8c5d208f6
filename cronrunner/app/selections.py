"""A selection as the ledger keeps it with its run: enough to ask for the same again."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from cronrunner.app.asking import Asked
from cronrunner.model import EMPTY
from cronrunner.planning import Selection


def selection_document(
    selection: Selection, *, due: bool, dry_run: bool = False, options: Asked = EMPTY
) -> Mapping[str, object]:
    """Return what is kept of a selection: of what is ``due`` in it, or of all.

    ``options`` are what the command line says of them, for whoever resumes the run.
    """
    marked: dict[str, object] = {"dry_run": True} if dry_run else {}
    if options:
        marked["options"] = {job: dict(values) for job, values in options.items()}
    return marked | {
        "due": due,
        "jobs": selection.jobs,
        "tenants": selection.tenants,
        "exclude_tenants": selection.exclude_tenants,
        "labels": dict(selection.labels),
        "servers": selection.servers,
        "shard": selection.shard,
    }


def selection_of(document: Mapping[str, Any]) -> Selection:
    """Read what ``selection_document`` wrote."""
    shard = document["shard"]
    return Selection(
        jobs=tuple(document["jobs"]),
        tenants=tuple(document["tenants"]),
        exclude_tenants=tuple(document["exclude_tenants"]),
        labels=document["labels"],
        servers=tuple(document["servers"]),
        shard=None if shard is None else (shard[0], shard[1]),
    )
