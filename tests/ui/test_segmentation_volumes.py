"""A whole volume in the Segmentation tab, called as Gradio calls its handlers."""

from __future__ import annotations

from types import SimpleNamespace

import nibabel
import numpy as np
import pytest
from fakes import failing, fake_callables, scan_that_saves
from segmentation_steps import SHOWN, build, find, look, settle


@pytest.fixture(scope="module")
def tab():
    return build()


@pytest.fixture
def volume_file(tmp_path):
    """Five slices, brighter from foot to head, 2 x 1 x 0.5 mm apart."""
    values = np.zeros((40, 32, 5), np.float32)
    values[10:30, 8:24] = np.arange(1, 6) * 50
    image = nibabel.Nifti1Image(values, np.diag([0.5, 1, 2, 1]))
    nibabel.save(image, tmp_path / "volume.nii.gz")
    return tmp_path / "volume.nii.gz"


def find_all(tab, scan, meanwhile=None):
    """What is told until the end, and what is shown then; `meanwhile` is what a user chooses during the run."""
    source = {"scan": scan, "slice_number": 5, "window": None, "threshold": 0.5}
    *told, last = tab.runs.find_all(
        SimpleNamespace(session_hash="one"), **source, text="lung", checkpoint="textdiff-mini"
    )
    return [*told, settle(tab, last, **{**source, **(meanwhile or {})})]


def test_every_slice_is_asked_and_the_file_holds_them_all(tab, volume_file):
    scan = scan_that_saves(volume_file)
    *told, last = find_all(tab, scan)
    assert ["Slice 3 of 5" in update[tab.reading.progress] for update in told] == [False, False, True, False, False]
    volume = last[tab.volume]
    single = find(tab, SimpleNamespace(image=volume_file), scan=scan, slice_number=5)[tab.finding]
    np.testing.assert_array_equal(volume.masks(0.5)[4], single.output.mask)
    saved = np.asarray(nibabel.load(last[tab.reading.download]["value"]).dataobj)
    assert saved.shape == (40, 32, 5) and saved[..., 4].any() and not saved[..., 0].any()
    assert saved.sum() == volume.masks(0.5).sum()
    words = volume.describe(0.5)
    assert f"of 5 slices, {saved.sum() / 1000:.3g} ml" in words and words in last[tab.reading.download_note]


def test_a_volume_is_not_searched_for_what_was_not_taught(volume_file):
    seen = []
    tab = build(segment=lambda *arguments: (seen.append(1), fake_callables().segment(*arguments))[1])
    source = {"scan": scan_that_saves(volume_file), "slice_number": 4, "window": None, "threshold": 0.5}
    asked = {"text": "pneumonia", "checkpoint": "textdiff-mini"}
    *_, last = tab.runs.find_all(SimpleNamespace(session_hash="one"), **source, **asked)
    updates = settle(tab, last, **source)
    assert len(seen) == 1 and "Nothing was looked for" in updates[tab.reading.progress]
    assert updates[tab.finding].index == 3 and tab.volume not in updates


def test_another_slice_of_a_volume_shows_what_was_found_there(tab, volume_file):
    scan = scan_that_saves(volume_file)
    last = find_all(tab, scan)[-1]
    updates = look(tab, scan, last[tab.finding], last[tab.volume], slice_number=1)
    assert updates[tab.finding].index == 0 and "Not found" in updates[tab.reading.progress]
    assert updates[tab.reading.download]["value"] == last[tab.reading.download]["value"]
    lower = tab.apply_threshold(updates[tab.finding], 0.05, **SHOWN)
    saved = np.asarray(nibabel.load(lower[tab.reading.download]["value"]).dataobj)
    assert saved.sum() > last[tab.volume].masks(0.5).sum()
    other = look(tab, scan_that_saves(volume_file), None, last[tab.volume])
    assert other[tab.volume] is None and not last[tab.volume].folder.exists()


def test_during_a_run_one_may_go_to_another_slice_but_not_to_another_scan(tab, volume_file, monkeypatch, tmp_path):
    scan = scan_that_saves(volume_file)
    updates = find_all(tab, scan, meanwhile={"slice_number": 4})[-1]
    assert updates[tab.finding].index == 3 and "of 5 slices" in updates[tab.reading.progress]
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    for meanwhile in ({"scan": scan_that_saves(volume_file)}, {"window": "Lung"}):
        updates = find_all(tab, scan, meanwhile=meanwhile)[-1]
        assert tab.volume not in updates and "was changed during the run" in updates[tab.reading.progress]
    assert not list(tmp_path.glob("emitdiff_*")), "a patient's masks are not left behind"


def test_a_slice_that_cannot_be_shown_is_said(tab, volume_file, monkeypatch):
    scan = scan_that_saves(volume_file)
    last = find_all(tab, scan)[-1]
    finding, volume = last[tab.finding], last[tab.volume]
    with monkeypatch.context() as patched:
        patched.setattr(volume, "save", failing)
        updates = look(tab, scan, finding, volume, slice_number=1)
    assert "The weights are not here" in updates[tab.reading.progress]
    assert updates[tab.finding] is None and updates[tab.reading.view] is None and updates[tab.volume] is volume
    assert "Not found" in look(tab, scan, None, volume, slice_number=1)[tab.reading.progress], "another try helps"
    monkeypatch.setattr("emitdiff.ui.segmentation.tab.selected_slice", failing)
    assert "The weights are not here" in look(tab, scan, finding, volume)[tab.reading.progress]


def test_slices_that_look_alike_have_answers_of_their_own(tab, tmp_path):
    nibabel.save(nibabel.Nifti1Image(np.full((40, 32, 3), 7.0, np.float32), np.eye(4)), tmp_path / "even.nii.gz")
    scan = scan_that_saves(tmp_path / "even.nii.gz")
    finding = find(tab, SimpleNamespace(image=tmp_path / "even.nii.gz"), scan=scan, slice_number=1)[tab.finding]
    assert look(tab, scan, finding, slice_number=1)[tab.finding] is finding
    assert look(tab, scan, finding, slice_number=2)[tab.finding] is None


def test_the_file_read_again_leaves_nothing_of_the_volume_before(tab, volume_file):
    last = find_all(tab, scan_that_saves(volume_file))[-1]
    updates = look(tab, scan_that_saves(volume_file), last[tab.finding], last[tab.volume], slice_number=5)
    assert updates[tab.finding] is None and updates[tab.volume] is None  # its files are gone


def test_stop_keeps_the_slices_that_are_done(volume_file):
    seen = []
    tab = build(segment=lambda *arguments: (seen.append(1), fake_callables().segment(*arguments))[1])
    scan, request = scan_that_saves(volume_file), SimpleNamespace(session_hash="one")
    tab.runs.start_all(request)
    running = tab.runs.find_all(request, scan, 1, None, 0.5, "lung", "textdiff-mini")
    next(running), next(running)
    tab.runs.stop(request)
    told = list(running)[-1]
    last = settle(tab, told, scan=scan, slice_number=5, window=None, threshold=0.5)
    assert last[tab.finding] is None and last[tab.reading.map_view] is None, "slice 5 was not reached"
    assert len(seen) == 2 and "stopped after 2 of 5, the remaining slices are empty" in last[tab.reading.progress]
    assert sorted(last[tab.volume].answers) == [0, 1]


def test_only_a_volume_offers_all_slices(tab, volume_file, example):
    updates = tab.take_file(str(volume_file))
    assert updates[tab.runs.all_button]["visible"] and updates[tab.runs.all_button]["value"] == "All 5 slices"
    assert not tab.take_file(str(example.image))[tab.runs.all_button]["visible"]
