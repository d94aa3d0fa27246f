"""The callables behind the page, over a tiny pipeline of the real classes."""

from __future__ import annotations

import shutil
import threading
from dataclasses import replace

import numpy as np
import pytest

from emitdiff.backend import pipelines, services
from emitdiff.datasets.archive import pack_folder
from emitdiff.errors import EmitDiffError
from emitdiff.synthesis_settings import SynthesisSettings
from emitdiff.ui.form import BLANK_FORM
from emitdiff.ui.interface import EvaluateRequest, FewShotDatasetRequest, FewShotRequest, SynthesisRequest


def test_models_are_the_known_ones_and_the_chosen_folder(calls, tiny_synthesis_folder):
    models = {model.name: model for model in calls.models()}
    assert {"emitdiff-mini", "textdiff-mini", "sd15-softedge", str(tiny_synthesis_folder)} <= set(models)
    assert models[str(tiny_synthesis_folder)].status == "ready (local folder)"
    assert calls.synthesis_checkpoint == str(tiny_synthesis_folder)


def test_an_unknown_name_is_refused_before_the_page_is_built():
    with pytest.raises(EmitDiffError, match="nothing-of-that-name"):
        services.build_callables("nothing-of-that-name", "textdiff-mini")


@pytest.mark.usefixtures("no_images")
def test_the_embedded_weights_tell_the_kind_of_every_example(calls):
    from emitdiff.ui.examples import read_examples

    for card in read_examples():
        image = calls.read_scan(card.image).image(0)
        seen = calls.image_kind(image)
        assert seen is not None and seen[1:] == (card.modality, card.organ), card.title
    noise = np.random.default_rng(0).integers(0, 256, (128, 160, 3), dtype=np.uint8)
    assert calls.image_kind(noise) is None
    assert calls.image_kind(np.zeros((64, 64, 3), np.uint8)) is None


def test_no_kind_is_told_without_weights_and_none_are_fetched_for_it(disc, monkeypatch):
    monkeypatch.setattr(services, "is_ready", lambda checkpoint: False)
    monkeypatch.setattr(services, "segmenter", lambda name: pytest.fail("weights were asked for"))
    assert services.build_callables("emitdiff-mini", "textdiff-mini").image_kind(disc[0]) is None


def test_a_segmenter_without_kinds_tells_none(calls, disc, tiny_segmenter, monkeypatch):
    monkeypatch.setattr(services, "segmenter", lambda name: tiny_segmenter)
    assert calls.image_kind(disc[0]) is None


def test_the_preview_is_what_the_pipeline_is_given(calls, request_of, disc):
    image, mask = disc
    given = pipelines.synthesizer(request_of.checkpoint).control_image(image, mask, detector="soft", boundary=True)
    np.testing.assert_array_equal(calls.control_image(image, mask, request_of), given)


def test_the_preview_of_weights_that_are_not_here_downloads_nothing(calls, disc):
    control = calls.control_image(*disc, SynthesisRequest(SynthesisSettings(detector="canny"), "sd15-canny"))
    assert control.shape == (512, 512, 3)


def test_a_preview_builds_no_pipeline(calls, request_of, disc, monkeypatch):
    monkeypatch.setattr(services, "synthesizer", lambda name: pytest.fail("the weights were loaded"))
    monkeypatch.setattr("emitdiff.synthesis.pipeline.SynthesisPipeline.__init__", lambda *given: pytest.fail("built"))
    assert calls.control_image(*disc, request_of).any()


def test_a_preview_fetches_no_edge_detector_and_needs_none(calls, disc, monkeypatch, tmp_path):
    from emitdiff.synthesis.hed.mini import MiniNetwork, save_hed_mini

    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path / "hub"))
    monkeypatch.setattr("huggingface_hub.hf_hub_download", lambda *place, **settings: pytest.fail("it was fetched"))
    monkeypatch.setenv("EMITDIFF_HED", str(tmp_path / "nothing"))
    monkeypatch.setenv("EMITDIFF_CHECKPOINTS", str(tmp_path))
    (tmp_path / "hed-mini").mkdir()
    save_hed_mini(MiniNetwork(), tmp_path / "hed-mini", {})
    shown = [
        calls.control_image(*disc, SynthesisRequest(SynthesisSettings(detector=detector), "sd15-softedge"))
        for detector in ("hed", "hed-mini")
    ]
    assert shown[0].shape == (512, 512, 3) and np.array_equal(*shown)


