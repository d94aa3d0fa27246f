from __future__ import annotations

import csv
import json
from dataclasses import replace
from multiprocessing.pool import ThreadPool
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from PIL import Image
from PIL.PngImagePlugin import PngInfo

from emitdiff.datasets.coco import coco_annotations
from emitdiff.datasets.export import Export, cut_splits, export, label_colours
from emitdiff.datasets.folder import DatasetInfo, Sample, open_dataset, unique_stems
from emitdiff.datasets.writing import write_tables
from emitdiff.errors import EmitDiffError
from emitdiff.provenance import DIGITAL_SOURCE_TYPE, read_synthetic_settings, save_synthetic_png

INFO = DatasetInfo("cells", "Microscopy", "nuclei", {"background": 0, "nucleus": 1, "debris": 4}, "CC0", "drawn")


def drawn(seed: int) -> tuple[np.ndarray, np.ndarray]:
    """A picture and a mask with a ring, a single pixel, two pieces touching at a corner, and a second class."""
    image = np.random.default_rng(seed).integers(0, 255, (40, 56), np.uint8)
    mask = np.zeros((40, 56), np.uint8)
    mask[4:14, 6:20], mask[7:11, 9:15] = 1, 0
    mask[20, 30] = 1
    mask[24:28, 40:44], mask[28:30, 44:46] = 1, 1
    mask[30 : 34 + seed, 2:9] = 4
    return np.repeat(image[..., None], 3, -1), mask


@pytest.fixture(scope="module")
def mixed_folder(tmp_path_factory) -> Path:
    """Four patients with two real images each, and a synthetic one generated from every real one."""
    folder, rows = tmp_path_factory.mktemp("mixed") / "cells", []
    (folder / "images").mkdir(parents=True)
    (folder / "masks").mkdir()
    for index in range(8):
        image, mask = drawn(index % 3)
        row = {"group": f"p{index // 2}", "finding": "", "text": "", "mask": f"masks/{index}.png"}
        text = PngInfo()
        text.add_text("Comment", "a name")
        Image.fromarray(image).save(folder / f"images/{index}.png", pnginfo=text)
        Image.fromarray(mask).save(folder / row["mask"])
        rows.append({**row, "file_name": f"images/{index}.png"})
        origin = {"source": f"images/{index}.png", "seed": str(90 + index), "provenance": "trainedAlgorithmicMedia"}
        painted = {**row, **origin, "file_name": f"images/synthetic_{index}.png"}
        save_synthetic_png(255 - image, folder / painted["file_name"], {"seed": 90 + index})
        rows.append(painted)
    write_tables(folder, INFO, rows)
    return folder


def read_json(path: Path):
    return json.loads(path.read_text(encoding="utf-8"))


def provenance(folder: Path) -> dict[str, dict[str, str]]:
    with (folder / "provenance.csv").open(encoding="utf-8") as file:
        return {row["case"]: row for row in csv.DictReader(file)}


def grey(path: Path) -> np.ndarray:
    picture = Image.open(path)
    assert picture.mode == "L"
    return np.array(picture)


def samples(folder: Path) -> dict[str, Sample]:
    return {sample.name.removeprefix("images/").split(".")[0]: sample for sample in open_dataset(folder)}


def test_folds_validate_on_real_images_and_keep_groups_apart(mixed_folder):
    dataset = open_dataset(mixed_folder)
    splits = cut_splits(dataset, 4, 0)
    validated = [index for _, validation in splits for index in validation]
    assert sorted(validated) == [index for index, row in enumerate(dataset.rows) if not row["provenance"]]
    for train, validation in splits:
        assert not {dataset.groups[index] for index in train} & {dataset.groups[index] for index in validation}
        assert len(train) == 12 and len(validation) == 2


