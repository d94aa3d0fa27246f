"""Whatever comes in by any door: a result or a sentence, soon, and without filling memory.

Files are real ones with bytes flipped, cut, doubled and put in; records and arguments are any JSON. 300 cases by
default, 5,000 with `pytest -m slow`, the same on every run.
"""

from __future__ import annotations

import atexit
import io
import json
import resource
import shutil
import tempfile
import time
import zipfile
from collections.abc import Callable
from functools import cache
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as some
from PIL import Image
from scan_files import dicom_dataset, write_nifti, write_series

from emitdiff.checkpoints import checkpoints_folder
from emitdiff.checksums import check_checksums
from emitdiff.datasets.archive import pack_folder, unpack_dataset
from emitdiff.datasets.check import check_dataset
from emitdiff.datasets.folder import open_dataset
from emitdiff.errors import EmitDiffError, explain
from emitdiff.provenance import read_origin, read_synthetic_settings, save_synthetic_png
from emitdiff.scans.masks import read_mask
from emitdiff.scans.reading import read_scan
from emitdiff.synthesis_settings import SynthesisSettings

FEW, MANY = 300, 5000
SECONDS = 10  # of a processor, for a file of some kilobytes
MEMORY = 2**30  # that all cases of a kind may add to the process
BYTES = some.binary(max_size=12)
JSON = some.recursive(
    some.none() | some.booleans() | some.integers(-(2**70), 2**70) | some.floats() | some.text(max_size=20),
    lambda inner: some.lists(inner, max_size=4) | some.dictionaries(some.text(max_size=8), inner, max_size=4),
    max_leaves=8,
)
ODD_TEXT = some.sampled_from(
    ["", "=1+1", "../../etc/passwd", "a" * 3000, "\x00", "\ud800", "NaN", "-1", "1e400", "\n", "🩻"]
)


@cache
def samples() -> dict[str, bytes]:
    """A small file of every kind, by its name."""
    with TemporaryDirectory() as place:
        folder, rng = Path(place), np.random.default_rng(0)
        grey = rng.integers(0, 256, (24, 32), np.uint8)
        colour = np.stack([grey, grey[::-1], grey.T[:1].repeat(24, 0)[:, :1].repeat(32, 1)], -1)
        for name in ("a.png", "a.jpg", "a.webp", "a.tif", "a.bmp"):
            Image.fromarray(colour).save(folder / name)
        Image.fromarray(grey.astype(np.uint16) * 256).save(folder / "deep.png")
        Image.fromarray(grey).save(folder / "pages.tif", save_all=True, append_images=[Image.fromarray(grey)] * 3)
        save_synthetic_png(colour, folder / "synthetic_a.png", SynthesisSettings(prompt="CT").record())
        for name in ("a.nii", "a.nii.gz"):
            write_nifti(folder / name, grey[:8, :9, None].repeat(4, 2).astype(np.int16))
        dicom_dataset(grey.astype(np.uint16)).save_as(folder / "a.dcm", enforce_file_format=True)
        dicom_dataset(colour).save_as(folder / "colour.dcm", enforce_file_format=True)
        write_series(folder / "series", 3)
        pack_folder(folder / "series", folder / "series.zip", "series")
        return {path.name: path.read_bytes() for path in folder.iterdir() if path.is_file()}


@some.composite
def mutated(draw: Callable, content: bytes) -> bytes:
    """The bytes of a file, changed in a few places, more often near its beginning, where headers are."""
    changed = bytearray(content)
    for _ in range(draw(some.integers(1, 6))):
        end = max(len(changed) - 1, 0)
        place = draw(some.integers(0, min(end, 400)) | some.integers(0, end))
        kind = draw(some.sampled_from(["flip", "flip", "flip", "set", "insert", "remove", "cut", "repeat"]))
        if kind == "flip" and changed:
            changed[place] ^= 1 << draw(some.integers(0, 7))
        elif kind == "set":
            value = draw(
                some.sampled_from([b"\xff\xff\xff\xff", b"\0\0\0\0", b"\x7f\xff\xff\xff", b"\xff\xff\xff\x7f"])
            )
            changed[place : place + 4] = value
        elif kind == "insert":
            changed[place:place] = draw(BYTES)
        elif kind == "remove":
            del changed[place : place + draw(some.integers(1, 64))]
        elif kind == "cut":
            del changed[place:]
        else:
            changed[place:place] = changed[place : place + draw(some.integers(1, 200))]
    return bytes(changed)


