"""Weights are what they were, byte for byte, or they are not used."""

from __future__ import annotations

import json
import shutil
import time
from pathlib import Path

import numpy as np
import pytest
from fault_tools import run_verb

from emitdiff import checksums
from emitdiff.checkpoints import HASHES, checkpoints_folder, find_checkpoint, local_folder, weights_fingerprint
from emitdiff.checksums import (
    CHECKSUMS,
    check_checksums,
    check_downloaded,
    fingerprint,
    folder_checksums,
    write_checksums,
)
from emitdiff.errors import EmitDiffError

EMBEDDED = [path.parent for path in sorted(checkpoints_folder().glob("*/README.md"))]


@pytest.mark.parametrize("folder", EMBEDDED, ids=[folder.name for folder in EMBEDDED])
def test_the_list_of_the_embedded_weights_is_what_lies_there(folder):
    listed = json.loads((folder / CHECKSUMS).read_text()) if (folder / CHECKSUMS).is_file() else {}
    assert listed == folder_checksums(folder), (
        f"checkpoints/{folder.name}/{CHECKSUMS} is stale: the weights were changed after it was written. If that was "
        f"on purpose, run `python -m emitdiff check-weights --write` and commit the list with them."
    )


def test_all_embedded_weights_are_checked_within_a_second_and_then_only_looked_at(monkeypatch):
    checksums._sha256.cache_clear()
    started = time.process_time()
    for folder in EMBEDDED:
        check_checksums(folder, required=True)
    assert time.process_time() - started < 1, "a tenth of a second on an idle machine"
    monkeypatch.setattr(checksums.hashlib, "file_digest", None)
    for folder in EMBEDDED:
        check_checksums(folder)


def flip_bits(path: Path, count: int) -> None:
    content = np.fromfile(path, np.uint8)
    rng = np.random.default_rng(0)
    content[rng.integers(len(content) // 2, len(content), count)] ^= 1 << rng.integers(0, 8, count).astype(np.uint8)
    content.tofile(path)


def test_200_flipped_bits_are_found_where_the_weights_are_loaded(tmp_path, disc_files):
    for name in ("textdiff-mini", "hed-mini"):
        shutil.copytree(checkpoints_folder() / name, tmp_path / name)
    flip_bits(tmp_path / "textdiff-mini" / "head" / "model.safetensors", 200)
    flip_bits(tmp_path / "hed-mini" / "model.safetensors", 200)
    where = {"EMITDIFF_CHECKPOINTS": str(tmp_path)}
    verbs = ("segment", "--text", "lung"), ("edges", "--detector", "hed-mini")
    for verb, *options in verbs:
        answer = run_verb(verb, disc_files[0], *options, "-o", tmp_path / "out", env=where)
        assert answer.returncode == 2 and "is not what it was (sha256 " in answer.stderr, answer.stderr
        assert "Copy or download them again" in answer.stderr
    assert not (tmp_path / "out").exists()
    answer = run_verb("check-weights", env=where)
    assert answer.returncode == 1 and answer.stderr.count("damaged") == 2


@pytest.fixture
def folder(tmp_path) -> Path:
    """Something like weights, with its list."""
    place = tmp_path / "weights"
    (place / "unet").mkdir(parents=True)
    (place / "state").mkdir()
    (place / "unet" / "model.safetensors").write_bytes(b"weights")
    (place / "config.json").write_text("{}")
    (place / "README.md").write_text("a card")
    (place / "state" / "unet.json").write_text("{}")
    write_checksums(place)
    return place


def test_what_can_be_loaded_is_listed_and_nothing_else(folder):
    assert list(json.loads((folder / CHECKSUMS).read_text())) == ["config.json", "unet/model.safetensors"]
    (folder / "README.md").write_text("another card")
    check_checksums(folder)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda folder: (folder / "config.json").write_text('{"a": 1}'), "config.json is not what it was"),
        (lambda folder: (folder / "unet" / "model.safetensors").unlink(), "model.safetensors is missing"),
        (lambda folder: (folder / CHECKSUMS).write_text("{"), "checksums.json is damaged"),
        (lambda folder: (folder / CHECKSUMS).write_text("[]"), "checksums.json is damaged"),
        (lambda folder: (folder / CHECKSUMS).unlink(), "checksums.json is missing"),
    ],
)
def test_every_difference_is_a_sentence_with_what_to_do(folder, change, words):
    change(folder)
    with pytest.raises(EmitDiffError, match=f"{words}.*check-weights .* --write"):
        check_checksums(folder, required=True)


def test_weights_of_ones_own_need_no_list_but_one_that_is_there_counts(folder, tmp_path):
    found = find_checkpoint(str(folder), "segmentation")
    before = weights_fingerprint(found)
    (folder / "config.json").write_text('{"a": 1}')
    with pytest.raises(EmitDiffError, match="is not what it was"):
        local_folder(found)
    (folder / CHECKSUMS).unlink()
    assert weights_fingerprint(found) != before