def test_nnunet_reads_cases_labels_without_gaps_and_our_folds(mixed_folder, tmp_path):
    written = export(Export(mixed_folder, tmp_path / "raw", "nnunet", folds=4, dataset_id=7))
    folder = tmp_path / "raw" / "Dataset007_cells"
    assert written.folder == folder and written.images == 16 and any("splits_final.json" in n for n in written.notes)
    facts = read_json(folder / "dataset.json")
    assert facts["channel_names"] == {"0": "Microscopy 8 bit"} and facts["file_ending"] == ".png"
    assert facts["labels"] == {"background": 0, "nucleus": 1, "debris": 2} and facts["numTraining"] == 16
    assert facts["licence"] == "CC0" and "8 real and 8 synthetic" in facts["description"]
    cases = {path.name.removesuffix("_0000.png") for path in (folder / "imagesTr").iterdir()}
    assert cases == {path.stem for path in (folder / "labelsTr").iterdir()} and len(cases) == 16
    for case, sample in samples(mixed_folder).items():
        assert (grey(folder / f"imagesTr/{case}_0000.png") == sample.image[..., 0]).all()
        assert (grey(folder / f"labelsTr/{case}.png") == np.where(sample.mask == 4, 2, sample.mask)).all()
    splits = read_json(folder / "splits_final.json")
    origin = provenance(folder)
    assert len(splits) == 4 and all(set(split["train"] + split["val"]) <= cases for split in splits)
    for split in splits:
        assert not any(origin[case]["provenance"] for case in split["val"])
        assert not {origin[c]["group"] for c in split["val"]} & {origin[c]["group"] for c in split["train"]}
    assert origin["synthetic_3"]["seed"] == "93" and origin["synthetic_3"]["source"] == "images/3.png"


@pytest.fixture
def verify_for_nnunet(monkeypatch):
    """nnU-Net's own check of a dataset, in this process: for two processes it would import everything anew."""
    for name in ("nnUNet_raw", "nnUNet_preprocessed", "nnUNet_results"):
        monkeypatch.setenv(name, "nowhere")  # it says at length where these are not set
    from nnunetv2.experiment_planning import verify_dataset_integrity as verification

    threads = SimpleNamespace(Pool=ThreadPool)
    monkeypatch.setattr(verification, "multiprocessing", SimpleNamespace(get_context=lambda kind: threads))
    return lambda folder: verification.verify_dataset_integrity(str(folder), 1)


@pytest.mark.parametrize("names", [("a", "a_0000", "a_0001"), ("Läsion é", "病变 (2)", "x.y")])
def test_nnunet_finds_nothing_wrong(verify_for_nnunet, tmp_path, capsys, names):
    """Whatever the images are called: a name that ends like a channel of nnU-Net's, or has letters of any script."""
    folder, rows = tmp_path / "set", []
    for part in ("images", "masks"):
        (folder / part).mkdir(parents=True)
    for index, name in enumerate(names):
        image, mask = drawn(index)
        Image.fromarray(image).save(folder / f"images/{name}.png")
        Image.fromarray(mask).save(folder / f"masks/{name}.png")
        rows.append({"file_name": f"images/{name}.png", "mask": f"masks/{name}.png", "group": name})
    write_tables(folder, INFO, rows)
    written = export(Export(folder, tmp_path / "raw", "nnunet", folds=0))
    verify_for_nnunet(written.folder)
    said = capsys.readouterr().out
    assert "verify_dataset_integrity Done" in said and "Error" not in said and "Warning" not in said
    (written.folder / "labelsTr" / f"{unique_stems([row['file_name'] for row in rows])[1]}.png").unlink()
    with pytest.raises(AssertionError, match="not all training cases have a label"):
        verify_for_nnunet(written.folder)


def test_a_synthetic_picture_still_says_so_and_a_real_one_s_own_text_stays_behind(mixed_folder, tmp_path):
    folder = export(Export(mixed_folder, tmp_path / "out", "paired", folds=0)).folder
    assert read_synthetic_settings(folder / "image/synthetic_2.png")["seed"] == 92
    assert DIGITAL_SOURCE_TYPE in Image.open(folder / "image/synthetic_2.png").info["XML:com.adobe.xmp"]
    assert not Image.open(folder / "image/2.png").text


