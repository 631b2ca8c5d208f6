"""What the pages say is there, and what is there they say."""

import json
import re
import shutil
import sqlite3
import subprocess
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import click
import pytest
from ruamel.yaml import YAML

from cronrunner.cli import cronrunner
from cronrunner.config import load
from cronrunner.model import ExitCode, Outcome
from tests.acceptance.forking import Command

ROOT = Path(__file__).resolve().parents[2]
PAGES = {
    path.relative_to(ROOT).as_posix(): path.read_text(encoding="utf-8")
    for path in [*sorted(ROOT.glob("*.md")), *sorted((ROOT / "docs").glob("*.md"))]
}
CLI = PAGES["docs/cli.md"]
GLOSSARY = PAGES["docs/glossary.md"]
SOURCES = "\n".join(
    path.read_text(encoding="utf-8") for path in sorted((ROOT / "cronrunner").rglob("*.py"))
)

FENCE = re.compile(r"^( *)```(\w*)\n(.*?)^\1```$", re.DOTALL | re.MULTILINE)


def blocks(language: str) -> Iterator[tuple[str, str]]:
    """Give the fenced blocks of a language, each with a name."""
    for page, text in PAGES.items():
        found = (block for _, kind, block in FENCE.findall(text) if kind == language)
        for number, block in enumerate(found):
            yield f"{page}-{number}", block


def prose(text: str) -> str:
    """Return a page without its fenced blocks."""
    return FENCE.sub("", text)


def sections(text: str) -> Mapping[str, str]:
    """Return what stands below each heading, whatever its depth, up to the next one."""
    parts = re.split(
        r"^#+ (.+)$", FENCE.sub(lambda block: block[0].replace("#", "\\"), text), flags=re.MULTILINE
    )
    return dict(zip(parts[1::2], parts[2::2], strict=True))


def run(folder: Path, *args: str, environ: Mapping[str, str] | None = None) -> Any:
    """Run a command with --json; give its document."""
    with Command(
        ["cronrunner", *args, "--json"],
        cwd=folder, env={"PYTHONPATH": str(ROOT), **(environ or {})},
        stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
    ) as process:  # fmt: skip
        stdout, stderr = process.communicate()
    assert stdout, stderr
    with (folder / "cron.log").open("a") as log:
        log.write(stderr)
    return json.loads(stdout)


# Commands, options, exit codes


def params(command: click.Command) -> list[click.Parameter]:
    """Return what a command takes, and what those below it take."""
    below = command.commands.values() if isinstance(command, click.Group) else ()
    return [*command.params, *(each for one in below for each in params(one))]


COMMANDS = sorted(cronrunner.commands)
OPTIONS = [
    pytest.param(name, option, id=f"{name}-{option.opts[-1]}")
    for name in COMMANDS
    for option in params(cronrunner.commands[name])
    if isinstance(option, click.Option)
]
SHARED = ("Options that are everywhere", "Options that choose tenants")


@pytest.mark.parametrize("name", COMMANDS)
def test_every_command_has_help_a_row_and_a_section(name: str) -> None:
    assert cronrunner.commands[name].help
    assert f"| [`{name}`](#{name}) |" in CLI
    assert name in sections(CLI)


def test_no_command_is_described_that_is_not_there() -> None:
    assert set(re.findall(r"^\| \[`(\w+)`\]\(#", CLI, re.MULTILINE)) == set(COMMANDS)


@pytest.mark.parametrize(("name", "option"), OPTIONS)
def test_every_option_has_help_and_a_row(name: str, option: click.Option) -> None:
    assert option.help
    of_command = sections(CLI)[name]
    shared = "".join(sections(CLI)[heading] for heading in SHARED)
    rows = [line for line in (of_command + shared).splitlines() if line.startswith("| `-")]
    for written in (*option.opts, *option.secondary_opts):
        assert any(re.search(rf"`{re.escape(written)}[ `]", row) for row in rows)


@pytest.mark.parametrize("name", COMMANDS)
def test_no_option_is_described_that_is_not_there(name: str) -> None:
    known = {written for option in params(cronrunner.commands[name]) for written in option.opts}
    described = re.findall(r"^\| `(--[a-z-]+)", sections(CLI)[name], re.MULTILINE)
    assert set(described) <= known


