"""What is published: every package, every data file, the licence; the wheel holds it all."""

from __future__ import annotations

import ast
import shutil
import subprocess
import sys
import tomllib
import zipfile
from collections.abc import Iterator
from pathlib import Path

import pytest

TOP = Path(__file__).parents[1]
ROOMS = ("curation", "pipelines", "model")
DATA = (".yaml", ".md", ".html", ".j2", ".css", ".js", ".svg", ".json")


#: What a room may import of another; all of the trainer's but the first import nothing of ours.
ALLOWED = {
    "curation": (),
    "model": (
        "curation.manifest",
        "curation.plain_yaml",
        "curation.nearest",
        "curation.looking.torchvision_schemas",
    ),
    "pipelines": ("curation", "model"),
}


def code_folders() -> set[str]:
    return {
        "rushes." + ".".join(path.parent.relative_to(TOP).parts)
        for room in ROOMS
        for path in (TOP / room).rglob("*.py")
    }


def test_every_folder_with_code_is_a_published_package():
    listed = tomllib.loads((TOP / "pyproject.toml").read_text())["tool"]["setuptools"]["packages"]
    assert sorted(listed) == sorted(code_folders())


def imports(path: Path) -> Iterator[str]:
    """Modules of ours that a file imports, without `rushes.`, wherever in the file."""
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.ImportFrom) and (node.module or "").startswith("rushes"):
            yield from (f"{node.module}.{alias.name}".removeprefix("rushes.") for alias in node.names)
        elif isinstance(node, ast.Import):
            yield from (alias.name.removeprefix("rushes.") for alias in node.names if alias.name.startswith("rushes."))


@pytest.mark.parametrize("room", ROOMS)
def test_a_room_imports_what_the_arrows_allow(room):
    wrong = [
        f"{path.relative_to(TOP)}: {name}"
        for path in (TOP / room).rglob("*.py")
        for name in imports(path)
        if not any(f"{name}.".startswith(f"{allowed}.") for allowed in (room, *ALLOWED[room]))
    ]
    assert not wrong


@pytest.mark.heavy
def test_the_wheel_holds_all_code_all_data_and_the_licence(tmp_path):
    tree = tmp_path / "tree"  # setuptools builds inside the tree and takes what an earlier build left there
    for room in ROOMS:
        shutil.copytree(TOP / room, tree / room, ignore=shutil.ignore_patterns("__pycache__"))
    for file in ("pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(TOP / file, tree / file)
    command = [sys.executable, "-m", "pip", "wheel", "--no-deps", "--quiet", "--wheel-dir", str(tmp_path), str(tree)]
    subprocess.run(command, check=True, stdin=subprocess.DEVNULL)
    (wheel,) = tmp_path.glob("*.whl")
    with zipfile.ZipFile(wheel) as archive:
        inside = set(archive.namelist())
    files = {
        f"rushes/{path.relative_to(TOP)}"
        for room in ROOMS
        for path in (TOP / room).rglob("*")
        if path.is_file() and (path.suffix == ".py" or path.suffix in DATA)
    }
    assert files <= inside, sorted(files - inside)
    assert any(name.endswith("licenses/LICENSE") for name in inside)
