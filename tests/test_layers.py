"""The house keeps its storeys: what the import contracts cannot say, and that they bite."""

import ast
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
PACKAGE = ROOT / "cronrunner"
MODULES = sorted(PACKAGE.rglob("*.py"))


WORDS = [*sorted(PACKAGE.glob("model/*.py")), PACKAGE / "errors.py", PACKAGE / "events.py"]


@pytest.mark.parametrize("module", WORDS, ids=lambda path: path.name)
def test_words_are_made_of_the_standard_library(module: Path) -> None:
    imported = {name.partition(".")[0] for name in _imports(module)}
    assert imported <= sys.stdlib_module_names | {"cronrunner"}


@pytest.mark.parametrize("module", MODULES, ids=lambda path: str(path.relative_to(PACKAGE)))
def test_the_face_is_for_authors_and_no_module_looks_into_it(module: Path) -> None:
    """`from cronrunner import job` inside the house would tie every module to every other."""
    for name in _imports(module):
        head, _, rest = name.partition(".")
        if head == "cronrunner" and rest != "__version__":
            first = rest.partition(".")[0]
            assert (PACKAGE / first).is_dir() or (PACKAGE / f"{first}.py").exists(), name


def test_an_import_that_goes_up_breaks_the_contract(tmp_path: Path) -> None:
    assert _lint_imports(_copy(tmp_path / "kept")).returncode == 0

    broken = _copy(tmp_path / "broken")
    with (broken / "cronrunner/model/life.py").open("a") as file:
        file.write("\nfrom cronrunner import registry\n")
    answer = _lint_imports(broken)

    assert answer.returncode == 1
    assert "cronrunner.model is not allowed to import cronrunner.registry" in " ".join(
        answer.stdout.split()
    )


def test_a_module_without_a_layer_breaks_the_contract(tmp_path: Path) -> None:
    copy = _copy(tmp_path)
    (copy / "cronrunner/elsewhere.py").touch()
    answer = _lint_imports(copy)
    assert answer.returncode == 1
    assert "elsewhere" in answer.stdout


def _imports(path: Path) -> Iterator[str]:
    """Yield the full names that a module imports, at its top or inside of functions."""
    for node in ast.walk(ast.parse(path.read_text())):
        match node:
            case ast.Import(names=names):
                yield from (alias.name for alias in names)
            case ast.ImportFrom(module=str(module), names=names, level=0):
                yield from (f"{module}.{alias.name}" for alias in names)
            case ast.ImportFrom(level=level) if level > 0:
                pytest.fail(f"{path}:{node.lineno}: imports are absolute")


def _copy(folder: Path) -> Path:
    shutil.copytree(PACKAGE, folder / "cronrunner", ignore=shutil.ignore_patterns("__pycache__"))
    shutil.copy(ROOT / "pyproject.toml", folder)
    return folder


def _lint_imports(folder: Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [Path(sys.executable).with_name("lint-imports"), "--no-cache"],
        cwd=folder,
        # The copy and not this checkout, which is installed.
        env={"PYTHONPATH": str(folder), "PATH": "", "COLUMNS": "500"},
        capture_output=True,
        text=True,
        check=False,
    )