def test_records_of_a_downloaded_repository_are_read(calls, disc, monkeypatch, tmp_path):
    (tmp_path / "model.safetensors").touch()
    (tmp_path / "emitdiff.json").write_text('{"area": 65536}')
    (tmp_path / "segmenter.json").write_text('{"targets": ["knee"]}')
    monkeypatch.setattr("emitdiff.checkpoints.find_snapshot", lambda part: tmp_path)
    assert calls.control_image(*disc, SynthesisRequest(checkpoint="owner/repo")).shape == (256, 256, 3)
    assert calls.targets("owner/repo") == ("knee",)


def test_the_page_offers_the_detector_and_settings_that_weights_were_trained_with(tmp_path):
    """Also of a ControlNet fine-tuned beside a Hub base that is not on this machine."""
    for base in ("{}", '{"repository": "owner/not-here", "revision": "main"}'):
        (tmp_path / "emitdiff.json").write_text(
            f'{{"detector": "hed", "defaults": {{"guidance_scale": 3.5}}, "base": {base}}}'
        )
        made = services.build_callables(str(tmp_path), "textdiff-mini")
        (model,) = (model for model in made.models() if model.name == str(tmp_path))
        assert (model.detector, model.defaults["guidance_scale"]) == ("hed", 3.5)


def test_synthesize_streams_steps_and_images_until_cancelled(calls, request_of, disc):
    stop = threading.Event()
    events = []
    for event in calls.synthesize(*disc, request_of, stop.is_set):
        events.append(event)
        if getattr(event, "image", None) is not None:
            stop.set()
    images = [event for event in events if getattr(event, "image", None) is not None]
    assert [image.seed for image in images] == [4] and len(events) == 3
    assert images[0].image.shape == (64, 64, 3) and images[0].settings["num_inference_steps"] == 2


def test_a_prompt_that_is_cut_is_told_without_loading_the_weights(calls, request_of, monkeypatch):
    monkeypatch.setattr(services, "synthesizer", lambda name: pytest.fail("the weights were loaded"))
    assert calls.prompt_warning("CT, abdomen", request_of.checkpoint) == ""
    assert "tokens" in calls.prompt_warning("letters " * 20, request_of.checkpoint)
    assert "tokens" in calls.prompt_warning("\N{CJK UNIFIED IDEOGRAPH-809D}" * 26, request_of.checkpoint), "78 bytes"
    assert calls.prompt_warning("letters " * 20, "sd15-canny") == ""
    counted, limit = calls.token_count("letters", request_of.checkpoint)
    assert 3 <= counted <= 9 and limit == 77
    assert calls.token_count("letters", "sd15-canny") is None


@pytest.mark.parametrize("damaged", ['{"defaults": ', "[1, 2]", "\x00"])
def test_a_damaged_record_is_said_in_a_sentence_and_the_page_comes_up(calls, disc, monkeypatch, tmp_path, damaged):
    (tmp_path / "model.safetensors").touch()
    for name in ("emitdiff.json", "segmenter.json"):
        (tmp_path / name).write_text(damaged)
    monkeypatch.setattr("emitdiff.checkpoints.find_snapshot", lambda part: tmp_path)
    model = {model.name: model for model in calls.models()}["sd15-canny"]
    assert model.status.startswith("damaged") and model.defaults["num_inference_steps"] == 20
    with pytest.raises(EmitDiffError, match=r"segmenter\.json is damaged"):
        services._read_record(services.find_checkpoint("owner/repo", "segmentation"), "segmenter.json")
    with pytest.raises(EmitDiffError, match=r"emitdiff\.json cannot be read"):
        calls.control_image(*disc, SynthesisRequest(SynthesisSettings(detector="canny"), "sd15-canny"))


