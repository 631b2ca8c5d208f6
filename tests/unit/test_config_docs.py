"""docs/configuration.md names every key with its default, and its examples are valid."""

import re
from datetime import timedelta
from pathlib import Path
from textwrap import dedent
from typing import Any

import pytest
from pydantic_core import PydanticUndefined

from cronrunner.config import load, sections
from cronrunner.config.sections import DEFAULT_LEDGER, Section
from cronrunner.errors import ConfigError
from cronrunner.model import format_duration

ROOT = Path(__file__).resolve().parents[2]
TEXT = (ROOT / "docs/configuration.md").read_text(encoding="utf-8")

#: The heading below which the keys of each section stand.
HEADINGS: dict[str, type[Section]] = {
    "The file": sections.TenantsFile,
    "Servers": sections.ServerSettings,
    "Discover": sections.Discover,
    "Listed tenants": sections.ListedTenant,
    "Ledger": sections.LedgerSettings,
    "Runner": sections.RunnerSettings,
    "Shrink": sections.ShrinkSettings,
    "Quarantine": sections.QuarantineSettings,
    "Tenants": sections.TenantSettings,
    "Jobs": sections.JobSettings,
    "Metrics": sections.MetricsSettings,
    "Log": sections.LogSettings,
}

EXAMPLES = re.findall(r"```yaml\n(.*?)```", TEXT, re.DOTALL)


def below(heading: str) -> str:
    """Return the text from a heading to the next one."""
    found = re.search(rf"^##+ {heading}\n(.*?)(?=^##|\Z)", TEXT, re.DOTALL | re.MULTILINE)
    assert found, f"no heading {heading!r}"
    return found[1]


def default(section: type[Section], key: str) -> str:
    """Return the default of a key as the page writes it."""
    value: Any = section.model_fields[key].default
    if (section.__name__, key) in {("TenantsFile", "ledger"), ("LedgerSettings", "url")}:
        return f"`{DEFAULT_LEDGER}`"
    if value is PydanticUndefined:
        return "required"
    if value in (None, "", (), {}) or isinstance(value, Section):
        return ""
    if isinstance(value, bool):
        return f"`{str(value).lower()}`"
    return f"`{format_duration(value) if isinstance(value, timedelta) else value}`"


def test_every_section_has_a_heading() -> None:
    known = {
        each
        for each in vars(sections).values()
        if isinstance(each, type) and issubclass(each, Section) and each is not Section
    }
    assert set(HEADINGS.values()) == known


@pytest.mark.parametrize("heading", HEADINGS)
def test_every_key_is_documented_with_its_default(heading: str) -> None:
    section = HEADINGS[heading]
    rows = re.findall(r"^\| `(\w+)` \|(.*?)\|(.*?)\|(.*)\|$", below(heading), re.MULTILINE)
    assert {key: shown.strip() for key, _, shown, _ in rows} == {
        key: default(section, key) for key in section.model_fields
    }
    assert all(kind.strip() and meaning.strip() for _, kind, _, meaning in rows)


@pytest.mark.parametrize("example", EXAMPLES, ids=range(len(EXAMPLES)))
def test_every_example_is_valid(tmp_path: Path, example: str) -> None:
    text = example
    if text.startswith("discover:"):
        text = f"servers:\n  main:\n    url: sqlite://\n{indented(text)}"
    elif "servers:" not in text:
        text += "servers: {main: {url: 'sqlite://', discover: {list: [a]}}}\n"
    path = tmp_path / "tenants.yaml"
    for name in ("db_password", "db_ca.pem"):
        (tmp_path / name).write_text("x")
    path.write_text(text.replace("/run/secrets/", ""), encoding="utf-8")
    assert load(path, {"DB_PASSWORD": "x"}).warnings == ()


def indented(text: str) -> str:
    return "".join(f"    {line}\n" for line in dedent(text).splitlines())


def test_the_reported_mistakes_are_what_check_says(tmp_path: Path) -> None:
    """The page shows real messages, not remembered ones."""
    shown = re.findall(r"^tenants\.yaml:\d+: (.*)$", TEXT, re.MULTILINE)
    path = tmp_path / "tenants.yaml"
    path.write_text(
        "servers:\n  main:\n    url: mysql://cron:${DB_PASWORD}@db\n    tls: requird\n"
        "    discover: {databases: a}\nrunner: {grace: soon}\n"
    )
    with pytest.raises(ConfigError) as caught:
        load(path, {})
    assert [problem.text for problem in caught.value.problems] == shown