def test_colour_stays_colour(dataset_folder, tmp_path):
    source = open_dataset(dataset_folder)
    folder = tmp_path / "colour"
    for part in ("images", "masks"):
        (folder / part).mkdir(parents=True)
    image, mask = np.random.default_rng(0).integers(0, 255, (40, 56, 3), np.uint8), drawn(0)[1]
    Image.fromarray(image).save(folder / "images/a.png")
    Image.fromarray(mask).save(folder / "masks/a.png")
    row = {**source.rows[0], "file_name": "images/a.png", "mask": "masks/a.png"}
    write_tables(folder, replace(INFO, modality="CT"), [row])
    out = export(Export(folder, tmp_path / "raw", "nnunet", folds=0)).folder
    assert read_json(out / "dataset.json")["channel_names"] == {"0": "R", "1": "G", "2": "B"}
    assert (np.array(Image.open(out / "imagesTr/a_0000.png")) == image).all()
    assert not (out / "splits_final.json").exists()


def test_monai_reads_every_datalist(mixed_folder, tmp_path):
    from monai.data import load_decathlon_datalist, load_decathlon_properties
    from monai.transforms import LoadImage

    folder = export(Export(mixed_folder, tmp_path / "out", "monai", folds=2)).folder
    real, groups = set(), {}
    for number in range(2):
        path = folder / f"datalist_{number}.json"
        assert load_decathlon_properties(path, "labels")["labels"] == {"0": "background", "1": "nucleus", "4": "debris"}
        train = load_decathlon_datalist(path, True, "training", base_dir=folder)
        validation = load_decathlon_datalist(path, True, "validation", base_dir=folder)
        assert len(train) == 8 and len(validation) == 4 and all(Path(item["image"]).exists() for item in train)
        groups[number] = {item["group"] for item in validation}
        assert not groups[number] & {item["group"] for item in train}
        assert all(item["fold"] == number and "provenance" not in item for item in validation)
        assert sum(item.get("provenance") == "trainedAlgorithmicMedia" for item in train) == 4
        real |= {item["image"] for item in validation}
        mask = LoadImage(image_only=True)(train[0]["label"])
        stem = Path(train[0]["label"]).stem
        assert (samples(mixed_folder)[stem].mask == np.asarray(mask).T).all()
    assert len(real) == 8


def test_coco_decodes_to_our_masks(mixed_folder, tmp_path, capsys):
    from pycocotools.coco import COCO

    folder = export(Export(mixed_folder, tmp_path / "out", "coco", folds=4)).folder
    coco = COCO(str(folder / "annotations/instances.json"))
    capsys.readouterr()
    assert {c["id"]: c["name"] for c in coco.loadCats(coco.getCatIds())} == {1: "nucleus", 4: "debris"}
    expected = samples(mixed_folder)
    assert len(coco.getImgIds()) == 16
    for image in coco.loadImgs(coco.getImgIds()):
        sample, found = expected[Path(image["file_name"]).stem], np.zeros((image["height"], image["width"]), np.uint8)
        annotations = coco.loadAnns(coco.getAnnIds(image["id"]))
        assert len(annotations) == 4
        for annotation in annotations:
            piece = coco.annToMask(annotation)
            rows, columns = np.nonzero(piece)
            left, top, width, height = annotation["bbox"]
            assert (left, top) == (columns.min(), rows.min()) and annotation["area"] == piece.sum()
            assert (width, height) == (np.ptp(columns) + 1, np.ptp(rows) + 1) and annotation["iscrowd"] == 0
            found[piece > 0] = annotation["category_id"]
        assert (found == sample.mask).all()
        assert (grey(folder / "images" / image["file_name"]) == sample.image[..., 0]).all()
        assert image.get("provenance", "") == sample.row["provenance"]
    for number in range(4):
        train, val = (read_json(folder / f"annotations/instances_{side}_{number}.json") for side in ("train", "val"))
        assert len(train["images"]) == 12 and len(train["annotations"]) == 48
        assert {image["fold"] for image in val["images"]} == {number} and len(val["annotations"]) == 8


def test_an_empty_mask_has_no_annotations():
    assert list(coco_annotations(np.zeros((5, 7), np.uint8))) == []


