"""Who imports whom: no circle, each room what its rules allow, and nothing heavy too early."""

from __future__ import annotations

import ast
import subprocess
import sys
from pathlib import Path

import pytest

import emitdiff

ROOT = Path(emitdiff.__file__).resolve().parents[1]
# file to plant, an import it must not make, and the sentence the linter answers with
VIOLATIONS = [
    ("emitdiff/synthesis/planted.py", "from emitdiff.segmentation import pipeline", "The two halves"),
    ("emitdiff/synthesis/planted.py", "from ..segmentation import pipeline", "The two halves"),
    ("emitdiff/synthesis/planted.py", "import gradio", "gradio belongs to"),
    ("emitdiff/segmentation/planted.py", "import emitdiff.synthesis.edges", "The two halves"),
    ("emitdiff/segmentation/planted.py", "from emitdiff import detect_edges", "The two halves"),
    ("emitdiff/ui/planted.py", "from emitdiff.scans.reading import read_scan", "handed callables"),
    ("emitdiff/ui/planted.py", "from emitdiff import load_synthesizer", "handed callables"),
    ("emitdiff/ui/planted.py", "import torch", "arrays, not tensors"),
    ("emitdiff/planted.py", "from emitdiff.synthesis import pipeline", "The ground floor"),
    ("emitdiff/planted.py", "from emitdiff import datasets", "does not know datasets"),
    ("emitdiff/planted.py", "from emitdiff.scans import masks", "does not know scans"),
    ("emitdiff/scans/planted.py", "from emitdiff.datasets import folder", "scans do not know datasets"),
    ("emitdiff/datasets/planted.py", "from emitdiff.synthesis import edges", "datasets do not know synthesis"),
    ("emitdiff/datasets/planted.py", "import diffusers", "diffusers belongs"),
    ("emitdiff/segmentation/model/planted.py", "from emitdiff.synthesis import edges", "The two halves"),
    ("emitdiff/studies/planted.py", "from emitdiff.commands import io", "Nothing imports the command line"),
    ("emitdiff/commands/planted.py", "from emitdiff.backend import services", "call the halves themselves"),
    ("emitdiff/backend/planted.py", "from emitdiff.ui import demo", "interface.py alone"),
    ("emitdiff/backend/planted.py", "from emitdiff.studies import labels", "Only the command line"),
    ("emitdiff/ui/planted.py", "from emitdiff.backend import services", "handed callables"),
    ("emitdiff/planted.py", "import diffusers", "diffusers belongs"),
]


def run(*arguments: str, **options) -> subprocess.CompletedProcess:
    return subprocess.run([sys.executable, *arguments], capture_output=True, text=True, cwd=ROOT, **options)


def lint(*arguments: str, source: str | None = None) -> subprocess.CompletedProcess:
    return run("-m", "ruff", "check", "--no-cache", "--output-format", "concise", *arguments, input=source)


def test_tree_keeps_the_import_rules():
    result = lint("--select", "TID251,TID253", ".")
    assert result.returncode == 0, result.stdout


@pytest.mark.parametrize(("path", "statement", "answer"), VIOLATIONS)
def test_linter_catches_a_planted_import(path, statement, answer):
    inside_a_function = f"def load():\n    {statement}\n"
    result = lint("--select", "TID251", "--stdin-filename", path, "-", source=inside_a_function)
    assert result.returncode == 1
    assert "TID251" in result.stdout
    assert answer in result.stdout


def test_linter_catches_torch_at_the_top_of_a_light_module():
    result = lint("--select", "TID253", "--stdin-filename", "emitdiff/planted.py", "-", source="import torch\n")
    assert "TID253" in result.stdout


@pytest.mark.parametrize(
    "module", ["emitdiff", "emitdiff.cli", "emitdiff.commands.studies", "emitdiff.checkpoints", "emitdiff.devices"]
)
def test_importing_is_light(module):
    heavy = ["torch", "diffusers", "transformers", "gradio", "monai", "cv2", "huggingface_hub", "matplotlib"]
    program = f"import sys, {module}; print([name for name in {heavy} if name in sys.modules])"
    assert run("-c", program).stdout.strip() == "[]"


