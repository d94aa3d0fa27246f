import json
import re
import subprocess
import sys
from pathlib import Path

import pytest

from emitdiff.errors import explain, first_line, shown

ROOT = Path(__file__).parents[1]


@pytest.mark.parametrize(
    ("error", "said"),
    [
        (ValueError("no such key\nin line 3"), "no such key"),
        (ValueError(), "ValueError"),
        (KeyError("weight"), "'weight'"),
        (OSError("x" * 300), "x" * 200),
    ],
)
def test_of_an_error_the_first_line_is_said(error, said):
    assert first_line(error) == said


WRITERS = """
import resource, sys, json
import numpy as np, torch
from PIL import Image
from safetensors.torch import save_file
from emitdiff.errors import explain
from emitdiff.files import write_atomically
from pathlib import Path
folder, noise = Path(sys.argv[1]), np.random.default_rng(0).integers(0, 256, (256, 256, 3), np.uint8)
resource.setrlimit(resource.RLIMIT_FSIZE, (2000, 2000))
writers = {
    "png": lambda path: Image.fromarray(noise).save(path, format="PNG"),
    "tiff": lambda path: Image.fromarray(noise).save(path, format="TIFF"),
    "webp": lambda path: Image.fromarray(noise).save(path, format="WEBP"),
    "safetensors": lambda path: save_file({"a": torch.zeros(10_000)}, path),
    "torch": lambda path: torch.save({"a": torch.zeros(10_000)}, path),
    "text": lambda path: path.write_text("a" * 10_000),
    "numpy": lambda path: np.save(path.open("wb"), noise),
}
said = {}
for name, write in writers.items():
    try:
        write_atomically(folder / name, write)
    except BaseException as error:
        said[name] = explain(error)
    else:
        said[name] = "nothing"
print(json.dumps(said))
"""


def test_a_full_disk_is_one_sentence_whoever_writes_and_no_half_file_stays(tmp_path):
    command = [sys.executable, "-c", WRITERS, str(tmp_path)]
    answer = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=120, check=True)
    said = json.loads(answer.stdout)
    assert len(said) == 7
    assert all(sentence and sentence.startswith("There is no space left to write") for sentence in said.values()), said
    assert not list(tmp_path.iterdir())


def nested(depth: int) -> str:
    return "[" * depth + "]" * depth


@pytest.mark.parametrize(
    ("error", "words"),
    [
        (PermissionError(13, "Permission denied", "/home/me/out/a.png"), "no permission to use '/home/me/out/a.png'"),
        (OSError(30, "Read-only file system", "out"), "read-only: give another folder"),
        (OSError(28, "No space left on device"), "no space left to write the result"),
        (OSError(24, "Too many open files", "a"), "Too many files are open"),
        (OSError(36, "File name too long", "a" * 300), "A name is too long"),
        (IsADirectoryError(21, "Is a directory", "out/mask.png"), r"'out/mask.png' cannot be used \(Is a directory\)"),
        (MemoryError(), "not enough memory"),
        (RuntimeError("[enforce fail] DefaultCPUAllocator: can't allocate memory: you tried"), "not enough memory"),
        (RuntimeError("CUDA out of memory. Tried to allocate 2.00 GiB"), "not enough memory"),
        (ValueError("When localhost is not accessible, a shareable link must be created. Please set share=True"),
         "start it again when the machine is less busy"),
        (UnicodeEncodeError("utf-8", "\udcff", 0, 1, "surrogates not allowed"), "cannot be written"),
    ],
)  # fmt: skip
def test_what_the_machine_is_at_fault_for_is_said(error, words):
    assert re.search(words, explain(error))
    assert "share" not in explain(error)


def test_data_nested_too_deeply_is_said():
    with pytest.raises(RecursionError) as caught:
        json.loads(nested(100_000))
    assert "nested too deeply" in explain(caught.value)


def test_a_defect_of_the_program_stays_one():
    for error in (TypeError("x"), KeyError("x"), RuntimeError("shapes differ"), ZeroDivisionError()):
        assert explain(error) is None


def test_a_server_does_not_tell_where_its_folders_lie():
    assert "home" not in explain(OSError(28, "No space left on device", "/home/me/a.png"), tell_places=False)


@pytest.mark.parametrize(
    ("value", "words"),
    [
        ([1, {"a": [2]}], "[1, {'a': [2]}]"),
        (object(), "of the kind object"),
        ("a" * 99, f"'{'a' * 59}..."),
        (1.5, "1.5"),
        (None, "None"),
    ],
)
def test_of_a_value_its_kind_is_shown_where_it_is_not_short(value, words):
    assert shown(value) == words