@pytest.mark.parametrize("page", PAGES)
def test_every_option_that_a_page_mentions_exists(page: str) -> None:
    # The other one is an option of timeout(1).
    known = {"--version", "--help", "--preserve-status"} | {
        written
        for command in cronrunner.commands.values()
        for option in params(command)
        for written in option.opts
    }
    typed = re.findall(r"cronrunner ((?:[^`\n]|\\\n)*)", PAGES[page])
    written = [word for line in typed for word in re.findall(r"(?<![\w-])--[a-z][a-z-]+", line)]
    assert set(written) <= known


@pytest.mark.parametrize("page", PAGES)
def test_every_command_that_a_page_mentions_exists(page: str) -> None:
    typed = re.findall(r"(?:`|^\$ |exec )cronrunner ([a-z]+)", PAGES[page], re.MULTILINE)
    assert set(typed) <= set(COMMANDS)


CODES = {name: code for name, code in vars(ExitCode).items() if name.isupper()}


@pytest.mark.parametrize("name", CODES)
def test_every_exit_code_is_documented(name: str) -> None:
    row = f"| {CODES[name]} | `{name}` |"
    assert row in CLI or f"{CODES[name]} (`{name}`" in CLI


def test_the_readme_has_the_exit_codes() -> None:
    rows = re.findall(r"^\| (\d+) \|", PAGES["README.md"], re.MULTILINE)
    assert {int(code) for code in rows} == set(CODES.values())


@pytest.mark.parametrize("command", [cronrunner, *cronrunner.commands.values()])
def test_every_environment_variable_is_documented(command: click.Command) -> None:
    variables = {str(option.envvar) for option in params(command) if option.envvar}
    documented = sections(CLI)["Environment variables"]
    assert all(f"| `{name}` |" in documented for name in variables)


# JSON


