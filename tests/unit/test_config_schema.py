"""The JSON Schema for editors: current, complete, and of one mind with `load`."""

import json
import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from cronrunner.config import json_schema, load
from cronrunner.config.document import read_document
from cronrunner.errors import ConfigError

ROOT = Path(__file__).resolve().parents[2]
SCHEMA: dict[str, Any] = json.loads(json_schema())

TYPES: dict[str, tuple[type, ...]] = {
    "object": (dict,),
    "array": (list,),
    "string": (str,),
    "boolean": (bool,),
    "integer": (int,),
    "number": (int, float),
}
#: Words of JSON Schema that say nothing about what is valid.
REMARKS = {"$schema", "$defs", "title", "description", "default", "examples"}


def faults(value: Any, schema: dict[str, Any], at: str = "") -> Iterator[str]:
    """Validate by the words of JSON Schema that the schema uses; another word is an error."""
    for word, rule in schema.items():
        if word in KEEPS:
            kind, keeps = KEEPS[word]
            if isinstance(value, kind) and not keeps(value, rule):
                yield f"{at}: {word} {rule}"
        elif word not in REMARKS:
            yield from INSIDE[word](value, rule, schema, at)


def is_of(value: Any, name: str) -> bool:
    return isinstance(value, TYPES[name]) and (name == "boolean" or not isinstance(value, bool))


def choices(value: Any, rule: list[dict[str, Any]]) -> int:
    return sum(not list(faults(value, each)) for each in rule)


#: What a value itself must be: for which types, and how it is told.
KEEPS: dict[str, tuple[tuple[type, ...], Callable[[Any, Any], bool]]] = {
    "type": ((object,), is_of),
    "anyOf": ((object,), lambda value, rule: choices(value, rule) > 0),
    "oneOf": ((object,), lambda value, rule: choices(value, rule) == 1),
    "enum": ((object,), lambda value, rule: value in rule),
    "pattern": ((str,), lambda value, rule: re.search(rule, value) is not None),
    "minimum": ((int, float), lambda value, rule: value >= rule),
    "maximum": ((int, float), lambda value, rule: value <= rule),
    "minLength": ((str,), lambda value, rule: len(value) >= rule),
    "minItems": ((list,), lambda value, rule: len(value) >= rule),
    "minProperties": ((dict,), lambda value, rule: len(value) >= rule),
    "required": ((dict,), lambda value, rule: not set(rule) - value.keys()),
    "propertyNames": ((dict,), lambda value, rule: all(choices(key, [rule]) for key in value)),
}


def referred(value: Any, rule: str, schema: dict[str, Any], at: str) -> Iterator[str]:
    yield from faults(value, SCHEMA["$defs"][rule.removeprefix("#/$defs/")], at)


def items(value: Any, rule: Any, schema: dict[str, Any], at: str) -> Iterator[str]:
    for index, each in enumerate(value if isinstance(value, list) else ()):
        yield from faults(each, rule, f"{at}[{index}]")


def properties(value: Any, rule: Any, schema: dict[str, Any], at: str) -> Iterator[str]:
    for key in value.keys() & rule.keys() if isinstance(value, dict) else ():
        yield from faults(value[key], rule[key], f"{at}.{key}")


def others(value: Any, rule: Any, schema: dict[str, Any], at: str) -> Iterator[str]:
    known = schema.get("properties", {})
    for key in value.keys() - known if isinstance(value, dict) and rule is not True else ():
        if rule is False:
            yield f"{at}: unknown key {key}"
        else:
            yield from faults(value[key], rule, f"{at}.{key}")


#: What holds for the parts of a value.
INSIDE = {
    "$ref": referred,
    "items": items,
    "properties": properties,
    "additionalProperties": others,
}


def validate(path: Path) -> list[str]:
    return list(faults(read_document(path).data, SCHEMA))


def test_the_committed_schema_is_current() -> None:
    committed = (ROOT / "docs/tenants.schema.json").read_text(encoding="utf-8")
    assert committed == json_schema(), (
        "python -c 'from cronrunner.config import json_schema; print(json_schema(), end=str())' "
        "> docs/tenants.schema.json"
    )


def test_the_schema_accepts_the_shipped_configuration() -> None:
    assert validate(ROOT / "tenants.yaml") == []


def test_the_shipped_configuration_names_its_schema() -> None:
    first = (ROOT / "tenants.yaml").read_text(encoding="utf-8").splitlines()[0]
    assert first == "# yaml-language-server: $schema=docs/tenants.schema.json"