def file_of(*names: str) -> Any:
    """A changed file: (its name, its bytes)."""
    chosen = some.sampled_from(names or sorted(samples()))
    return chosen.flatmap(lambda name: mutated(samples()[name]).map(lambda content: (name, content)))


def in_a_folder(use: Callable[[Path], object]) -> Callable[[tuple[str, bytes]], None]:
    """`use` for the path of a file with such a name and content."""

    def written(file: tuple[str, bytes]) -> None:
        with TemporaryDirectory() as place:
            path = Path(place) / file[0]
            path.write_bytes(file[1])
            use(path)

    return written


def look_at(path: Path) -> None:
    scan = read_scan(path)
    scan.image(scan.middle)


@cache
def dataset() -> dict[str, bytes]:
    """The files of a dataset folder by their paths."""
    picture, mask = io.BytesIO(), io.BytesIO()
    Image.fromarray(np.arange(192, dtype=np.uint8).reshape(8, 8, 3)).save(picture, "PNG")
    Image.fromarray(np.eye(8, dtype=np.uint8)).save(mask, "PNG")
    info = {"name": "discs", "modality": "CT", "organ": "liver", "labels": {"background": 0, "liver": 1}}
    rows = "file_name,mask_file_name,group,text\nimages/a.png,masks/a.png,1,a liver\nimages/b.png,masks/b.png,2,\n"
    pictures = {f"images/{name}.png": picture.getvalue() for name in "ab"}
    masks = {f"masks/{name}.png": mask.getvalue() for name in "ab"}
    return {"dataset.json": json.dumps(info).encode(), "metadata.csv": rows.encode(), **pictures, **masks}


def write_dataset(folder: Path, changes: dict[str, bytes]) -> None:
    for name, content in {**dataset(), **changes}.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(content)


def changed_dataset() -> Any:
    """One file of a dataset with other bytes, or dataset.json with any JSON in one of its fields."""
    names = some.sampled_from(["dataset.json", "metadata.csv", "metadata.csv", "images/a.png", "masks/a.png"])
    damaged = names.flatmap(lambda name: mutated(dataset()[name]).map(lambda content: {name: content}))
    info = json.loads(dataset()["dataset.json"])
    fields = some.tuples(some.sampled_from([*info, "licence", "more"]), JSON | ODD_TEXT)
    odd = fields.map(lambda field: {"dataset.json": _json({**info, field[0]: field[1]})})
    cells = some.lists(some.lists(ODD_TEXT | some.text(max_size=10), min_size=1, max_size=6), min_size=1, max_size=4)
    head = b"file_name,mask_file_name,group,text\n"
    tables = cells.map(lambda rows: {"metadata.csv": head + _text("\n".join(",".join(row) for row in rows))})
    return damaged | odd | tables


def _json(value: object) -> bytes:
    return _text(json.dumps(value))


def _text(value: str) -> bytes:
    return value.encode("utf-8", "surrogatepass")


def use_dataset(changes: dict[str, bytes]) -> None:
    with TemporaryDirectory() as place:
        write_dataset(Path(place), changes)
        str(check_dataset(place))
        opened = open_dataset(place)
        [opened[index] for index in range(min(2, len(opened)))]


@cache
def packed() -> bytes:
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w", zipfile.ZIP_DEFLATED) as zipped:
        for name, content in dataset().items():
            zipped.writestr(f"discs/{name}", content)
    return file.getvalue()


def use_archive(content: bytes) -> None:
    with TemporaryDirectory() as place:
        (Path(place) / "a.zip").write_bytes(content)
        folder = unpack_dataset(Path(place) / "a.zip", Path(place) / "into")
        assert folder.is_relative_to(Path(place) / "into")
        open_dataset(folder)


