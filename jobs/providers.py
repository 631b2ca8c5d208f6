"""What the providers of integrations say of themselves, and what follows for a tenant."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Mapping, Sequence
from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from sqlalchemy import Row, select, update

from cronrunner import Option, Retry, Skip, job
from jobs.batches import ids_in_batches
from jobs.items import Items
from jobs.outbox import enqueue
from jobs.schema import integrations

if TYPE_CHECKING:
    from cronrunner import JobContext

_REFRESHED: Final = (integrations.c.kind != "mailbox") & integrations.c.enabled.is_(True)


def load_catalogue(ctx: JobContext) -> dict[str, Any] | None:
    """Load the catalogue of providers once for all tenants; ``None`` if no place is configured.

    Raises ``ValueError`` for what is no catalogue, and ``Retry`` when its server does not answer.
    """
    place = ctx.options["catalogue"]
    if not place:
        return None
    is_url = place.startswith(("http://", "https://"))
    catalogue = json.loads(_download(ctx, place) if is_url else Path(place).read_bytes())
    if not isinstance(catalogue, dict):
        msg = f"expected a catalogue of providers by name, got a {type(catalogue).__name__}"
        raise ValueError(msg)  # noqa: TRY004 - the type of a document, not of an argument
    return catalogue


@job(
    name="operations.refresh_integrations",
    schedule="0 1 * * *",
    retries=2,
    prepare=load_catalogue,
    options={
        "catalogue": Option(
            "",
            help="where the catalogue of providers is: a path, or an http or https URL",
            environment="PROVIDER_CATALOGUE",
        ),
        "renew_h": Option(
            48, help="a token that expires within so many hours is renewed", minimum=0
        ),
    },
)
def refresh_integrations(ctx: JobContext) -> Mapping[str, int]:
    """Bring the integrations of a tenant up to date with what their providers offer.

    The catalogue is loaded once for all tenants; a relative path begins at the folder in which
    cronrunner was started. It is JSON: by the name of a provider its
    ``status``, ``up`` or ``down``, and the ``version`` of its configuration. An integration
    whose provider is up becomes ``ok``, has no failures any more, and takes over the version;
    one whose provider is down becomes ``degraded`` and has one failure more; one whose
    provider the catalogue does not name becomes ``unsupported``. Mailboxes and what is not
    enabled are left alone. Without a catalogue the job is skipped.

    An OAuth token that expires in ``renew_h`` hours or less is renewed while its provider is up:
    a request to ``refresh_url`` is queued, one for each time of expiry. Where no ``refresh_url``
    is known the integration is an error and stays as it is.

    Counters:
      ok: integrations whose provider is up
      degraded: integrations whose provider is down
      unsupported: integrations whose provider is unknown
      updated: integrations that took over another version
      renewals: requests for another token that were queued
      already: integrations that this slot has refreshed before
      errors: integrations that could not be refreshed

    From: AgencyStack: integrations refresh
    """
    if ctx.prepared is None:
        msg = "no catalogue of providers is configured"
        raise Skip(msg)
    names = ("ok", "degraded", "unsupported", "updated", "renewals", "already", "errors")
    counters = Counter(dict.fromkeys(names, 0))
    items = Items(ctx)
    for ids in ids_in_batches(ctx.connection, integrations, _REFRESHED):
        ctx.check()
        for integration in _chosen(ctx, ids):
            key = str(integration.id)
            if items.is_done_at_slot(key):
                counters["already"] += 1
                continue
            with items.attempt(key):
                counted = _refresh(ctx, integration)
                items.mark(key)
                counters.update(counted)
    return {**counters, "errors": items.errors}


def _download(ctx: JobContext, url: str) -> bytes:
    try:
        answer = ctx.http.get(url)
        answer.raise_for_status()
    except OSError as error:
        # What requests raises; its text names the server, and nothing that is secret.
        msg = f"the catalogue of providers cannot be loaded: {type(error).__name__}: {error}"
        raise Retry(msg) from error
    return answer.content


def _chosen(ctx: JobContext, ids: Sequence[int]) -> Sequence[Row[Any]]:
    chosen = select(integrations).where(integrations.c.id.in_(ids), _REFRESHED)
    return ctx.connection.execute(chosen.order_by(integrations.c.id)).all()


def _refresh(ctx: JobContext, integration: Row[Any]) -> dict[str, int]:
    """Do one integration; return what is to be counted."""
    provider = ctx.prepared.get(integration.provider)
    counted, values = _judge(ctx, integration, provider)
    if "ok" in counted and _is_expiring(ctx, integration):
        counted["renewals"] = int(_renew(ctx, integration))
    this = update(integrations).where(integrations.c.id == integration.id)
    ctx.connection.execute(this.values(values))
    return counted


def _judge(
    ctx: JobContext, integration: Row[Any], provider: Mapping[str, Any] | None
) -> tuple[dict[str, int], dict[str, Any]]:
    """Return what is to be counted of an integration, and what becomes of its row."""
    match provider:
        case None:
            return {"unsupported": 1}, {"state": "unsupported"}
        case {"status": "down"}:
            return {"degraded": 1}, {"state": "degraded", "failures": integration.failures + 1}
        case {"status": "up"}:
            values = {"state": "ok", "failures": 0, "last_ok_at": ctx.slot}
            version = provider.get("version")
            if version is None or str(version) == integration.config_version:
                return {"ok": 1}, values
            return {"ok": 1, "updated": 1}, values | {"config_version": str(version)}
        case _:
            msg = f"expected the status of provider {integration.provider} to be up or down"
            raise ValueError(msg)


def _is_expiring(ctx: JobContext, integration: Row[Any]) -> bool:
    expires_at = integration.token_expires_at
    if integration.kind != "oauth" or expires_at is None:
        return False
    return bool(expires_at <= ctx.slot + timedelta(hours=ctx.options["renew_h"]))


def _renew(ctx: JobContext, integration: Row[Any]) -> bool:
    """Queue the request for another token; tell whether it is a new one."""
    if not integration.refresh_url:
        msg = "expected a refresh_url for a token that expires, got none"
        raise ValueError(msg)
    expires_at = integration.token_expires_at.isoformat()
    return enqueue(
        ctx,
        f"refresh:{integration.id}:{expires_at}",
        "webhook",
        integration.refresh_url,
        f"Renew the token of {integration.provider}",
        f"The token of integration {integration.id} expires at {expires_at}.",
        payload={"integration_id": integration.id, "token_expires_at": expires_at},
    )