def test_a_shipped_folder_without_its_list_is_refused(monkeypatch, folder):
    monkeypatch.delenv("EMITDIFF_CHECKPOINTS", raising=False)
    monkeypatch.setattr("emitdiff.checkpoints.checkpoints_folder", lambda: folder.parent)
    folder.rename(folder.with_name("emitdiff-mini"))
    local_folder(find_checkpoint("emitdiff-mini", "synthesis"))
    (folder.with_name("emitdiff-mini") / CHECKSUMS).unlink()
    with pytest.raises(EmitDiffError, match="checksums.json is missing, so the weights cannot be checked"):
        local_folder(find_checkpoint("emitdiff-mini", "synthesis"))


def test_hashes_of_large_files_are_kept_on_disk(monkeypatch, tmp_path):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setattr(checksums, "LARGE_BYTES", 4)
    (tmp_path / "large").write_bytes(b"weights")
    first = checksums.sha256_of(tmp_path / "large")
    checksums._sha256.cache_clear()
    with monkeypatch.context() as without:
        without.setattr(checksums.hashlib, "file_digest", None)
        assert checksums.sha256_of(tmp_path / "large") == first
    checksums._cache_file().write_text("[")  # damaged: hashed again
    checksums._sha256.cache_clear()
    (tmp_path / "large").write_bytes(b"weighty")
    assert checksums.sha256_of(tmp_path / "large") != first


@pytest.fixture
def snapshot(tmp_path) -> Path:
    """A snapshot as the Hub's cache keeps it: links to blobs that are called after their content."""
    content = b"weights of the Hub"
    name = checksums.hashlib.sha256(content).hexdigest()
    cache = tmp_path / "models--owner--repo"
    (cache / "blobs").mkdir(parents=True)
    (cache / "blobs" / name).write_bytes(content)
    (cache / "blobs" / ("a" * 40)).write_text("{}")  # of small files, git's own hash
    place = cache / "snapshots" / ("b" * 40)
    (place / "unet").mkdir(parents=True)
    (place / "unet" / "model.safetensors").symlink_to(cache / "blobs" / name)
    (place / "config.json").symlink_to(cache / "blobs" / ("a" * 40))
    return place


def test_of_the_hub_the_commit_and_the_content_are_checked(snapshot):
    commit, name = snapshot.name, "unet/model.safetensors"
    check_downloaded(snapshot, "owner/repo", commit, {})
    check_downloaded(snapshot, "owner/repo", "main", {name: folder_checksums(snapshot)[name]})
    with pytest.raises(EmitDiffError, match=f"owner/repo at {'c' * 40} was asked for, and the cache has bbb"):
        check_downloaded(snapshot, "owner/repo", "c" * 40, {})
    with pytest.raises(EmitDiffError, match="or is not what was published"):
        check_downloaded(snapshot, "owner/repo", commit, {name: "0" * 64})
    flip_bits((snapshot / name).resolve(), 3)
    with pytest.raises(EmitDiffError, match=r"unet/model\.safetensors of owner/repo is damaged .*: delete .*blobs"):
        check_downloaded(snapshot, "owner/repo", commit, {})


def test_a_damaged_download_is_not_loaded(monkeypatch, snapshot):
    monkeypatch.setattr("emitdiff.checkpoints.find_snapshot", lambda part: snapshot)
    found = find_checkpoint("owner/repo", "segmentation")
    assert local_folder(found) == snapshot
    flip_bits((snapshot / "unet" / "model.safetensors").resolve(), 3)
    with pytest.raises(EmitDiffError, match="is damaged"):
        local_folder(found)


def test_the_hashes_of_stable_diffusion_belong_to_its_pinned_revision():
    assert find_checkpoint("sd15-hed", "synthesis").revision in HASHES
    assert all(len(found) == 64 for known in HASHES.values() for found in known.values())


def test_a_fingerprint_is_of_names_and_content(folder, tmp_path):
    one = fingerprint(folder)
    shutil.copytree(folder, tmp_path / "copy")
    assert fingerprint(tmp_path / "copy") == one
    (tmp_path / "copy" / "config.json").rename(tmp_path / "copy" / "other.json")
    assert fingerprint(tmp_path / "copy") != one


def test_the_list_is_made_anew_by_one_command(folder):
    (folder / "config.json").write_text('{"a": 1}')
    assert run_verb("check-weights", folder).returncode == 1
    assert run_verb("check-weights", folder, "--write").returncode == 0
    answer = run_verb("check-weights", folder)
    assert answer.returncode == 0 and "2 files are as listed" in answer.stdout
