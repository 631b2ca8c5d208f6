"""operations.refresh_integrations"""

import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import timedelta
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from typing import Any

import pytest

from cronrunner import Retry, Skip
from jobs.providers import load_catalogue
from jobs.schema import integrations, job_items, outbox
from tests.jobs.rows import integration, mailbox
from tests.jobs.tenant import JOBS, S, TenantDatabase, ago

JOB = "operations.refresh_integrations"
NAMES = ("ok", "degraded", "unsupported", "updated", "renewals", "already", "errors")
NOTHING = dict.fromkeys(NAMES, 0)
UP = {"tracker": {"status": "up", "version": "3"}}
DOWN = {"tracker": {"status": "down", "version": "3"}}


def refresh(tenant: TenantDatabase, catalogue: Any = UP, **settings: Any) -> dict[str, int]:
    with tenant.context(JOB, **settings) as ctx:
        ctx.prepared = catalogue
        return dict(JOBS[JOB].call(ctx))


def oauth(**values: Any) -> dict[str, Any]:
    return integration(
        kind="oauth", config_version="3", refresh_url="https://tracker.example.org/token", **values
    )


def load(tenant: TenantDatabase, place: object) -> Any:
    with tenant.context(JOB, catalogue=str(place)) as ctx:
        return load_catalogue(ctx)


@contextmanager
def serving(status: int, body: str) -> Iterator[tuple[str, list[str]]]:
    """Answer every request alike; give the URL and the paths that were asked for."""
    asked: list[str] = []

    class Answer(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            asked.append(self.path)
            self.send_response(status)
            self.end_headers()
            self.wfile.write(body.encode())

        def log_message(self, *_: object) -> None: ...

    server = HTTPServer(("127.0.0.1", 0), Answer)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}/providers.json", asked
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


def test_an_integration_of_a_provider_that_is_up_takes_over_its_version(
    tenant: TenantDatabase,
) -> None:
    tenant.add(integrations, integration(config_version="2", state="degraded", failures=4))

    assert refresh(tenant) == NOTHING | {"ok": 1, "updated": 1}

    (row,) = tenant.rows(integrations)
    assert (row["state"], row["failures"], row["last_ok_at"]) == ("ok", 0, S)
    assert row["config_version"] == "3"


@pytest.mark.parametrize("version", ["3", 3])
def test_a_version_that_is_there_already_is_no_update(tenant: TenantDatabase, version) -> None:
    tenant.add(integrations, integration(config_version="3"))

    catalogue = {"tracker": {"status": "up", "version": version}}
    assert refresh(tenant, catalogue) == NOTHING | {"ok": 1}


def test_a_provider_without_a_version_leaves_that_of_the_integration(
    tenant: TenantDatabase,
) -> None:
    tenant.add(integrations, integration(config_version="2"))

    assert refresh(tenant, {"tracker": {"status": "up"}}) == NOTHING | {"ok": 1}
    assert tenant.rows(integrations)[0]["config_version"] == "2"


def test_a_provider_that_is_down_is_one_failure_for_each_slot(tenant: TenantDatabase) -> None:
    tenant.add(integrations, integration(failures=0, last_ok_at=ago(days=1)))

    assert refresh(tenant, DOWN) == NOTHING | {"degraded": 1}
    before = tenant.content()
    assert refresh(tenant, DOWN) == NOTHING | {"already": 1}
    assert tenant.content() == before

    (row,) = tenant.rows(integrations)
    assert (row["state"], row["failures"], row["last_ok_at"]) == ("degraded", 1, ago(days=1))
    assert refresh(tenant, DOWN, slot=S + timedelta(days=1)) == NOTHING | {"degraded": 1}
    assert tenant.rows(integrations)[0]["failures"] == 2


def test_a_provider_that_is_not_in_the_catalogue_is_unsupported(tenant: TenantDatabase) -> None:
    tenant.add(integrations, integration(provider="Tracker", failures=1))

    assert refresh(tenant) == NOTHING | {"unsupported": 1}

    (row,) = tenant.rows(integrations)
    assert (row["state"], row["failures"]) == ("unsupported", 1)


@pytest.mark.parametrize("provider", [{"status": "sleepy"}, {}, "up", 1])
def test_a_provider_that_says_neither_is_an_error_of_its_integrations(
    tenant: TenantDatabase, provider
) -> None:
    tenant.add(integrations, integration(), integration(provider="billing", id=None))
    catalogue = {"tracker": {"status": "up"}, "billing": provider}

    assert refresh(tenant, catalogue) == NOTHING | {"ok": 1, "errors": 1}


@pytest.mark.parametrize(
    ("left", "renewals"),
    [
        (timedelta(hours=48), 1),
        (timedelta(hours=48, seconds=1), 0),
        (-timedelta(days=3), 1),
    ],
)
def test_a_token_that_expires_within_48_hours_is_renewed(
    tenant: TenantDatabase, left, renewals
) -> None:
    tenant.add(integrations, oauth(id=7, token_expires_at=S + left))

    assert refresh(tenant) == NOTHING | {"ok": 1, "renewals": renewals}
    assert len(tenant.rows(outbox)) == renewals