@cache
def head_file() -> bytes:
    """A few-shot head, small but whole."""
    import torch
    from safetensors.torch import save

    from emitdiff.segmentation.few_shot.head import KIND, _content_sha256, config_record
    from emitdiff.segmentation.model.textdiff import HeadConfig, TextDiff

    torch.manual_seed(0)
    head = TextDiff(HeadConfig((4, 4), (0, 0), 8, 8, 2, 4, (8, 8)))
    card = {"targets": ["liver"], "checkpoint": "textdiff-mini", "backbone": "a", "text_encoder": "b",
            "resolution": 64, "cell": 4, "config": config_record(head)}  # fmt: skip
    weights = {name: value.contiguous() for name, value in head.state_dict().items()}
    words = json.dumps(card)
    return save(weights, {"kind": KIND, "card": words, "sha256": _content_sha256(words, weights)})


def use_head(file: tuple[str, bytes]) -> None:
    from emitdiff.segmentation.few_shot.head import _read_head, read_few_shot_head

    def read(path: Path) -> None:
        card, weights = read_few_shot_head(path)
        _read_head(weights, card, path.name)

    in_a_folder(read)(file)


def head_with_any_card() -> Any:
    """A head whose card says anything, and whose hash agrees with it: one that somebody made."""
    from safetensors.torch import load, save

    from emitdiff.segmentation.few_shot.head import KIND, _content_sha256

    weights = load(head_file())
    card = json.loads(_metadata(head_file())["card"])

    def made(change: tuple[str, object]) -> tuple[str, bytes]:
        words = json.dumps({**card, change[0]: change[1]})
        return "head.safetensors", save(
            weights, {"kind": KIND, "card": words, "sha256": _content_sha256(words, weights)}
        )

    return some.tuples(some.sampled_from([*card, "sizes"]), JSON).map(made)


def _metadata(content: bytes) -> dict[str, str]:
    return json.loads(content[8 : 8 + int.from_bytes(content[:8], "little")])["__metadata__"]


def use_record(record: dict[str, Any]) -> None:
    read = SynthesisSettings.from_record(record)
    read.check_kinds()
    assert SynthesisSettings.from_record(json.loads(json.dumps(read.record()))) == read or _has_nan(read)


def _has_nan(read: SynthesisSettings) -> bool:
    return any(value != value for value in (*vars(read).values(), *(vars(read.edit).values() if read.edit else ())))


FIELDS = [*SynthesisSettings.__dataclass_fields__, "checkpoint", "row", "made_with"]


@cache
def endpoints() -> dict[str, Any]:
    """The functions behind the endpoints, as Gradio calls them, with their arguments."""
    import gradio as gr
    from fakes import fake_callables

    from emitdiff.ui.programs import answers
    from emitdiff.ui.programs.endpoints import Endpoints

    found: dict[str, Any] = {}
    with pytest.MonkeyPatch.context() as patched:
        real = answers.documented

        def remember(function: Callable, arguments: dict) -> Callable:
            made = real(function, arguments)
            found[function.__name__] = made, arguments
            return made

        patched.setattr(answers, "documented", remember)
        with gr.Blocks():
            Endpoints(fake_callables())
    return found


@some.composite
def called(draw: Callable) -> tuple[str, dict[str, Any]]:
    """An endpoint and its arguments: right ones, but for some that are anything."""
    name = draw(some.sampled_from(["edges", "segment", "evaluate"]))
    _, arguments = endpoints()[name]
    picture = str(_picture())
    right = {"image": picture, "mask": None, "prompt": "CT", "text": "lung", "dataset": picture}
    values = {key: right[key] for key in arguments if key in right}
    for key in draw(some.lists(some.sampled_from(sorted(arguments)), max_size=3)):
        values[key] = draw(JSON | ODD_TEXT | some.floats() | some.integers())
    return name, values


