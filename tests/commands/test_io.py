from __future__ import annotations

import numpy as np
import pytest

from emitdiff.commands import io
from emitdiff.errors import EmitDiffError


def test_window_by_name_and_by_numbers(tmp_path):
    import nibabel

    values = np.linspace(-1000, 1000, 32 * 32 * 3).reshape(32, 32, 3).astype(np.int16)
    nibabel.save(nibabel.Nifti1Image(values, np.eye(4)), tmp_path / "volume.nii.gz")
    scan, index, wide = io.read_slice(tmp_path / "volume.nii.gz", None, "2000/0")
    assert (scan.num_slices, index) == (3, 1), "the middle slice"
    _, _, narrow = io.read_slice(tmp_path / "volume.nii.gz", 1, "100/0")
    assert len(np.unique(narrow)) < len(np.unique(wide))


@pytest.mark.parametrize("inside", [".", "results"])
def test_nothing_is_written_into_a_series(inside, disc_files, tmp_path):
    with pytest.raises(EmitDiffError, match="is where the source lies"):
        io.output_folder(tmp_path / inside, tmp_path)
    assert not (tmp_path / "results").exists()
