"""Every layout that is imported, as real small files: what is written, and everything that is not."""

from __future__ import annotations

import csv
import json
import shutil
import zipfile

import nibabel
import numpy as np
import pytest
from import_files import draw, save, save_nifti, shown, volume, write_decathlon, write_json, write_nnunet
from PIL import Image
from scan_files import write_dicom

from emitdiff.datasets.archive import pack_folder
from emitdiff.datasets.check import check_dataset
from emitdiff.datasets.export import Export, export
from emitdiff.datasets.folder import open_dataset
from emitdiff.datasets.importing.layouts import opened_source
from emitdiff.datasets.importing.run import RECORD, find_missing, import_dataset, left_out_lines
from emitdiff.errors import EmitDiffError
from emitdiff.import_settings import ImportSettings, parse_labels
from emitdiff.progress import Progress
from emitdiff.provenance import read_origin, save_synthetic_png

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


def write_pair_folders(folder, images="images", masks="masks", count=3):
    for number in range(count):
        image, mask = draw(number)
        save(folder / images / f"a{number}.png", image)
        save(folder / masks / f"a{number}.png", mask * 255)


@pytest.mark.parametrize(
    ("images", "masks"),
    [
        ("images", "masks"),
        ("Imgs", "LABELS"),
        ("image", "mask"),
        ("img", "GT"),
        ("train/images", "train/masks"),
        ("x/y/images", "x/y/masks"),
    ],
)
def test_folders_of_images_and_masks(tmp_path, out, images, masks):
    write_pair_folders(tmp_path / "mine", images, masks)
    imported = bring(tmp_path / "mine", out, **LESION)
    dataset = open_dataset(out)
    assert (imported.images, imported.groups, imported.classes, imported.left_out) == (3, 3, {"lesion": 3}, ())
    assert (
        check_dataset(out).ok and dataset.info.name == "mine" and dataset.info.labels == {"background": 0, "lesion": 1}
    )
    for number, sample in enumerate(dataset):
        image, mask = draw(number)
        assert np.array_equal(sample.image[..., 0], image) and np.array_equal(sample.mask, mask)


def test_what_has_no_partner_is_named_and_counted(tmp_path, out):
    write_pair_folders(tmp_path / "mine")
    save(tmp_path / "mine" / "images" / "lonely.png", draw(7)[0])
    save(tmp_path / "mine" / "masks" / "other.png", draw(8)[1])
    save(tmp_path / "mine" / "elsewhere.png", draw(9)[0])
    (tmp_path / "mine" / "images" / "read me.txt").write_text("hello")
    imported = bring(tmp_path / "mine", out, **LESION)
    left = [("image without a mask", "images/lonely.png"), ("mask without an image", "masks/other.png"),
            ("image without a mask", "elsewhere.png")]  # fmt: skip
    assert imported.images == 3 and kinds(imported) == left and imported.problems
    assert any("1 file(s) that are no pictures" in note and "read me.txt" in note for note in imported.notes)
    record = json.loads((out / RECORD).read_text())
    assert [one["name"] for one in record["left_out"]] == [name for _, name in left] and record["images"] == 3
    assert left_out_lines(imported.left_out)[:2] == ["image without a mask: 2", "  images/lonely.png"]
    assert "  and 1 more, listed in import.json" in left_out_lines(imported.left_out, 1)


def test_pairs_by_name_with_several_masks_of_one_lesion(tmp_path, out):
    """As BUSI has them: spaces, brackets, a folder for each finding."""
    for number, folder in enumerate(("benign", "benign", "malignant"), start=1):
        image, mask = draw(number)
        other = np.zeros_like(mask)
        other[:3, :4] = 1
        name = tmp_path / "Dataset_BUSI" / folder / f"{folder} ({number})"
        save(name.with_name(f"{name.name}.png"), np.repeat(image[..., None], 3, -1))
        save(name.with_name(f"{name.name}_mask.png"), mask.astype(bool))
        if number == 2:
            save(name.with_name(f"{name.name}_mask_1.png"), other * 255)
    imported = bring(tmp_path, out, **LESION)
    assert imported.images == 3 and not imported.left_out
    assert any("1 image(s) have several masks of one class, which were united: benign/benign (2)" in note
               for note in imported.notes)  # fmt: skip
    second = next(sample for sample in open_dataset(out) if sample.row["imported_image"] == "benign/benign (2).png")
    assert np.array_equal(second.mask > 0, (draw(2)[1] > 0) | (np.indices((24, 32)) < [[[3]], [[4]]]).all(0))
    assert second.row["imported_mask"] == "benign/benign (2)_mask.png; benign/benign (2)_mask_1.png"