@cache
def _picture() -> Path:
    """A file as Gradio hands one over."""
    path = Path(tempfile.mkdtemp(prefix="emitdiff_fuzz_")) / "a.png"
    path.write_bytes(samples()["a.png"])
    atexit.register(shutil.rmtree, path.parent, ignore_errors=True)
    return path


def use_endpoint(call: tuple[str, dict[str, Any]]) -> None:
    import gradio as gr

    name, values = call
    answer = endpoints()[name][0]
    try:
        found = answer(**values)
        if hasattr(found, "__next__"):
            list(found)
    except gr.Error as error:
        assert "Unexpected error" not in str(error), f"{name}: {error} for {values!r}"
        raise EmitDiffError(str(error)) from None


def use_form(stored: dict[str, Any]) -> None:
    from emitdiff.ui.form import check_request, form_values

    values, _ = form_values(stored, {"detector": ["soft", "canny"], "preset": ["default"], "checkpoint": ["mini"]})
    check_request({**values, "prompt": stored.get("prompt", "CT")})


def use_checksums(content: bytes) -> None:
    with TemporaryDirectory() as place:
        folder = shutil.copytree(checkpoints_folder() / "hed-mini", Path(place) / "weights")
        (folder / "checksums.json").write_bytes(content)
        check_checksums(folder, required=True)


PICTURES = ("a.png", "a.jpg", "a.webp", "a.tif", "pages.tif", "deep.png")
DOORS: dict[str, tuple[Callable[[], Any], Callable[[Any], object]]] = {
    "pictures": (lambda: file_of(*PICTURES), in_a_folder(look_at)),
    "dicom": (lambda: file_of("a.dcm", "colour.dcm"), in_a_folder(look_at)),
    "nifti": (lambda: file_of("a.nii", "a.nii.gz"), in_a_folder(look_at)),
    "zipped series": (lambda: file_of("series.zip"), in_a_folder(look_at)),
    "masks": (lambda: file_of(), in_a_folder(read_mask)),
    "anything": (lambda: some.tuples(some.just("scan"), some.binary(max_size=600)), in_a_folder(look_at)),
    "synthetic": (
        lambda: file_of("synthetic_a.png"),
        in_a_folder(lambda path: (read_origin(path), read_synthetic_settings(path))),
    ),
    "dataset folder": (changed_dataset, use_dataset),
    "dataset archive": (lambda: mutated(packed()), use_archive),
    "few-shot head": (lambda: mutated(head_file()).map(lambda content: ("head.safetensors", content)), use_head),
    "few-shot card": (head_with_any_card, use_head),
    "settings": (lambda: some.dictionaries(some.sampled_from(FIELDS), JSON, max_size=4), use_record),
    "form": (lambda: some.dictionaries(some.sampled_from([*FIELDS, "move_x"]), JSON, max_size=4), use_form),
    "checksums": (
        lambda: mutated((checkpoints_folder() / "hed-mini" / "checksums.json").read_bytes()),
        use_checksums,
    ),
    "endpoints": (called, use_endpoint),
}


def fuzz(door: str, cases: int) -> None:
    strategy, use = DOORS[door]
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024

    @settings(
        max_examples=cases, deadline=None, derandomize=True, database=None, suppress_health_check=list(HealthCheck)
    )
    @given(strategy())
    def case(value: Any) -> None:
        started = time.process_time()
        try:
            use(value)
        except Exception as error:
            said = explain(error)  # as the command line and the page ask for every error
            if said is None:
                raise
            assert said.strip() and "Traceback" not in said and len(said) < 5000
        assert time.process_time() - started < SECONDS

    case()
    added = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024 - before
    assert added < MEMORY, f"{added / 2**20:.0f} MiB more"


@pytest.mark.parametrize("door", DOORS)
def test_a_result_or_a_sentence(door):
    fuzz(door, FEW // len(DOORS))


@pytest.mark.slow
@pytest.mark.timeout(1800)
@pytest.mark.parametrize("door", DOORS)
def test_a_result_or_a_sentence_for_many_more(door):
    fuzz(door, MANY // len(DOORS) + 1)
