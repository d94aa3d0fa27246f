from __future__ import annotations

import shutil
import zipfile
from pathlib import Path

import pytest

from emitdiff.datasets import archive
from emitdiff.datasets.archive import pack_folder, unpack_dataset
from emitdiff.datasets.check import check_dataset
from emitdiff.errors import EmitDiffError


def zip_of(path: Path, files: dict[str, str]) -> Path:
    with zipfile.ZipFile(path, "w") as zipped:
        for name, text in files.items():
            zipped.writestr(name, text)
    return path


TABLES = {"set/dataset.json": "{}", "set/metadata.csv": "file_name"}


def test_a_packed_dataset_comes_back_as_it_was(dataset_folder, tmp_path):
    packed = pack_folder(dataset_folder, tmp_path / "discs.zip", "discs")
    folder = unpack_dataset(packed, tmp_path / "into")
    assert folder == tmp_path / "into" / "discs" and check_dataset(folder).ok
    for path in dataset_folder.rglob("*.png"):
        assert (folder / path.relative_to(dataset_folder)).read_bytes() == path.read_bytes()


def test_the_folder_itself_may_be_left_out_and_hidden_files_are(dataset_folder, tmp_path):
    shutil.make_archive(str(tmp_path / "loose"), "zip", dataset_folder)
    with zipfile.ZipFile(tmp_path / "loose.zip", "a") as zipped:
        zipped.writestr("__MACOSX/._dataset.json", "x")
        zipped.writestr("images/.DS_Store", "x")
    folder = unpack_dataset(tmp_path / "loose.zip", tmp_path / "into")
    assert folder.name == "loose" and check_dataset(folder).ok and not list(folder.rglob(".*"))


@pytest.mark.parametrize("name", ["../evil.txt", "/etc/evil.txt", "set/../../evil.txt", "C:/evil.txt", "a\\..\\b"])
def test_what_would_land_outside_is_refused_before_anything_is_written(tmp_path, name):
    packed = zip_of(tmp_path / "bad.zip", {**TABLES, name: "x"})
    with zipfile.ZipFile(packed) as zipped:
        assert name in zipped.namelist()
    with pytest.raises(EmitDiffError, match="outside its folder"):
        unpack_dataset(packed, tmp_path / "into")
    assert not (tmp_path / "into").exists()


class UnflaggedInfo(zipfile.ZipInfo):
    """A name in UTF-8 that is not said to be, as macOS packs it."""

    def _encodeFilenameFlags(self):
        return self.filename.encode(), self.flag_bits


@pytest.mark.parametrize("info", [zipfile.ZipInfo, UnflaggedInfo])
def test_names_come_as_they_were_packed_elsewhere(dataset_folder, tmp_path, info):
    """With decomposed letters, and with backslashes as old Windows programs put them."""
    with zipfile.ZipFile(tmp_path / "a.zip", "w") as zipped:
        for table in ("dataset.json", "metadata.csv"):
            zipped.writestr(f"set/{table}", (dataset_folder / table).read_text())
        zipped.writestr(info("set\\images\\La\u0308sion.png"), "x")
    folder = unpack_dataset(tmp_path / "a.zip", tmp_path / "into")
    assert [path.name for path in (folder / "images").iterdir()] == ["La\u0308sion.png"]


def test_a_file_that_comes_twice_is_refused(tmp_path):
    packed = zip_of(tmp_path / "twice.zip", {**TABLES, "set/images/a.png": "x", "set\\images\\a.png": "y"})
    with pytest.raises(EmitDiffError, match="'set/images/a.png' twice"):
        unpack_dataset(packed, tmp_path / "into")


def test_links_are_refused(tmp_path):
    packed = zip_of(tmp_path / "bad.zip", TABLES)
    link = zipfile.ZipInfo("set/images")
    link.external_attr = 0o120777 << 16
    with zipfile.ZipFile(packed, "a") as zipped:
        zipped.writestr(link, "/etc")
    with pytest.raises(EmitDiffError, match="the link"):
        unpack_dataset(packed, tmp_path / "into")


@pytest.mark.parametrize(
    ("limit", "value", "said"),
    [
        ("MAX_FILES", 1, "Limits: 1 files"),
        ("MAX_BYTES", 5, "Limits"),
        ("TABLES", {"dataset.json": 9, "metadata.csv": 4}, "metadata.csv in"),
    ],
)
def test_what_is_too_large_is_refused(tmp_path, monkeypatch, limit, value, said):
    monkeypatch.setattr(archive, limit, value)
    with pytest.raises(EmitDiffError, match=said):
        unpack_dataset(zip_of(tmp_path / "large.zip", TABLES), tmp_path / "into")


def test_what_is_no_dataset_is_said(tmp_path):
    (tmp_path / "text.zip").write_text("no zip at all")
    with pytest.raises(EmitDiffError, match="not a ZIP file"):
        unpack_dataset(tmp_path / "text.zip", tmp_path / "into")
    with pytest.raises(EmitDiffError, match="it holds none"):
        unpack_dataset(zip_of(tmp_path / "empty.zip", {"a.txt": "x"}), tmp_path / "into")
    two = {**TABLES, **{name.replace("set/", "other/"): text for name, text in TABLES.items()}}
    with pytest.raises(EmitDiffError, match="2 of them"):
        unpack_dataset(zip_of(tmp_path / "two.zip", two), tmp_path / "into")


def test_a_damaged_zip_is_said(dataset_folder, tmp_path):
    packed = pack_folder(dataset_folder, tmp_path / "discs.zip", "discs")
    content = bytearray(packed.read_bytes())
    content[2000:2400] = bytes(400)
    packed.write_bytes(content)
    with pytest.raises(EmitDiffError, match="damaged"):
        unpack_dataset(packed, tmp_path / "into")