def test_the_request_for_a_token_goes_to_the_refresh_url_once(tenant: TenantDatabase) -> None:
    tenant.add(integrations, oauth(id=7, token_expires_at=S))

    assert refresh(tenant)["renewals"] == 1
    assert refresh(tenant, slot=S + timedelta(days=1)) == NOTHING | {"ok": 1}

    (message,) = tenant.rows(outbox)
    assert message["dedupe_key"] == "refresh:7:2026-03-01T00:00:00+00:00"
    assert (message["channel"], message["source_job"]) == ("webhook", JOB)
    assert message["recipient"] == "https://tracker.example.org/token"
    assert message["payload"]["integration_id"] == 7


def test_how_early_a_token_is_renewed_can_be_said(tenant: TenantDatabase) -> None:
    tenant.add(integrations, oauth(token_expires_at=S + timedelta(hours=3)))

    assert refresh(tenant, renew_h=2)["renewals"] == 0
    assert refresh(tenant, slot=S + timedelta(hours=1), renew_h=2)["renewals"] == 1


@pytest.mark.parametrize(
    ("row", "catalogue"),
    [
        pytest.param(oauth(token_expires_at=S), DOWN, id="its provider is down"),
        pytest.param(oauth(token_expires_at=S), {}, id="its provider is unknown"),
        pytest.param(oauth(token_expires_at=None), UP, id="it never expires"),
        pytest.param(integration(token_expires_at=S), UP, id="it is no OAuth token"),
    ],
)
def test_a_token_is_not_renewed_while(tenant: TenantDatabase, row, catalogue) -> None:
    tenant.add(integrations, row)

    counters = refresh(tenant, catalogue)
    assert (counters["renewals"], counters["errors"]) == (0, 0)
    assert tenant.rows(outbox) == []


def test_a_token_that_cannot_be_renewed_is_an_error_and_the_others_go_on(
    tenant: TenantDatabase,
) -> None:
    tenant.add(
        integrations,
        integration(id=1, kind="oauth", token_expires_at=S, state="new"),
        integration(id=2, config_version="3"),
    )
    assert refresh(tenant) == NOTHING | {"ok": 1, "errors": 1}
    before = tenant.content()

    assert refresh(tenant) == NOTHING | {"already": 1, "errors": 1}
    assert tenant.content() == before
    assert tenant.rows(integrations)[0]["state"] == "new"
    assert [each["state"] for each in tenant.rows(job_items)] == ["error", "done"]


def test_mailboxes_and_what_is_not_enabled_are_left_alone(tenant: TenantDatabase) -> None:
    tenant.add(integrations, mailbox(), integration(enabled=False))
    before = tenant.content()

    assert refresh(tenant, DOWN) == NOTHING
    assert tenant.content() == before


def test_without_a_catalogue_it_is_skipped(tenant: TenantDatabase) -> None:
    assert load(tenant, "") is None
    with pytest.raises(Skip, match="no catalogue"):
        refresh(tenant, None)


@pytest.mark.parametrize("tenant", ["sqlite"], indirect=True)
class TestTheCatalogue:
    def test_it_is_read_from_a_file(self, tenant: TenantDatabase, tmp_path: Path) -> None:
        path = tmp_path / "providers.json"
        path.write_text(json.dumps(UP))

        assert load(tenant, path) == UP

    def test_it_is_loaded_from_a_url(self, tenant: TenantDatabase) -> None:
        with serving(200, json.dumps(UP)) as (url, asked):
            assert load(tenant, url) == UP
        assert asked == ["/providers.json"]

    def test_a_server_that_does_not_give_it_is_asked_again(self, tenant: TenantDatabase) -> None:
        with serving(503, "later") as (url, _), pytest.raises(Retry, match="503"):
            load(tenant, url)
        with pytest.raises(Retry, match="ConnectionError") as raised:
            load(tenant, url.replace("http://", "http://me:planted@"))
        assert "planted" not in str(raised.value)

    @pytest.mark.parametrize("text", ["[]", "3", "{", ""])
    def test_what_is_no_catalogue_is_an_error(
        self, tenant: TenantDatabase, tmp_path: Path, text
    ) -> None:
        path = tmp_path / "providers.json"
        path.write_text(text)

        with pytest.raises(ValueError):
            load(tenant, path)

    def test_a_file_that_is_not_there_is_an_error(self, tenant: TenantDatabase) -> None:
        with pytest.raises(FileNotFoundError):
            load(tenant, "/nowhere/providers.json")


def test_the_health_check_finds_the_state(tenant: TenantDatabase) -> None:
    tenant.add(integrations, integration(), integration(provider="billing"))
    refresh(tenant, UP | {"billing": {"status": "down"}})

    health = tenant.run("operations.health_check", components="integrations")
    assert (health["ok"], health["warning"]) == (0, 1)
