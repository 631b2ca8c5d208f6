"""What is installed is what is locked, and what ships is what runs."""

import importlib.metadata
import re
import subprocess
import sys
import tomllib
import zipfile
from collections.abc import Iterator
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from cronrunner import __version__

ROOT = Path(__file__).resolve().parent.parent
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
LOCKS = sorted((ROOT / "requirements").glob("*.txt"))


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Iterator[zipfile.ZipFile]:
    folder = tmp_path_factory.mktemp("wheel")
    subprocess.run(
        [
            *(sys.executable, "-m", "pip", "wheel", "--quiet", "--disable-pip-version-check"),
            *("--no-build-isolation", "--no-deps", "--no-index", "--wheel-dir", str(folder)),
            str(ROOT),
        ],
        check=True,
    )
    (built,) = folder.glob("*.whl")
    with zipfile.ZipFile(built) as archive:
        yield archive


@pytest.mark.parametrize("lock", LOCKS, ids=lambda lock: lock.name)
def test_a_lock_holds_pinned_names_and_hashes_and_nothing_else(lock: Path) -> None:
    for line in lock.read_text().splitlines():
        assert re.fullmatch(
            r"[a-z0-9-]+(\[[a-z,]+\])?==[\w.]+( ; [\w. '=<>!()]+)? \\|    --hash=sha256:[0-9a-f]{64}( \\)?",
            line,
        ), f"{lock.name}: {line!r}"


@pytest.mark.parametrize("lock", ["runtime.txt", "dev.txt"])
def test_a_lock_satisfies_what_the_project_asks_for(lock: str) -> None:
    pinned = _pins(lock)
    for requirement in map(Requirement, PROJECT["dependencies"]):
        version = pinned[canonicalize_name(requirement.name)]
        assert requirement.specifier.contains(version), f"{requirement} is locked at {version}"


def test_tests_run_with_the_versions_that_ship() -> None:
    assert _pins("runtime.txt").items() <= _pins("dev.txt").items()
    assert _pins("build.txt").items() <= _pins("dev.txt").items()


def test_the_wheel_holds_the_package_and_nothing_else(wheel: zipfile.ZipFile) -> None:
    shipped = {name for name in wheel.namelist() if ".dist-info/" not in name}
    package = {
        str(path.relative_to(ROOT))
        for path in (ROOT / "cronrunner").rglob("*")
        if path.is_file() and "__pycache__" not in path.parts
    }
    assert shipped == package
    assert "cronrunner/py.typed" in shipped
    assert any(name.startswith("cronrunner/ledger/migrations/versions/") for name in shipped)


def test_the_wheel_declares_the_command_and_its_dependencies(wheel: zipfile.ZipFile) -> None:
    info = f"cronrunner-{__version__}.dist-info"
    assert "cronrunner = cronrunner.cli:main" in wheel.read(f"{info}/entry_points.txt").decode()
    metadata = wheel.read(f"{info}/METADATA").decode()
    declared = {Requirement(line) for line in re.findall(r"(?m)^Requires-Dist: (.+)$", metadata)}
    assert declared == {Requirement(line) for line in PROJECT["dependencies"]}


def test_the_installed_version_is_the_one_of_this_checkout() -> None:
    assert importlib.metadata.version("cronrunner") == __version__


def test_the_changelog_has_a_place_for_the_next_change() -> None:
    assert "\n## [Unreleased]\n" in (ROOT / "CHANGELOG.md").read_text()


def test_the_image_runs_the_fleet_as_nobody_in_particular() -> None:
    lines = (ROOT / "Dockerfile").read_text().splitlines()
    assert lines[-3:] == ["USER 10001:10001", 'ENTRYPOINT ["cronrunner"]', 'CMD ["run"]']


def test_every_target_of_the_makefile_says_what_it_does() -> None:
    makefile = (ROOT / "Makefile").read_text()
    phony = re.findall(r"^\.PHONY: (\S+)$", makefile, re.MULTILINE)
    listed = subprocess.run(
        ["make", "--no-print-directory", "help"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=True,
    ).stdout
    described = {line.split()[0] for line in listed.splitlines() if len(line.split()) > 1}
    assert described == set(phony) - {"again"}


def _pins(lock: str) -> dict[str, str]:
    text = (ROOT / "requirements" / lock).read_text()
    return dict(re.findall(r"^([a-z0-9-]+)(?:\[[a-z,]+\])?==(\S+)", text, re.MULTILINE))
