"""Data sets that could be read in two ways: what is taken is right, and everything else is told."""

from __future__ import annotations

import numpy as np
import pytest
from import_files import draw, save, save_nifti, shown, volume, write_json
from scan_files import write_dicom

from emitdiff.datasets.folder import open_dataset
from emitdiff.datasets.importing.layouts import opened_source
from emitdiff.datasets.importing.run import import_dataset
from emitdiff.errors import EmitDiffError
from emitdiff.import_settings import ImportSettings

KNOWN = {"modality": "Ultrasound", "organ": "breast"}
LESION = {**KNOWN, "labels": {"lesion": 1}}


@pytest.fixture
def out(tmp_path):
    return tmp_path / "out"


def bring(source, out, **settings):
    with opened_source(source) as found:
        return import_dataset(found, out, ImportSettings(**settings))


def kinds(imported):
    return [(left.kind, left.name) for left in imported.left_out]


def test_a_record_that_names_equal_files_in_several_folders(tmp_path, out):
    record = {"modality": {"0": "CT"}, "labels": {"0": "background", "1": "liver"}, "training": []}
    masks = {}
    for number, patient in enumerate(("p1", "p2", "p3")):
        values, masks[f"{patient}/ct"] = volume(number, labels=(0,) * number + (1,))
        save_nifti(tmp_path / f"mine/imagesTr/{patient}/ct.nii.gz", values)
        save_nifti(tmp_path / f"mine/labelsTr/{patient}/ct.nii.gz", masks[f"{patient}/ct"])
        pair = {"image": f"./imagesTr/{patient}/ct.nii.gz", "label": f"labelsTr/{patient}/ct.nii.gz"}
        record["training"].append(pair)
    write_json(tmp_path / "mine/dataset.json", record)
    imported = bring(tmp_path / "mine", out, organ="liver")
    assert (imported.groups, imported.left_out) == (3, ())
    for sample in open_dataset(out):
        assert np.array_equal(sample.mask, shown(masks[sample.group])[int(sample.row["slice"])])
    record["training"].append({"image": "imagesTr/p1/ct.nii.gz", "label": "labelsTr/p2/ct.nii.gz"})
    write_json(tmp_path / "mine/dataset.json", record)
    imported = bring(tmp_path / "mine", tmp_path / "again", organ="liver")
    assert kinds(imported) == [("unclear which belongs to which", "imagesTr/p1/ct.nii.gz")] and imported.groups == 2
    assert "which of labelsTr/p1/ct.nii.gz and labelsTr/p2/ct.nii.gz is meant" in imported.left_out[0].why


@pytest.mark.parametrize("ending", [".png", None])
def test_previews_beside_the_cases_of_nnunet(tmp_path, out, ending):
    folder = tmp_path / "mine"
    for number, name in enumerate(("Case", "case")):
        image, mask = draw(number)
        save(folder / f"imagesTr/{name}_0000.png", image)
        save(folder / f"labelsTr/{name}.png", mask)
        save(folder / f"labelsTr/{name}.tif", np.roll(mask, 9, 0))
    record = {"channel_names": {"0": "CT"}, "labels": {"background": 0, "liver": 1}}
    write_json(folder / "dataset.json", record | ({"file_ending": ending} if ending else {}))
    if ending is None:
        with pytest.raises(EmitDiffError, match=r"not clear which of labelsTr/Case\.png and labelsTr/Case\.tif"):
            bring(folder, out, organ="liver")
        return
    imported = bring(folder, out, organ="liver")
    assert imported.images == 2 and any("2 other file(s) were not looked at" in note for note in imported.notes)
    for number, sample in enumerate(sorted(open_dataset(out), key=lambda sample: sample.group)):
        assert np.array_equal(sample.mask, draw(number)[1])


def test_white_is_no_class_where_there_are_several(tmp_path, out):
    for number, value in enumerate((1, 2, 255)):
        image, mask = draw(number)
        save(tmp_path / f"mine/images/a{number}.png", image)
        save(tmp_path / f"mine/masks/a{number}.png", mask * value)
    imported = bring(tmp_path / "mine", out, **KNOWN, labels={"lesion": 1, "cyst": 2})
    assert imported.images == 2 and kinds(imported) == [("cannot be used", "images/a2.png")]
    assert "nobody can tell which one white is" in imported.left_out[0].why


def test_masks_that_are_called_alike_must_be_the_same(tmp_path, out):
    for number in range(2):
        image, mask = draw(number)
        save(tmp_path / f"mine/images/a{number}.png", image)
        save(tmp_path / f"mine/masks/a{number}.png", mask * 255)
        save(tmp_path / f"mine/masks/a{number}.tif", np.roll(mask, 9 * number, 0))
    imported = bring(tmp_path / "mine", out, **LESION)
    assert imported.images == 1 and "called alike and differ" in imported.left_out[0].why
    assert np.array_equal(open_dataset(out)[0].mask, draw(0)[1])


def test_masks_that_are_turned_inside_out_are_pointed_at(tmp_path, out):
    for number in range(2):
        image, mask = draw(number)
        save(tmp_path / f"mine/images/a{number}.png", image)
        save(tmp_path / f"mine/masks/a{number}.png", 255 * (mask if number else 1 - mask))
    notes = bring(tmp_path / "mine", out, **LESION).notes
    assert any("1 image(s) are labelled at all four corners: a0." in note for note in notes)


def test_slices_of_one_dicom_study_are_one_group(tmp_path, out):
    for number in range(4):
        image, mask = draw(number)
        (tmp_path / "mine/images").mkdir(parents=True, exist_ok=True)
        own = {"StudyInstanceUID": f"1.2.{number // 2}", "SeriesInstanceUID": "1.3", "Modality": "US"}
        write_dicom(tmp_path / f"mine/images/a{number}.dcm", image, **own)
        save(tmp_path / f"mine/masks/a{number}.png", mask * 255)
    bring(tmp_path / "mine", out, **LESION)
    assert open_dataset(out).groups == ["a0", "a0", "a2", "a2"]


def test_names_that_fit_nothing_are_said_to_fit_nothing(tmp_path, out):
    image, mask = draw(0)
    save(tmp_path / "mine/input/a.png", image)
    save(tmp_path / "mine/truth/a_mask.png", mask)
    with pytest.raises(EmitDiffError, match=r"No image of 'mine' has a mask .*mask without an image: 1"):
        bring(tmp_path / "mine", out, **KNOWN)
