"""The handlers of the Dataset tab, called as Gradio calls them; only what generates is a fake."""

from __future__ import annotations

import json
import re
import time
import zipfile
from dataclasses import asdict

import cv2
import gradio as gr
import numpy as np
import pytest
from fakes import fake_callables

from emitdiff.errors import EmitDiffError
from emitdiff.ui.dataset.augment_form import AugmentForm
from emitdiff.ui.dataset.tab import ALL_IMAGES, NOTHING, ONLY_KEPT, PAIRS, DatasetTab
from emitdiff.ui.dataset.views import BUSY, check_html, job_line
from emitdiff.ui.interface import AugmentRequest
from emitdiff.ui.sample_data import write_example_dataset, write_sample_data


@pytest.fixture
def tab(tmp_path, monkeypatch):
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    with gr.Blocks():
        return DatasetTab(fake_callables())


@pytest.fixture
def packed(tmp_path):
    return str(write_example_dataset(tmp_path / "drawn.zip", count=2))


def form(tab, **changes):
    values = {name: field.value for name, field in tab.form.fields.items()}
    return {**values, **changes}


def ended(tab, job):
    """What the page is told once nothing runs any more."""
    for _ in range(1800):  # the first one imports torch
        if tab.jobs.status(job).stage not in BUSY:
            return tab.follow(job, NOTHING)
        time.sleep(0.05)
    pytest.fail("the job does not end")


def test_a_zip_is_checked_and_augmented_and_its_report_shown(tab, packed):
    taken = tab.upload(packed, "")
    job = taken[tab.job]
    assert "2 images in 2 groups" in taken[tab.found] and "lesion" in taken[tab.found]
    assert taken[tab.start_button]["interactive"] and not taken[tab.stop_button]["interactive"]
    begun = tab.start(job, **form(tab))
    assert begun[tab.timer].active and begun[tab.stop_button]["interactive"] and begun[tab.gallery]["visible"]
    done = ended(tab, job)
    assert "2 synthetic images: 2 kept, 0 dropped" in done[tab.progress] and not done[tab.timer].active
    frame = done[tab.report]["value"]
    assert frame.startswith("<iframe") and "sandbox" in frame and frame.count("&lt;article") == 2
    assert not done[tab.gallery]["visible"] and done[tab.which]["value"] == ONLY_KEPT
    assert done[tab.report_file]["value"].endswith("report.html")


def test_what_is_generated_is_shown_as_it_comes(tab, packed):
    job = tab.upload(packed, "")[tab.job]
    tab.start(job, **form(tab, ratio=10))
    while tab.jobs.status(job).done < 1:
        time.sleep(0.01)
    updates = tab.follow(job, ("generating", 0))
    tiles = updates[tab.gallery]
    assert len(tiles) == PAIRS and tiles[0][0].shape[1] > 2 * tiles[0][0].shape[0] and tiles[0][1]
    assert re.search(r"Generating image \d+ of 20, about \d+ s left", updates[tab.progress])
    assert not tab.stop(job)["interactive"]
    stopped = ended(tab, job)
    assert "Stopped" in stopped[tab.progress] and stopped[tab.which]["value"] == ALL_IMAGES
    assert stopped[tab.start_button]["interactive"] and stopped[tab.export_row]["visible"]


def test_a_page_opened_again_finds_the_job_and_its_settings(tab, packed):
    job = tab.upload(packed, "")[tab.job]
    fields = tab.form.fields
    tab.start(job, **form(tab, edit=0.3, appearance=True, seed=5))
    again = tab.restore(job, NOTHING)
    assert (again[fields["edit"]], again[fields["appearance"]], again[fields["seed"]]) == (0.3, True, 5)
    assert again[tab.timer].active and "2 images in 2 groups" in again[tab.found]
    refused = tab.remove(job)  # in that window, while this one waits
    assert "stop the run before removing it" in refused[tab.found] and tab.jobs.status(job)
    tab.stop(job)
    ended(tab, job)
    assert tab.restore("somebody else's", NOTHING) == {tab.job: ""}
    assert tab.found not in tab.restore(job, ("generating", 3))  # on this page it is shown already