def test_every_key_has_a_description_and_no_mapping_takes_unknown_keys() -> None:
    assert SCHEMA["$schema"] == "https://json-schema.org/draft/2020-12/schema"
    for section in (SCHEMA, *SCHEMA["$defs"].values()):
        assert section["additionalProperties"] is False
        for key, schema in section["properties"].items():
            assert schema.get("description"), f"{section['title']}.{key}"


def test_defaults_are_shown_as_people_write_them() -> None:
    runner = SCHEMA["$defs"]["RunnerSettings"]["properties"]
    assert runner["grace"]["default"] == "20s"
    assert "default" not in runner["concurrency"]
    assert SCHEMA["properties"]["job_folder"]["default"] == "jobs"


FULL = """\
ledger: {server: main, database: cronrunner, reserved_connections: 3}
servers:
  main:
    url: mysql+pymysql://${USER_NAME:-cron}@db.internal:3306
    password: file:pw
    max_connections: ${LIMIT:-8}
    discover: {databases: [agency_*, firm_*], exclude: agency_template, prefix: m.}
    tls: verify
    tls_ca: ca.pem
    connect_timeout: 1.5s
    labels: {region: eu}
    timezone: Europe/Berlin
  files:
    url: sqlite://
    discover: {directory: var/tenants, pattern: "*.sqlite", exclude: [old*]}
  query: {url: "file:url", username: cron, discover: {query: SELECT 1}}
  list:
    url: sqlite://
    discover: {list: [a, {name: b, database: b.db, labels: {x: y}, timezone: UTC}]}
runner:
  concurrency: 16
  grace: ${GRACE:-20s}
  deadline: 50m
  heartbeat: 5s
  lease: 20s
  shrink: {percent: 12.5, tenants: 5}
tenants:
  agency_acme:
    enabled: true
    timezone: Europe/Berlin
    labels: {plan: gold}
    debug_delay: 10ms
    jobs: {exchanges.purge: {enabled: false}}
jobs:
  compliance.overdue_actions:
    schedule: "0 0 * * *"
    timeout: 1h30m
    retries: 0
    options: {grace_days: 0, names: [a, b], deep: {er: null}}
metrics:
  pushgateway: https://${TOKEN:-t}@gateway
  pushgateway_job: nightly
  textfile: var/cron.prom
  port: 9100
  host: 0.0.0.0
  series_limit: 10
  timeout: 3s
log: {format: json, level: debug}
job_folder: work
"""


def test_schema_and_load_accept_every_key(tmp_path: Path) -> None:
    path = tmp_path / "tenants.yaml"
    path.write_text(FULL, encoding="utf-8")
    (tmp_path / "pw").write_text("x")
    (tmp_path / "url").write_text("mysql://h")
    assert validate(path) == []
    load(path, {})


@pytest.mark.parametrize(
    ("right", "wrong"),
    [
        ("grace: ${GRACE:-20s}", "grace: 20"),
        ("grace: ${GRACE:-20s}", "grace: 20 s"),
        ("concurrency: 16", "concurrency: 0"),
        ("concurrency: 16", "concurrency: true"),
        ("concurrency: 16", "concurency: 16"),
        ("tls: verify", "tls: maybe"),
        ("retries: 0", "retries: -1"),
        ("port: 9100", "port: 70000"),
        ("percent: 12.5", "percent: 101"),
        ("cron.prom", "cron.txt"),
        ("https://${TOKEN:-t}@gateway", "gateway:9091"),
        ("{plan: gold}", "{plan: 1.5}"),
        ("{plan: gold}", "[gold]"),
        ("discover: {query: SELECT 1}", "discover: {query: SELECT 1, databases: a}"),
        ("discover: {query: SELECT 1}", "discover: {}"),
        ("list: [a, ", "list: [7, "),
        ("servers:\n", "servers: {}\nrest:\n"),
        ("  files:\n", "  my files:\n"),
        ("job_folder: work", "job_folder: ''"),
        ("format: json", "format: xml"),
    ],
)
def test_schema_and_load_refuse_the_same(tmp_path: Path, right: str, wrong: str) -> None:
    assert right in FULL
    path = tmp_path / "tenants.yaml"
    path.write_text(FULL.replace(right, wrong), encoding="utf-8")
    (tmp_path / "pw").write_text("x")
    (tmp_path / "url").write_text("mysql://h")
    assert validate(path)
    with pytest.raises(ConfigError):
        load(path, {})
