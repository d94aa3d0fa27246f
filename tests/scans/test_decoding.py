"""What all readers of scans do alike, without any file format."""

from __future__ import annotations

import numpy as np
import pytest

from emitdiff.errors import EmitDiffError
from emitdiff.scans.decoding import (
    check_limits,
    checked_ids,
    existing_file,
    fill_non_finite,
    value_windows,
)


@pytest.mark.parametrize("size", [(8192, 8192), (512, 512, 512), (64, 64, 4096), (4096, 4096, 1, 8)])
def test_the_largest_scans_are_taken(size):
    check_limits("scan", *size)


@pytest.mark.parametrize(
    ("size", "said"),
    [
        ((8192, 8193), "8193 x 8192 pixels, 1 slice"),
        ((512, 512, 1025), "too large"),
        ((1, 1, 4097), "4,096 slices"),
        ((4096, 4096, 1, 17), "too large"),
        ((0, 64), "there is no image"),
        ((64, 64, 0), "there is no image"),
    ],
)
def test_what_is_larger_or_empty_is_refused(size, said):
    with pytest.raises(EmitDiffError, match=f"'scan' .*{said}"):
        check_limits("scan", *size)


def test_what_is_no_number_is_shown_as_the_lowest_and_said():
    values = np.array([[np.nan, 2.0], [np.inf, -3.0]])
    (said,) = fill_non_finite(values, "scan")
    assert said.startswith("2 values") and values.tolist() == [[-3, 2], [-3, -3]]
    assert fill_non_finite(values, "scan") == [] and fill_non_finite(np.zeros(3, np.int16), "scan") == []
    with pytest.raises(EmitDiffError, match="no finite value"):
        fill_non_finite(np.full(3, np.nan), "scan")


def test_the_automatic_window_leaves_the_outliers_out():
    values = np.linspace(0, 100, 10001)
    values[0], values[-1] = -1e6, 1e6
    windows = value_windows(values)
    assert list(windows) == ["automatic", "full range"], "the first is the default"
    assert windows["automatic"].centre == pytest.approx(50, abs=0.1)
    assert windows["automatic"].width == pytest.approx(99, abs=0.1)
    assert windows["full range"].centre == 0 and windows["full range"].width == 2e6


def test_a_volume_that_is_nearly_all_ground_shows_the_rest_too():
    values = np.zeros((10, 100, 100), np.int16)
    values[5, 50, 50:60] = 700
    assert value_windows(values)["automatic"].width == 700
    assert value_windows(np.zeros((2, 4, 4)))["automatic"].width > 0, "no division by nothing"


@pytest.mark.parametrize("dtype", [bool, np.uint8, np.int16, np.uint16, np.float64])
def test_class_ids_are_taken_in_any_type(dtype):
    given = np.array([[0, 1], [1, 0]], dtype)
    ids = checked_ids(given[:, ::-1], "mask")
    assert ids.dtype == np.uint8 and ids.tolist() == [[1, 0], [0, 1]]


@pytest.mark.parametrize("value", [-1, 256, 0.5, np.nan, np.inf])
def test_other_numbers_are_no_class_ids(value):
    with pytest.raises(EmitDiffError, match="not class ids"):
        checked_ids(np.array([[0.0, value]]), "mask")


def test_a_file_has_something_in_it(tmp_path):
    (tmp_path / "full.dcm").write_bytes(b"x")
    (tmp_path / "empty.dcm").touch()
    assert existing_file(str(tmp_path / "full.dcm")) == tmp_path / "full.dcm"
    with pytest.raises(EmitDiffError, match="'empty.dcm' is empty"):
        existing_file(tmp_path / "empty.dcm")
    with pytest.raises(EmitDiffError, match="no file 'gone.dcm'"):
        existing_file(tmp_path / "gone.dcm")