@pytest.mark.parametrize(
    ("layout", "which"), [("dataset folder", ONLY_KEPT), ("nnU-Net", ONLY_KEPT), ("COCO", ALL_IMAGES)]
)
def test_the_result_is_taken_in_a_layout(tab, packed, layout, which):
    job = tab.upload(packed, "")[tab.job]
    tab.start(job, **form(tab))
    ended(tab, job)
    updates = tab.export(job, layout, which)
    with zipfile.ZipFile(updates[tab.download].value["path"]) as zipped:
        assert sum(name.endswith(".png") for name in zipped.namelist()) == (4 if layout == "COCO" else 8)
    assert "is ready" in updates[tab.said] and updates[tab.download].interactive


def test_what_goes_wrong_is_said_beside_its_field(tab, packed, tmp_path):
    (tmp_path / "no.zip").write_text("no zip")
    assert "not a ZIP file" in tab.upload(str(tmp_path / "no.zip"), "")[tab.found]
    assert "No dataset yet" in tab.start("", **form(tab))[tab.progress]
    job = tab.upload(packed, "")[tab.job]
    assert "The seed is 1.5: enter a whole number" in tab.start(job, **form(tab, seed=1.5))[tab.progress]
    assert "The ratio is empty" in tab.start(job, **form(tab, ratio=None))[tab.progress]
    assert "Nothing to export yet" in tab.export(job, "COCO", ALL_IMAGES)[tab.said]
    assert tab.stop("gone") and not tab.follow("gone", NOTHING)[tab.timer].active


def test_nothing_generated_is_lost_to_another_upload(tab, packed):
    job = tab.upload(packed, "")[tab.job]
    tab.start(job, **form(tab))
    ended(tab, job)
    refused = tab.upload(packed, job)
    assert "remove it, then upload the next one" in refused[tab.found] and tab.job not in refused
    removed = tab.remove(job)
    assert removed[tab.job] == "" and tab.jobs.status(job) is None and not removed[tab.export_row]["visible"]
    first = tab.upload(packed, "")[tab.job]
    second = tab.upload(packed, first)[tab.job]
    assert tab.jobs.status(first) is None and tab.jobs.status(second)


def test_defects_are_named_and_stop_what_they_must(tab, packed, tmp_path):
    with zipfile.ZipFile(packed) as whole, zipfile.ZipFile(tmp_path / "less.zip", "w") as less:
        for name in whole.namelist():
            if not name.endswith("masks/painted_1.png"):
                less.writestr(name, whole.read(name))
        less.writestr("example-ultrasound/images/unlisted<b>.png", b"x")
    taken = tab.upload(str(tmp_path / "less.zip"), "")
    assert "missing file: 1" in taken[tab.found] and "unlisted&lt;b&gt;.png" in taken[tab.found]
    assert not taken[tab.start_button]["interactive"] and 'role="alert"' in taken[tab.found]
    assert str(tmp_path) not in taken[tab.found]


def test_a_dataset_json_that_cannot_be_read_does_not_name_the_server(tab, packed, tmp_path):
    with zipfile.ZipFile(packed) as whole, zipfile.ZipFile(tmp_path / "bad.zip", "w") as bad:
        for name in whole.namelist():
            bad.writestr(name, b"{" if name.endswith("dataset.json") else whole.read(name))
    found = tab.upload(str(tmp_path / "bad.zip"), "")[tab.found]
    assert "is not valid JSON" in found and str(tmp_path) not in found