def test_paired_folders_have_the_same_stems_and_colours_as_documented(mixed_folder, tmp_path):
    folder = export(Export(mixed_folder, tmp_path / "out", "paired", folds=4)).folder
    stems = [{path.stem for path in (folder / part).iterdir()} for part in ("image", "mask", "mask_colour")]
    assert stems[0] == stems[1] == stems[2] == set(samples(mixed_folder))
    with (folder / "labels.csv").open() as file:
        colours = {tuple(int(row[c]) for c in ("red", "green", "blue")): row for row in csv.DictReader(file)}
    assert {row["name"]: row["id"] for row in colours.values()} == {"background": "0", "nucleus": "1", "debris": "4"}
    mask, colour = grey(folder / "mask/0.png"), np.array(Image.open(folder / "mask_colour/0.png"))
    assert (mask == samples(mixed_folder)["0"].mask).all()
    for label in np.unique(mask).tolist():
        (shown,) = np.unique(colour[mask == label], axis=0).tolist()
        assert colours[tuple(shown)]["id"] == str(label)
    assert len(read_json(folder / "folds.json")) == 4 and read_json(folder / "dataset.json")["organ"] == "nuclei"


def test_no_two_classes_share_a_colour():
    assert len(np.unique(label_colours(), axis=0)) == 256


def test_synthetic_images_alone_have_no_folds_and_that_is_said(mixed_folder, tmp_path):
    dataset = open_dataset(mixed_folder)
    rows = [{**row, "provenance": "trainedAlgorithmicMedia"} for row in dataset.rows]
    assert cut_splits(replace(dataset, rows=rows), 5, 0) == []
    for part in ("images", "masks"):
        (tmp_path / "painted" / part).mkdir(parents=True)
        for path in (mixed_folder / part).iterdir():
            (tmp_path / "painted" / part / path.name).write_bytes(path.read_bytes())
    write_tables(tmp_path / "painted", INFO, rows)
    written = export(Export(tmp_path / "painted", tmp_path / "out", "monai"))
    assert any("no folds" in note for note in written.notes)
    content = read_json(written.folder / "datalist.json")
    assert len(content["training"]) == 16 and content["validation"] == []


def test_what_cannot_be_written_is_refused_and_leaves_nothing(mixed_folder, tmp_path):
    with pytest.raises(EmitDiffError, match=r"4 group\(s\) with real images"):
        export(Export(mixed_folder, tmp_path / "out", "coco"))
    with pytest.raises(EmitDiffError, match="format 'voc'"):
        export(Export(mixed_folder, tmp_path / "out", "voc", folds=0))
    with pytest.raises(EmitDiffError, match="1 to 999"):
        export(Export(mixed_folder, tmp_path / "out", "nnunet", folds=0, dataset_id=1000))
    assert not (tmp_path / "out").exists()
    (tmp_path / "Dataset501_other").mkdir()
    with pytest.raises(EmitDiffError, match="Dataset501_other already"):
        export(Export(mixed_folder, tmp_path, "nnunet", folds=0))
    with pytest.raises(EmitDiffError, match="holds something already"):
        export(Export(mixed_folder, tmp_path, "paired", folds=0))
    (tmp_path / "notes.txt").write_text("mine")
    with pytest.raises(EmitDiffError, match="contains other files: notes.txt. Give another folder"):
        export(Export(mixed_folder, tmp_path, "paired", folds=0))


def test_the_folder_one_stands_in_is_refused_but_for_nnunet_which_makes_one_in_it(mixed_folder, tmp_path, monkeypatch):
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path / "here")
    with pytest.raises(EmitDiffError, match="name of a new one"):
        export(Export(mixed_folder, Path("."), "paired", folds=0))
    export(Export(mixed_folder, Path("."), "nnunet", folds=0))
    assert [path.name for path in Path(".").iterdir()] == ["Dataset501_cells"]


def test_an_export_cut_short_starts_again(mixed_folder, tmp_path):
    (tmp_path / ".out.unfinished" / "image").mkdir(parents=True)
    (tmp_path / ".out.unfinished" / "image" / "stale.png").write_bytes(b"")
    folder = export(Export(mixed_folder, tmp_path / "out", "paired", folds=0)).folder
    assert not (folder / "image/stale.png").exists() and [path.name for path in tmp_path.iterdir()] == ["out"]
