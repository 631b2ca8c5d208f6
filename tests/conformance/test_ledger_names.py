"""Names that the ledger's columns cannot hold are refused before anything is recorded."""

from collections.abc import Callable
from pathlib import Path

import pytest
from sqlalchemy import create_engine

from cronrunner.config import load
from cronrunner.discovery import discover_server
from cronrunner.errors import ConfigError
from cronrunner.ledger.tables import executions
from cronrunner.model import Source

Discover = Callable[..., Source]


@pytest.fixture
def discover(tmp_path: Path) -> Discover:
    """Discover the tenants of one server, by its section ``discover``."""

    def discover(how: str) -> Source:
        path = tmp_path / "tenants.yaml"
        path.write_text(f"servers: {{main: {{url: 'sqlite://', discover: {how}}}}}\n")
        engine = create_engine("sqlite://")
        return discover_server(load(path, {}), "main", lambda _: engine.connect())

    return discover


@pytest.mark.parametrize("length", [40, 41])
def test_a_server_name_is_as_long_as_its_column(tmp_path: Path, length: int) -> None:
    assert executions.c.server.type.length == 40  # type: ignore[attr-defined]
    name = "s" * length
    path = tmp_path / "tenants.yaml"
    path.write_text(f"servers: {{{name}: {{url: 'sqlite://', discover: {{list: [a]}}}}}}\n")
    if length <= 40:
        assert list(load(path, {}).servers) == [name]
        return
    with pytest.raises(ConfigError, match="a server name of at most 40 characters, got 41"):
        load(path, {})


@pytest.mark.parametrize("length", [125, 126])
def test_a_tenant_name_is_as_long_as_its_column_with_its_prefix(
    discover: Discover, length: int
) -> None:
    assert executions.c.tenant.type.length == 128  # type: ignore[attr-defined]
    found = discover(f"{{prefix: eu-, list: [{'t' * length}, ok]}}")
    named = [tenant.name for tenant in found.tenants]
    if length == 125:
        assert (named, found.refused) == (["eu-" + "t" * 125, "eu-ok"], ())
    else:
        (reason,) = found.refused
        assert named == ["eu-ok"]
        assert reason.endswith("is longer than 128")


@pytest.mark.parametrize(
    ("column", "error"),
    [
        ("'a' name, 123456 database", "expected the query to give text as database, got int"),
        ("x'73656372' name, 'a' database", "expected the query to give text as name, got bytes"),
        ("'a' name, 'a' database, 'a=1,s3cret' labels", "expected labels as a JSON object"),
        ("'a' name, 'a' database, '{s3cret' labels", "expected labels as a JSON object"),
        ("'a' name, 'a' database, 's3cret' timezone", "expected a time zone"),
    ],
)
def test_an_error_about_a_registry_row_names_the_column_and_not_the_value(
    discover: Discover, column: str, error: str
) -> None:
    found = discover(f'{{query: "SELECT {column}"}}')

    assert (found.failure, found.tenants) == ("query", ())
    assert error in (found.error or "")
    assert not any(value in (found.error or "") for value in ("s3cret", "123456", "secr"))