def test_the_form_makes_the_request_and_takes_it_back():
    with gr.Blocks():
        fields = AugmentForm(fake_callables())
    values = {name: field.value for name, field in fields.fields.items()}
    request = fields.request({**values, "limit": 3.0, "segmenter": True})
    assert request == AugmentRequest(limit=3, segmenter="textdiff-mini")
    assert set(fields.fields) == set(asdict(request))
    back = fields.values(request)
    assert back[fields.fields["segmenter"]] is True and back[fields.fields["limit"]] == 3
    assert back[fields.fields["guidance"]] == 0
    with pytest.raises(EmitDiffError, match="Guidance|guidance"):
        fields.request({**values, "guidance": 99.0})


def test_a_failure_is_told_in_its_own_words(tab, packed):
    job = tab.upload(packed, "")[tab.job]
    tab.start(job, **form(tab, segmenter=True))  # the fake segmenter fails
    updates = ended(tab, job)
    assert "The weights are not here" in updates[tab.progress] and updates[tab.export_row]["visible"]
    assert "2 images" in check_html(tab.jobs.status(job)) and "alert" in job_line(tab.jobs.status(job))


def answers(tab, asked, **changes):
    """What stands in the import form after its questions, as its components hold it."""
    values = {name: asked[part] for name, part in tab.importing.fields.items()}
    plain = {name: value["value"] if isinstance(value, dict) else value for name, value in values.items()}
    return {**plain, **changes}


def test_images_and_masks_of_another_layout_are_asked_about_and_imported(tab, tmp_path):
    asked = tab.upload(str(write_sample_data(tmp_path / "my-images.zip")), "")
    form = tab.importing
    assert "folders of images and masks, 4 images with masks" in asked[form.said]
    assert asked[form.panel]["visible"] and tab.job not in asked
    assert asked[form.classes]["label"] == "What the masks show (the class)"
    missing = tab.take_foreign("", **answers(tab, asked))
    assert "Still missing: the modality, the organ, what the masks show." in missing[form.said]
    given = {"modality": "Ultrasound", "organ": "breast", "classes": "lesion, cyst"}
    assert "1 class(es), 1, and 2 name(s)" in tab.take_foreign("", **answers(tab, asked, **given))[form.said]
    taken = tab.take_foreign("", **answers(tab, asked, **{**given, "classes": "lesion"}))
    assert "my-images: Ultrasound, breast. 4 images in 4 groups." in taken[tab.found]
    assert "About the import" in taken[tab.found] and "is a group of its own" in taken[tab.found]
    assert not taken[form.panel]["visible"] and taken[tab.start_button]["interactive"]
    tab.start(taken[tab.job], **{name: field.value for name, field in tab.form.fields.items()})
    assert tab.jobs.status(taken[tab.job]).notes, "what was said of the import stays"
    assert "nothing to import any more" in tab.take_foreign("", **answers(tab, asked, found=None))[form.said]


def test_what_another_layout_says_of_itself_is_filled_in(tab, tmp_path):
    record = {"channel_names": {"0": "T2"}, "labels": {"background": 0, "gland": 1, "tumour": 2},
              "numTraining": 1, "file_ending": ".png"}  # fmt: skip
    picture = cv2.imencode(".png", np.arange(64, dtype=np.uint8).reshape(8, 8))[1].tobytes()
    mask = cv2.imencode(".png", np.eye(8, dtype=np.uint8) * 2)[1].tobytes()
    with zipfile.ZipFile(tmp_path / "task.zip", "w") as zipped:
        zipped.writestr("Dataset007_Gland/dataset.json", json.dumps(record))
        zipped.writestr("Dataset007_Gland/imagesTr/a_0000.png", picture)
        zipped.writestr("Dataset007_Gland/labelsTr/a.png", mask)
    asked, form = tab.upload(str(tmp_path / "task.zip"), ""), tab.importing
    assert asked[form.modality] == "MRI" and asked[form.classes]["value"] == "gland, tumour"
    assert asked[form.classes]["label"].startswith("What the masks show (classes 1, 2, in this order")
    taken = tab.take_foreign("", **answers(tab, asked, organ="prostate"))
    assert "tumour" in taken[tab.found] and "1 images in 1 groups" in taken[tab.found]