@pytest.fixture(scope="module")
def fleet(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Make a small fleet on which something fails and something is left out, and run it."""
    folder = tmp_path_factory.mktemp("fleet")
    for name in ("acorn", "birch"):
        sqlite3.connect(folder / f"{name}.db").execute("CREATE TABLE t (i)").connection.close()
    (folder / "jobs").mkdir()
    (folder / "jobs/well.sql").write_text("-- name: well\nDELETE FROM t WHERE i < 0;\n")
    (folder / "jobs/ill.sql").write_text("-- tenants: acorn\nDELETE FROM missing;\n")
    (folder / "tenants.yaml").write_text(
        "servers: {files: {url: 'sqlite://', discover: {directory: .}}}\n"
    )
    assert run(folder, "run")["exit_code"] == ExitCode.NOT_WELL
    assert run(folder, "pause", "--job=well", "--tenant=birch", "--reason=moved")
    return folder


DOCUMENTS = {
    ("run",): ("The document of a run", "An execution"),
    ("show", "last"): ("The document of a run", "An execution"),
    ("plan",): ("plan",),
    ("jobs",): ("jobs",),
    ("tenants",): ("tenants",),
    ("history",): ("history", "An execution"),
    ("history", "--runs"): ("history",),
    ("pause",): ("pause",),
    ("check",): ("check",),
    ("logs", "summary", "cron.log"): ("logs",),
    ("sql", "SELECT i FROM t"): ("sql",),
    ("sql", "SELECT i FROM missing"): ("sql",),
}
#: Mappings whose keys are data.
DATA = {"outcomes", "counters", "labels", "options", "rows"}


def keys(document: Any) -> Iterator[str]:
    match document:
        case dict():
            for key, value in document.items():
                yield key
                if key not in DATA:
                    yield from keys(value)
        case list():
            for member in document:
                yield from keys(member)


@pytest.mark.parametrize("args", DOCUMENTS, ids=" ".join)
def test_every_key_of_a_document_is_documented(fleet: Path, args: tuple[str, ...]) -> None:
    found = set(keys(run(fleet, *args)))
    documented = "".join(sections(CLI)[heading] for heading in DOCUMENTS[args])
    assert found
    assert {key for key in found if f"`{key}`" not in documented} == set()


@pytest.mark.parametrize("args", DOCUMENTS, ids=" ".join)
def test_no_key_is_documented_that_a_document_has_not(fleet: Path, args: tuple[str, ...]) -> None:
    found = set(keys(run(fleet, *args)))
    for heading in DOCUMENTS[args]:
        described = re.findall(r"^\| `([a-z_]+)` \|", sections(CLI)[heading], re.MULTILINE)
        # Only in the document of a run that is longer than any test of this page.
        assert set(described) - {"executions_truncated"} <= found


# Words


WORDS = re.findall(r"^\| \*\*(.+?)\*\* \|", GLOSSARY, re.MULTILINE)


@pytest.mark.parametrize("word", WORDS)
def test_every_word_of_the_glossary_is_used(word: str) -> None:
    assert re.search(rf"\b{word.lower()}", SOURCES, re.IGNORECASE)


def test_every_outcome_is_in_the_glossary() -> None:
    assert re.findall(r"^\| `(\w+)` \|", GLOSSARY, re.MULTILINE) == [str(each) for each in Outcome]


# Links


def anchors(page: str) -> set[str]:
    headings = re.findall(r"^#+ (.+)$", prose(PAGES[page]), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


LINKS = [
    pytest.param(page, link, id=f"{page}->{link}")
    for page, text in PAGES.items()
    for link in sorted(set(re.findall(r"\]\(([^)\s]+)\)", prose(text).replace("\n", " "))))
    if "://" not in link
]


@pytest.mark.parametrize(("page", "link"), LINKS)
def test_every_link_leads_somewhere(page: str, link: str) -> None:
    path, _, anchor = link.partition("#")
    target = (ROOT / page).parent / path if path else ROOT / page
    assert target.exists()
    if anchor:
        assert anchor in anchors(target.resolve().relative_to(ROOT).as_posix())


def test_the_readme_leads_to_every_page() -> None:
    assert all(f"({page})" in PAGES["README.md"] for page in PAGES if page != "README.md")


# Examples


def configurations() -> Iterator[Any]:
    for name, block in blocks("yaml"):
        document = YAML(typ="safe").load(block)
        if isinstance(document, dict) and "servers" in document:
            yield pytest.param(block, id=name)


@pytest.mark.parametrize("text", list(configurations()))
def test_every_whole_configuration_is_valid(tmp_path: Path, text: str) -> None:
    for name in re.findall(r"/[a-z/]+/([\w-]+(?:\.pem)?)\b", text):
        (tmp_path / name).write_text("x")
    path = tmp_path / "tenants.yaml"
    path.write_text(re.sub(r"/(?:run|etc)/[a-z/]+/", "", text))
    variables = dict.fromkeys(re.findall(r"\$\{(\w+)\}", text), "x")
    assert load(path, variables).warnings == ()


@pytest.fixture
def workshop(tmp_path: Path) -> Path:
    """Make a folder with the shipped jobs, beside which examples are put."""
    shutil.copytree(ROOT / "jobs", tmp_path / "jobs", ignore=shutil.ignore_patterns("__pycache__"))
    (tmp_path / "tenants.yaml").write_text(
        "servers: {files: {url: 'sqlite://', discover: {list: [a]}}}\n"
    )
    return tmp_path


def assert_loads(workshop: Path, file: str, text: str) -> None:
    before = {job["job"] for job in run(workshop, "jobs")}
    for path in (workshop / "jobs").glob("*.sql"):
        path.unlink()
    (workshop / "jobs" / file).write_text(text)
    assert run(workshop, "check")["errors"] == []
    assert any(job["origin"].startswith(file) for job in run(workshop, "jobs")), before


@pytest.mark.parametrize(
    "text",
    [pytest.param(b, id=n) for n, b in blocks("python") if "@job" in b and "import job" in b],
)
def test_every_job_in_python_loads(workshop: Path, text: str) -> None:
    assert_loads(workshop, "example.py", text)


@pytest.mark.parametrize(
    "text", [pytest.param(b, id=n) for n, b in blocks("sql") if b.startswith("-- ")]
)
def test_every_job_in_sql_loads(workshop: Path, text: str) -> None:
    assert_loads(workshop, "example.sql", text)


@pytest.mark.parametrize(
    "text", [pytest.param(b, id=n) for kind in ("json", "yaml") for n, b in blocks(kind)]
)
def test_every_document_can_be_read(text: str) -> None:
    assert YAML(typ="safe").load(text) is not None


@pytest.mark.parametrize("page", PAGES)
def test_every_make_target_that_a_page_names_exists(page: str) -> None:
    targets = re.findall(r"^([a-z][a-z-]*):", (ROOT / "Makefile").read_text(), re.MULTILINE)
    named = re.findall(r"(?:`|^\$ )make ([a-z-]+)", PAGES[page], re.MULTILINE)
    assert set(named) <= set(targets)
