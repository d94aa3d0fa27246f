from __future__ import annotations

from types import SimpleNamespace

import numpy as np
import pytest

from emitdiff.errors import EmitDiffError
from emitdiff.ui.source import at_view_size, describe_scan, selected_slice, slice_index, with_edge_letters


def scan(**changes):
    facts = {
        "name": "brain.nii.gz",
        "modality": "MRI",
        "size": (200, 160),
        "num_slices": 24,
        "spacing": (3.0, 0.94, 0.94),
        "volumes": 1,
        "laterality": None,
    }
    return SimpleNamespace(
        **facts | {"windows": {}, "edge_letters": dict, "image": lambda index, window: (index, window)} | changes
    )


def test_a_scan_is_described_by_what_its_file_says():
    assert describe_scan(scan()) == "brain.nii.gz: MRI, 160 x 200, 24 slices, 0.94 x 0.94 mm"
    assert describe_scan(scan(laterality="left")).startswith("brain.nii.gz: MRI, left side, 160 x 200")
    assert describe_scan(scan(modality=None, num_slices=1, spacing=None)) == "brain.nii.gz: 160 x 200"


def test_slices_are_counted_from_one_and_kept_within_the_scan():
    assert [slice_index(scan(), number) for number in (None, 1, 24, 99)] == [0, 0, 23, 23]
    assert selected_slice(scan(windows={"lung": 1}), 3, "lung") == (2, "lung")
    assert selected_slice(scan(), 3, "a window of the last scan") == (2, None)


def test_no_scan_is_named():
    with pytest.raises(EmitDiffError, match="No image yet"):
        selected_slice(None, 1, None)


@pytest.mark.parametrize(
    ("given", "shown"), [((64, 32), (768, 384)), ((1000, 900), (1000, 900)), ((6000, 1500), (1536, 384))]
)
def test_views_are_neither_tiny_nor_huge(given, shown):
    assert at_view_size(np.zeros((*given, 3), np.uint8)).shape[:2] == shown
    assert set(np.unique(at_view_size(np.eye(*given, dtype=np.uint8) * 7))) == {0, 7}


def test_a_volume_opens_at_its_middle_with_windows_as_the_command_line_takes_them(tmp_path):
    """WIDTH / LEVEL, and the slice that a command without --slice takes."""
    import gradio as gr
    import nibabel
    from fakes import fake_callables

    from emitdiff.scans.reading import read_scan
    from emitdiff.ui.source import build_source

    values = np.linspace(-1000, 1000, 8 * 8 * 6).reshape(8, 8, 6).astype(np.int16)
    nibabel.save(nibabel.Nifti1Image(values, np.eye(4)), tmp_path / "volume.nii")
    with gr.Blocks():
        source = build_source(fake_callables(), [], "Your image")
    updates = source.load(tmp_path / "volume.nii")
    assert updates[source.slice]["value"] == read_scan(tmp_path / "volume.nii").middle + 1 == 4
    assert ("lung (1500 / -600)", "lung") in updates[source.window]["choices"]
    assert source.window.label == "Window (width / level)"


def test_a_file_of_several_time_points_has_a_control_for_them(tmp_path):
    import gradio as gr
    import nibabel
    from fakes import fake_callables

    from emitdiff.ui.source import build_source

    values = np.stack([np.full((8, 8, 6), 100 * number + 1, np.int16) for number in range(3)], -1)
    nibabel.save(nibabel.Nifti1Image(values, np.diag([-1.0, 1, 1, 1])), tmp_path / "cine.nii")
    nibabel.save(nibabel.Nifti1Image(values[..., 0], np.eye(4)), tmp_path / "one.nii")
    with gr.Blocks():
        source = build_source(fake_callables(), [], "Your image")
    assert not source.load(tmp_path / "one.nii")[source.time_point]["visible"] and not source.time_point.visible
    updates = source.load(tmp_path / "cine.nii")
    control, file = updates[source.time_point], str(tmp_path / "cine.nii")
    assert (control["visible"], control["value"], control["maximum"]) == (True, 1, 3)
    assert "It holds 3 volumes" in updates[source.message] and "time point 1 of 3" in updates[source.message]
    later = source.change_time_point(file, 3, updates[source.scan], 2, None)
    assert (later[source.scan].values == 201).all() and later[source.slice]["value"] == 2
    assert later[source.time_point]["value"] == 3 and "It holds" not in later[source.message]
    assert "time point 3 of 3" in later[source.message]
    same = source.change_time_point(file, 3, later[source.scan], 2, None)
    assert list(same) == [source.message] and 'role="alert"' not in same[source.message], "no error outlives it"
    bad = [(number, "from 1 to 3") for number in (9, 0, -1, 1.5, None)]
    for given, said in (((None, 2), "choose it again"), *(((file, number), words) for number, words in bad)):
        kept = source.change_time_point(*given, later[source.scan], 2, None)
        assert set(kept) == {source.message, source.time_point} and said in kept[source.message]
        assert kept[source.time_point]["value"] == 3, "the number is again that of what is shown"
    assert not source.show(later[source.scan])[source.time_point]["visible"], "its file need not be here"


def test_sides_are_marked_only_where_they_are_known():
    black = np.zeros((640, 768, 3), np.uint8)
    assert with_edge_letters(black, scan()) is black
    letters = {"left": "R", "right": "L", "top": "A", "bottom": "P"}
    shown = with_edge_letters(black, scan(edge_letters=lambda: letters))
    assert not black.any()
    for part in (shown[:, :60], shown[:, -60:], shown[:60], shown[-60:]):
        assert part.max() > 200
    assert not shown[60:-60, 60:-60].any()


def test_the_error_of_a_file_is_over_once_something_else_works(tmp_path):
    import gradio as gr
    from fakes import fake_callables

    from emitdiff.ui.source import ACCEPTED, build_source

    with gr.Blocks():
        source = build_source(fake_callables(), [], "Your image")
    (tmp_path / "own.png").touch()
    error = source.upload(str(tmp_path / "own.png"))[source.message]
    assert "is empty" in error and ACCEPTED in source.clear_error(None, error)
    over = source.clear_error(scan(warnings=("It has no orientation.",)), error)
    assert "brain.nii.gz: MRI, 160 x 200" in over and "It has no orientation." in over
    said = source.show(scan(middle=0, warnings=()))[source.message]
    assert source.clear_error(scan(), said) == gr.skip()