def test_masks_of_different_classes_are_not_united(tmp_path, out):
    for number in range(2):
        save(tmp_path / "mine" / f"{number}.png", draw(number)[0])
        save(tmp_path / "mine" / f"{number}_mask.png", draw(number)[1])
    save(tmp_path / "mine" / "1_mask_1.png", draw(5, label=2)[1])
    imported = bring(tmp_path / "mine", out, **KNOWN, labels={"lesion": 1, "cyst": 2})
    assert imported.images == 1 and kinds(imported) == [("cannot be used", "1.png")]
    assert "do not show one class alone (1_mask.png: 1; 1_mask_1.png: 2)" in imported.left_out[0].why


def test_masks_follow_the_rules_of_their_reader(tmp_path, out):
    folder = tmp_path / "mine"
    write_pair_folders(folder, count=1)
    image, mask = draw(3, size=(64, 64))
    for name in ("jpeg", "smooth", "colour", "small"):
        save(folder / "images" / f"{name}.png", image)
    square = np.zeros((64, 64), np.uint8)
    square[16:48, 16:48] = 255
    save(folder / "masks" / "jpeg.jpg", square, quality=90)
    save(folder / "masks" / "smooth.png", np.asarray(Image.fromarray(square).resize((63, 63)).resize((64, 64))))
    save(folder / "masks" / "colour.png", np.stack([square, mask, mask], -1))
    save(folder / "masks" / "small.png", square[:32])
    imported = bring(folder, out, **LESION)
    left = {one.name: one.why for one in imported.left_out}
    assert imported.images == 2 and set(left) == {f"images/{name}.png" for name in ("smooth", "colour", "small")}
    assert "smooth edges" in left["images/smooth.png"] and "in colour" in left["images/colour.png"]
    assert "64 x 32 pixels" in left["images/small.png"]
    jpeg = next(one for one in open_dataset(out) if "jpeg" in one.name)
    assert np.array_equal(jpeg.mask, square // 255)


def test_a_volume_is_cut_where_it_shows_a_label(tmp_path, out):
    values, mask = volume(0)
    save_nifti(tmp_path / "mine" / "patient 1.nii.gz", values)
    # the same voxels in another orientation: only a reader that goes by the geometry lays it over rightly
    turned = nibabel.as_closest_canonical(nibabel.Nifti1Image(mask, np.diag([-1.0, -1.5, 3.0, 1.0])))
    nibabel.save(turned, tmp_path / "mine" / "patient 1_seg.nii.gz")
    for slices, indices in (("labelled", [1, 2, 3, 4]), ("all", list(range(6))), ("every 2", [0, 2, 4])):
        imported = bring(tmp_path / "mine", out / slices, **{**LESION, "modality": "MRI"}, slices=slices)
        dataset = open_dataset(out / slices)
        assert imported.images == len(indices) and imported.groups == 1 and set(dataset.groups) == {"patient 1"}
        assert [int(row["slice"]) for row in dataset.rows] == indices
        for sample, index in zip(dataset, indices, strict=True):
            assert np.array_equal(sample.mask, shown(mask)[index])
            assert sample.image[..., 0][sample.mask > 0].mean() > 150 if sample.mask.any() else True
    notes = bring(tmp_path / "mine", out / "again", **LESION).notes
    assert any("2 slice(s) without a label were not taken" in note for note in notes)
    assert any("1 scan(s) are shown with the window automatic" in note for note in notes)


def test_a_volume_of_other_voxels_is_left_out(tmp_path, out):
    write_nnunet(tmp_path / "mine")
    save_nifti(tmp_path / "mine/labelsTr/case_001.nii.gz", volume(1)[1], np.diag([-2.0, -1.5, 3.0, 1.0]))
    imported = bring(tmp_path / "mine", out, organ="prostate")
    assert imported.images == 4 and kinds(imported) == [("cannot be used", "imagesTr/case_001_0000.nii.gz")]
    assert "does not match" in imported.left_out[0].why


@pytest.mark.parametrize("version", [1, 2])
def test_nnunet_of_both_versions(tmp_path, out, version):
    masks = write_nnunet(tmp_path / "Dataset007_Prostate", version)
    imported = bring(tmp_path / "Dataset007_Prostate", out, organ="prostate")
    dataset = open_dataset(out)
    assert (imported.images, imported.groups, imported.left_out) == (8, 2, ())
    assert dataset.info.labels == {"background": 0, "zone": 1, "lesion": 2} and dataset.info.modality == "MRI"
    assert dataset.info.name == ("PROSTATE" if version == 1 else "Prostate")
    for sample in dataset:
        assert np.array_equal(sample.mask, shown(masks[sample.group])[int(sample.row["slice"])])


@pytest.mark.parametrize("kind", ["nnU-Net", "Decathlon"])
def test_of_several_channels_one_is_chosen_and_said(tmp_path, out, kind):
    write = write_decathlon if kind == "Decathlon" else lambda folder: write_nnunet(folder, channels=2)
    write(tmp_path / "mine")
    with opened_source(tmp_path / "mine") as source:
        missing = find_missing(source, ImportSettings(organ="prostate"))
        assert missing.channels == ("T2", "ADC") and missing.flags() == "--channel" and not missing.modality
    with pytest.raises(EmitDiffError, match="give --channel"):
        bring(tmp_path / "mine", out, organ="prostate")
    for channel in ("adc", "1"):
        imported = bring(tmp_path / "mine", out / channel, organ="prostate", channel=channel, window="500/1000")
        assert "Channel 1 (ADC) of 2 was taken." in imported.notes
        assert min(sample.image.max() for sample in open_dataset(out / channel)) == 255, "of 1100 in a window to 1250"
    first = bring(tmp_path / "mine", out / "T2", organ="prostate", channel="T2", window="500/1000")
    assert max(sample.image.min() for sample in open_dataset(out / "T2")) == 0 and not first.problems
    with pytest.raises(EmitDiffError, match=r"no channel 'T1': choose 0 \(T2\), 1 \(ADC\)"):
        bring(tmp_path / "mine", out / "no", organ="prostate", channel="T1")


def test_a_task_of_the_decathlon(tmp_path, out):
    masks = write_decathlon(tmp_path / "Task05_Prostate", channels=1)
    with zipfile.ZipFile(tmp_path / "task.zip", "w") as zipped:
        for path in (tmp_path / "Task05_Prostate").rglob("*.*"):
            zipped.write(path, path.relative_to(tmp_path))
    imported = bring(tmp_path / "task.zip", out, organ="prostate", slices="all")
    dataset = open_dataset(out)
    assert imported.images == 12 and kinds(imported) == [("test image", "imagesTs/prostate_90.nii.gz")]
    assert not imported.problems, "a test image has no mask, as it should be"
    assert (dataset.info.name, dataset.info.licence) == ("PROSTATE", "CC-BY-SA 4.0")
    assert set(dataset.groups) == set(masks) and str(tmp_path) not in (out / "metadata.csv").read_text()


def test_files_that_a_record_does_not_name_or_that_are_not_there(tmp_path, out):
    write_decathlon(tmp_path / "mine", channels=1)
    (tmp_path / "mine/labelsTr/prostate_00.nii.gz").rename(tmp_path / "mine/labelsTr/other.nii.gz")
    imported = bring(tmp_path / "mine", out, organ="prostate")
    assert sorted(kinds(imported)) == [
        ("image without a mask", "imagesTr/prostate_00.nii.gz"),
        ("not listed", "labelsTr/other.nii.gz"),
        ("test image", "imagesTs/prostate_90.nii.gz"),
    ]
    record = json.loads((tmp_path / "mine" / "dataset.json").read_text())
    for escaping in ("../../etc/passwd", "/etc/passwd", "C:\\x.nii"):
        record["training"][0]["image"] = escaping
        write_json(tmp_path / "mine" / "dataset.json", record)
        with pytest.raises(EmitDiffError, match="outside of its folder"):
            bring(tmp_path / "mine", out / "no", organ="prostate")
    record["training"] = ["imagesTr/a.nii.gz"]
    write_json(tmp_path / "mine" / "dataset.json", record)
    with pytest.raises(EmitDiffError, match="should list pairs of files"):
        bring(tmp_path / "mine", out / "no", organ="prostate")


def test_pixels_to_be_ignored_are_no_class(tmp_path, out):
    write_nnunet(tmp_path / "mine", cases=1)
    record = json.loads((tmp_path / "mine" / "dataset.json").read_text())
    record["labels"] = {"background": 0, "zone": 1, "ignore": 2}
    write_json(tmp_path / "mine" / "dataset.json", record)
    mask = volume(0, labels=(1, 2))[1]
    mask[..., 1:3][mask[..., 1:3] == 2] = 0
    save_nifti(tmp_path / "mine/labelsTr/case_000.nii.gz", mask)
    imported = bring(tmp_path / "mine", out, organ="prostate")
    assert imported.images == 2 and [left.name.rpartition(" ")[2] for left in imported.left_out] == ["3", "4"]
    assert open_dataset(out).info.labels == {"background": 0, "zone": 1}


def test_regions_of_nnunet_must_be_named_by_class(tmp_path, out):
    write_nnunet(tmp_path / "mine")
    record = json.loads((tmp_path / "mine" / "dataset.json").read_text())
    record["labels"] = {"background": 0, "whole": [1, 2], "core": [2]}
    write_json(tmp_path / "mine" / "dataset.json", record)
    with pytest.raises(EmitDiffError, match="give --label NAME=1 and --label NAME=2"):
        bring(tmp_path / "mine", out, organ="prostate")
    imported = bring(tmp_path / "mine", out, organ="prostate", labels={"zone": 1, "lesion": 2})
    assert any("regions of several classes (whole, core)" in note for note in imported.notes)


def test_the_own_export_comes_back_with_masks_groups_and_origin(dataset_folder, tmp_path, out):
    shutil.copytree(dataset_folder, tmp_path / "with synthetic")
    image = open_dataset(dataset_folder)[0].image
    path = save_synthetic_png(image[::-1], tmp_path / "with synthetic/images/synthetic_x.png", {"seed": 3})
    shutil.copy(dataset_folder / "masks/0.png", tmp_path / "with synthetic/masks/synthetic_x.png")
    rows = [dict(row) for row in csv.DictReader((dataset_folder / "metadata.csv").open())]
    rows.append({**rows[0], "file_name": f"images/{path.name}", "mask": "masks/synthetic_x.png"})
    with (tmp_path / "with synthetic/metadata.csv").open("w", newline="") as file:
        table = csv.DictWriter(file, [*rows[0], "provenance"])
        table.writeheader()
        table.writerows({**row, "provenance": "x" if "synthetic" in row["file_name"] else ""} for row in rows)
    before = open_dataset(tmp_path / "with synthetic")
    written = export(Export(before.folder, tmp_path / "raw", "nnunet", folds=2))
    packed = pack_folder(written.folder, tmp_path / "raw.zip", written.folder.name)
    imported = bring(packed, out)  # its record says modality, organ and labels
    after = open_dataset(out)
    assert (imported.images, imported.left_out, after.info.labels) == (11, (), before.info.labels)
    assert (after.info.modality, after.info.organ, after.info.name) == ("Ultrasound", "breast", "discs")
    known = {sample.image.tobytes(): sample for sample in before}
    for sample in after:
        one = known[sample.image.tobytes()]
        assert np.array_equal(sample.mask, one.mask)
        assert (sample.group, sample.finding, sample.text) == (one.group, one.finding, one.text)
    assert sum(bool(row["provenance"]) for row in after.rows) == 1 and len(after.real()) == 10
    synthetic = next(row["file_name"] for row in after.rows if row["provenance"])
    assert read_origin(out / synthetic).settings["seed"] == 3


def test_a_synthetic_picture_says_so_in_the_table_too(tmp_path, out):
    write_pair_folders(tmp_path / "mine", count=1)
    image, mask = draw(4)
    path = save_synthetic_png(np.repeat(image[..., None], 3, -1), tmp_path / "mine/images/b.png", {"seed": 5})
    save(tmp_path / "mine" / "masks" / path.name, mask)
    bring(tmp_path / "mine", out, **LESION)
    dataset = open_dataset(out)
    assert len(dataset) == 2 and len(dataset.real()) == 1
    assert read_origin(out / "images" / path.name).settings["seed"] == 5


def test_dicom_says_its_modality(tmp_path, out):
    image, mask = draw(1)
    (tmp_path / "mine" / "images").mkdir(parents=True)
    write_dicom(tmp_path / "mine" / "images" / "IM0001", image, Modality="US")  # without a suffix, as they often are
    save(tmp_path / "mine" / "masks" / "IM0001.png", mask)
    bring(tmp_path / "mine", out, organ="breast", labels={"lesion": 1})
    assert open_dataset(out).info.modality == "Ultrasound" and "Secret" not in (out / "metadata.csv").read_text()


def test_names_of_other_alphabets_and_of_windows(tmp_path, out):
    names = ["Läsion 1", "病変 (2)", "a b"]
    with zipfile.ZipFile(tmp_path / "from windows.zip", "w") as zipped:
        zipped.writestr("daten\\", "")  # folders, as some packers list them
        zipped.writestr("daten\\images\\", "")
        for number, name in enumerate(names):
            for part, array in zip(("images", "masks"), draw(number), strict=True):
                path = save(tmp_path / "one.png", array)
                zipped.writestr(f"daten\\{part}\\{name}.png", path.read_bytes())
    assert "\\" in zipfile.ZipFile(tmp_path / "from windows.zip").namelist()[-1]
    imported = bring(tmp_path / "from windows.zip", out, **LESION)
    dataset = open_dataset(out)
    assert imported.images == 3 and sorted(dataset.groups) == sorted(names) and check_dataset(out).ok
    assert sorted(row["imported_image"] for row in dataset.rows) == sorted(f"images/{name}.png" for name in names)


@pytest.mark.parametrize("name", ["../evil.png", "/etc/evil.png", "a\\..\\..\\b.png"])
def test_a_zip_that_would_land_outside_is_refused(tmp_path, out, name):
    with zipfile.ZipFile(tmp_path / "bad.zip", "w") as zipped:
        zipped.writestr(name, "x")
    with pytest.raises(EmitDiffError, match="outside its folder"):
        bring(tmp_path / "bad.zip", out, **LESION)


def test_groups_by_folder_and_by_the_beginning_of_the_name(tmp_path):
    for name in ("images/p1/P1_1", "images/p1/P1_2", "images/p2/P2_1"):
        image, mask = draw(len(name))
        save(tmp_path / "mine" / f"{name}.png", image)
        save(tmp_path / "mine" / f"{name.replace('images', 'masks')}.png", mask)
    for groups, expected in (("image", {"p1/P1_1", "p1/P1_2", "p2/P2_1"}), ("folder", {"p1", "p2"}),
                             ("prefix", {"P1", "P2"})):  # fmt: skip
        imported = bring(tmp_path / "mine", tmp_path / groups, **LESION, groups=groups)
        assert set(open_dataset(tmp_path / groups).groups) == expected and imported.groups == len(expected)


def test_a_split_by_folders_becomes_a_column(tmp_path, out):
    for part in ("train", "Val"):
        write_pair_folders(tmp_path / "mine" / part)
    bring(tmp_path / "mine", out, **LESION)
    assert [row["split"] for row in open_dataset(out).rows] == ["val"] * 3 + ["train"] * 3
    for part in ("train", "Val"):
        write_pair_folders(tmp_path / "other", f"images/{part}", f"masks/{part}")
    bring(tmp_path / "other", tmp_path / "out 2", **LESION)
    assert [row["split"] for row in open_dataset(tmp_path / "out 2").rows] == ["val"] * 3 + ["train"] * 3


def test_classes_without_a_name_are_asked_for(tmp_path, out):
    for number in range(3):
        image, mask = draw(number, label=1 + number)
        save(tmp_path / "mine" / "images" / f"{number}.png", image)
        save(tmp_path / "mine" / "masks" / f"{number}.png", mask)
    with opened_source(tmp_path / "mine") as source:
        assert find_missing(source, ImportSettings()).ids == {1: 1, 2: 1, 3: 1}
    with pytest.raises(EmitDiffError, match=r"give --modality, --organ, --label NAME=1, .* and --label NAME=3"):
        bring(tmp_path / "mine", out)
    with pytest.raises(EmitDiffError, match=r"ids without a name: 2, 3 \(first in images/1.png\)"):
        bring(tmp_path / "mine", out, **LESION)
    assert not out.exists() and [path.name for path in tmp_path.iterdir()] == ["mine"], "nothing is left behind"


def test_nothing_is_written_over_and_nothing_half(tmp_path, out, monkeypatch):
    write_pair_folders(tmp_path / "mine")
    out.mkdir()
    (out / "mine.txt").write_text("precious")
    with pytest.raises(EmitDiffError, match="contains other files"):
        bring(tmp_path / "mine", out, **LESION)
    with pytest.raises(EmitDiffError, match="inside it"):
        bring(tmp_path / "mine", tmp_path / "mine" / "out", **LESION)
    assert [path.name for path in out.iterdir()] == ["mine.txt"]
    with opened_source(tmp_path / "mine") as source:
        stopped = Progress(lambda done, total: None, iter([False, False, True]).__next__)
        assert import_dataset(source, tmp_path / "new", ImportSettings(**LESION), stopped) is None
        with pytest.raises(EmitDiffError, match="More than 2 images"):
            import_dataset(source, tmp_path / "new", ImportSettings(**LESION), max_images=2)
    assert not (tmp_path / "new").exists() and not list(tmp_path.glob(".*"))


@pytest.mark.parametrize(
    ("files", "said"),
    [
        ({}, "It is empty"),
        ({"a.png": 0, "b.png": 0}, "No images with masks were found in 'mine'. It holds a.png, b.png"),
        ({"images/a.png": 0, "masks/a.png": 0, "labels/a.png": 0}, "which of labels/, masks/ are meant"),
        ({"images/a.png": 0, "masks/b.png": 0}, "Nothing of 'mine' can be imported. Left out: image without a mask: 1"),
        ({"dataset.json": "{}", "metadata.csv": "x"}, "is a dataset folder already"),
        ({"A/dataset.json": "{}", "B/dataset.json": "{}"}, "2 datasets with a dataset.json: A, B"),
        ({"imagesTr/a_0000.png": 0, "dataset.json": "[]"}, "should be a record"),
    ],
)  # fmt: skip
def test_what_cannot_be_imported_is_said(tmp_path, out, files, said):
    (tmp_path / "mine").mkdir()
    for name, content in files.items():
        if content == 0:
            save(tmp_path / "mine" / name, draw(1)[1])
        else:
            (tmp_path / "mine" / name).parent.mkdir(exist_ok=True)
            (tmp_path / "mine" / name).write_text(content)
    with pytest.raises(EmitDiffError) as refused:
        bring(tmp_path / "mine", out, **LESION)
    assert said in str(refused.value)


def test_what_is_no_folder_and_no_zip(tmp_path, out):
    (tmp_path / "a.tar").write_text("x")
    for name, said in (("nothing", "no folder or ZIP"), ("a.tar", "unpack it")):
        with pytest.raises(EmitDiffError, match=said):
            bring(tmp_path / name, out)
    (tmp_path / "a.zip").write_text("x")
    with pytest.raises(EmitDiffError, match="not a ZIP file"):
        bring(tmp_path / "a.zip", out)


def test_labels_as_they_are_written():
    assert parse_labels(["lesion=1", " a = b =2"]) == {"lesion": 1, "a = b": 2}
    assert parse_labels(["lesion=255"]) == {"lesion": 1}, "white is class 1"
    for wrong, said in (("lesion", "NAME=ID"), ("=1", "NAME=ID"), ("x=0", "1 to 254"), ("x=300", "1 to 254")):
        with pytest.raises(EmitDiffError, match=said):
            parse_labels([wrong])
    with pytest.raises(EmitDiffError, match="same class id 1"):
        parse_labels(["a=1", "b=1"])


@pytest.mark.parametrize("slices", ["every 0", "some", "every", "3"])
def test_slices_that_are_not_known(slices):
    with pytest.raises(EmitDiffError, match="all, labelled, or every N"):
        ImportSettings(slices=slices).check()