def test_preview_and_pipeline_agree_on_structure_edit_and_preset(calls, request_of, disc):
    edit = {"move_x": 0.2, "deform": 0.5, "seed": 3}
    settings = request_of.settings.replace(detector="soft", structure=0.7, edit=edit, preset="released")
    request = replace(request_of, settings=settings)
    pipeline = pipelines.synthesizer(request.checkpoint)
    given = pipeline.control_image(*disc, detector="soft", structure=0.7, edit=edit, preset="released")
    np.testing.assert_array_equal(calls.control_image(*disc, request), given)
    images = [event for event in calls.synthesize(*disc, request, lambda: False) if hasattr(event, "image")]
    assert images[0].settings["edit"]["deform"] == 0.5 and images[0].settings["preset"] == "released"
    assert not np.array_equal(images[0].mask, disc[1])


def test_presets_name_only_fields_of_a_request(calls):
    presets = {preset.name: preset.settings for preset in calls.vocabulary.presets}
    assert presets["default"] == {} and presets["paper"]["guidance_scale"] == 9.0
    assert set(presets["released"]) <= set(BLANK_FORM)


def test_a_target_trained_on_the_page_is_found_by_name(calls, disc, tmp_path):
    image, mask = disc
    *_, last = calls.teach([(image, mask, "disc.png")], FewShotRequest("bright disc!", "", "", seconds=6))
    assert last.file.name == "bright-disc-.safetensors" and last.loss > 0
    assert calls.targets(str(last.file)) == ("bright disc!",)
    answer = calls.segment(image, "the bright disc", 0.5, str(last.file))
    assert answer.mask.shape == mask.shape
    assert calls.head_exists(str(last.file)) and not calls.head_exists(str(last.file.with_name("other.safetensors")))
    copied = shutil.copy(last.file, tmp_path)  # a browser may name any file
    link = last.file.parent.with_name(f"{last.file.parent.name}_link")
    link.symlink_to(tmp_path)
    assert not calls.head_exists(copied) and not calls.head_exists(str(link / last.file.name))
    link.unlink()
    for odd in ("a\0b", "\ud800.safetensors", "", str(last.file.with_name("a" * 300 + ".safetensors"))):
        assert not calls.head_exists(odd)


def test_a_training_that_is_stopped_keeps_what_was_learnt(calls, disc):
    request = FewShotRequest("bright disc", "", "", seconds=60)
    *_, last = calls.teach([(*disc, "disc.png")], request, lambda: True)
    assert last.step == 1 and last.seconds < 30 and calls.targets(str(last.file)) == ("bright disc",)
    assert "1 training step (" in last.shortfall


def test_a_zipped_dataset_trains_and_measures(calls, dataset_folder, tmp_path):
    archive = pack_folder(dataset_folder, tmp_path / "discs.zip", "discs")
    *_, last = calls.teach_dataset(archive, FewShotDatasetRequest("textdiff-mini", images=2, seconds=6))
    (target,) = calls.targets(str(last.file))
    *_, measures = calls.evaluate(archive, EvaluateRequest(str(last.file), limit=1))
    assert measures["n"] == 1 and 0 <= measures["dice"] <= 1
    assert measures["checkpoint"] == last.file.name, "where it is stored is not told"
    assert measures["targets"][target]["dice"] == measures["dice"]


def test_what_is_wrong_with_a_zipped_dataset_is_said_without_where_it_lay(calls, dataset_folder, tmp_path, monkeypatch):
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    damaged = shutil.copytree(dataset_folder, tmp_path / "discs")
    (damaged / "metadata.csv").write_text("file_name\n")
    archive = pack_folder(damaged, tmp_path / "discs.zip", "discs")
    asked = (
        lambda: list(calls.teach_dataset(archive, FewShotDatasetRequest("textdiff-mini"))),
        lambda: list(calls.evaluate(archive, EvaluateRequest("textdiff-mini"))),
    )
    for ask in asked:
        with pytest.raises(EmitDiffError, match="metadata.csv") as refused:
            ask()
        assert str(tmp_path) not in str(refused.value)
    assert {path.name for path in tmp_path.iterdir()} == {"discs", "discs.zip"}, "nothing is left behind"