# Who may import whom: a room, and the rooms below it that it may know. "" is the ground floor, emitdiff/*.py.
BELOW = {
    "": set(),
    "scans": {""},
    "datasets": {"", "scans"},
    "synthesis": {"", "scans", "datasets"},
    "segmentation": {"", "scans", "datasets"},
    "studies": {"", "scans", "datasets", "synthesis", "segmentation"},
    "commands": {"__init__", "", "scans", "datasets", "synthesis", "segmentation", "studies"},
    "ui": {""},
    "backend": {"", "scans", "datasets", "synthesis", "segmentation", "ui"},
    "serve": {"", "commands", "backend", "ui"},
    "cli": {"", "commands", "serve"},
    "__main__": {"cli"},
    "__init__": {"", "scans", "synthesis", "segmentation"},  # names the public functions, for editors and type checkers
}


def imports_of(file: Path, package: str, known: set[str]) -> set[str]:
    """The modules of ours that a file imports, inside functions and for annotations too."""
    found = set()
    for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names} & known
        elif isinstance(node, ast.ImportFrom):
            above = package.rsplit(".", node.level - 1)[0] if node.level else ""
            source = ".".join(part for part in (above, node.module) if part)
            for alias in node.names:
                inner = f"{source}.{alias.name}"
                found |= {inner if inner in known else source} & known
    return found


def import_graph(root: Path) -> dict[str, set[str]]:
    """Module to the modules that it imports, of every file of the package `root`."""
    files = {file: ".".join(file.relative_to(root.parent).with_suffix("").parts) for file in root.rglob("*.py")}
    modules = {name.removesuffix(".__init__"): file for file, name in files.items()}
    return {
        name: imports_of(file, name if file.name == "__init__.py" else name.rpartition(".")[0], set(modules))
        for name, file in modules.items()
    }


def find_circle(graph: dict[str, set[str]]) -> list[str]:
    """Some modules that import each other in turn, the first one again at the end; [] where there are none."""
    left = {name: set(others) for name, others in graph.items()}
    while ends := [name for name, others in left.items() if not others & left.keys()]:
        for name in ends:
            del left[name]
    if not left:
        return []
    path = [min(left)]
    while path[-1] not in path[:-1]:
        path.append(min(left[path[-1]] & left.keys()))
    return path[path.index(path[-1]) :]


def room_of(module: str) -> str:
    """The folder of a module below emitdiff; "" on the ground floor; the roof (serve, cli, __main__ and the package's
    own __init__) by its names."""
    parts = module.split(".")[1:] or ["__init__"]
    is_room = len(parts) > 1 or (ROOT / "emitdiff" / parts[0]).is_dir()
    return parts[0] if is_room or parts[:1] in (["serve"], ["cli"], ["__main__"], ["__init__"]) else ""


def test_no_modules_import_each_other_in_a_circle():
    assert " -> ".join(find_circle(import_graph(ROOT / "emitdiff"))) == ""


@pytest.mark.parametrize(
    ("first", "second"),
    [
        ("from house.b import door", "from house.a import window"),
        ("from house import b", "def late():\n    from house import a"),
        ("from .b import door", "from typing import TYPE_CHECKING\n\nif TYPE_CHECKING:\n    from .a import window"),
        ("import house.b", "from .a import window"),
    ],
)
def test_a_planted_circle_is_found(first, second, tmp_path):
    for name, text in {"__init__": "", "a": first, "b": second, "c": "from house.a import window"}.items():
        (tmp_path / "house").mkdir(exist_ok=True)
        (tmp_path / "house" / f"{name}.py").write_text(text)
    assert find_circle(import_graph(tmp_path / "house")) == ["house.a", "house.b", "house.a"]


def test_every_room_imports_only_what_stands_below_it():
    graph = import_graph(ROOT / "emitdiff")
    assert {room_of(name) for name in graph} == set(BELOW), "a room that is not in the table"
    wrong = [
        f"{name} -> {other}"
        for name, others in graph.items()
        for other in others
        if (room := room_of(other)) != room_of(name) and room not in BELOW[room_of(name)]
    ]
    assert wrong == []


def test_of_the_ui_the_backend_knows_the_interface_alone():
    graph = import_graph(ROOT / "emitdiff")
    known = {other for name in graph if room_of(name) == "backend" for other in graph[name] if room_of(other) == "ui"}
    assert known == {"emitdiff.ui.interface"}
