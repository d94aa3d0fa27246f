import json
import shutil

import numpy as np
import pytest
import torch

from emitdiff.checksums import fingerprint
from emitdiff.errors import EmitDiffError
from emitdiff.synthesis.card import CARD_FILE
from emitdiff.synthesis.loading import load_synthesizer
from emitdiff.synthesis.pipeline import SamplingStep, SyntheticImage
from emitdiff.synthesis_settings import SynthesisSettings


@pytest.fixture(scope="module")
def pipeline(tiny_synthesis_folder):
    loaded = load_synthesizer(str(tiny_synthesis_folder), device="cpu")
    card = loaded.checkpoint_card
    object.__setattr__(card, "area", 64 * 64)
    object.__setattr__(card, "multiple", 16)
    return loaded


def settings(**changes):
    return {"prompt": "CT, liver", "num_images": 2, "seed": 3, "num_inference_steps": 3, **changes}


def test_images_and_masks_come_back_at_the_size_of_the_source(pipeline):
    image = np.random.default_rng(0).integers(0, 256, (50, 90, 3), dtype=np.uint8)
    mask = (image[..., 0] > 128).astype(np.uint8)
    made = pipeline(image, mask, **settings())
    assert [one.seed for one in made] == [3, 4]
    for one in made:
        assert one.image.shape == image.shape and one.image.dtype == np.uint8
        assert np.array_equal(one.mask, mask) and one.mask is not mask
        assert json.loads(json.dumps(one.settings))["seed"] == one.seed
    assert not np.array_equal(made[0].image, made[1].image)


def test_an_image_depends_on_its_seed_and_not_on_how_many_are_made(pipeline, disc):
    image, mask = disc
    both = pipeline(image, mask, **settings())
    second = pipeline(image, mask, **settings(num_images=1, seed=4))[0]
    assert np.array_equal(both[1].image, second.image)


def test_saved_settings_make_the_same_image_again(pipeline, disc):
    image, mask = disc
    made = pipeline(image, mask, **settings(num_images=1, detector="canny", low_threshold=30))[0]
    again = SynthesisSettings.from_record(made.settings)
    assert np.array_equal(pipeline(image, mask, again)[0].image, made.image)


def test_settings_are_an_object_or_its_fields_and_a_field_wins(pipeline, disc):
    asked = SynthesisSettings(**settings(num_images=1))
    by_name = pipeline(*disc, **settings(num_images=1))[0]
    assert np.array_equal(pipeline(*disc, asked)[0].image, by_name.image)
    other = pipeline(*disc, asked, seed=8)[0]
    assert other.seed == 8 and other.settings["num_inference_steps"] == 3
    again = pipeline(*disc, SynthesisSettings.from_record(json.loads(json.dumps(other.settings))))[0]
    assert np.array_equal(again.image, other.image) and not np.array_equal(again.image, by_name.image)
    canny = asked.replace(detector="canny")
    assert np.array_equal(pipeline.control_image(*disc, canny), pipeline.control_image(*disc, detector="canny"))


@pytest.mark.parametrize("ask", ["__call__", "stream", "control_image"])
def test_an_unknown_setting_is_named_and_a_record_is_no_settings_yet(pipeline, disc, ask):
    with pytest.raises(EmitDiffError, match="no setting called 'steps'; the settings are prompt"):
        getattr(pipeline, ask)(*disc, prompt="CT", steps=3)
    with pytest.raises(EmitDiffError, match="of type dict; give SynthesisSettings"):
        getattr(pipeline, ask)(*disc, {"prompt": "CT"})


def test_grey_in_grey_out_and_colour_in_colour_out(pipeline, disc):
    image, mask = disc
    grey = pipeline(image, mask, **settings(num_images=1))[0].image
    assert (grey == grey[..., :1]).all()
    tinted = image.copy()
    tinted[..., 0] //= 2
    colour = pipeline(tinted, mask, **settings(num_images=1))[0].image
    assert not (colour == colour[..., :1]).all()


def test_a_fresh_controlnet_changes_nothing_and_a_filled_one_does(pipeline, disc):
    """Behind zero convolutions the result is plain Stable Diffusion's, bit for bit (arXiv 2302.05543, section 3.1)."""
    image, mask = disc
    with_control = pipeline(image, mask, **settings(num_images=1))[0].image
    without = pipeline(image, mask, **settings(num_images=1, controlnet_conditioning_scale=0.0))[0].image
    assert np.array_equal(with_control, without)
    bias = pipeline.pipe.controlnet.controlnet_mid_block.bias
    with torch.no_grad():
        bias.add_(1.0)
    changed = pipeline(image, mask, **settings(num_images=1))[0].image
    with torch.no_grad():
        bias.sub_(1.0)
    assert not np.array_equal(changed, without)


def test_steps_are_reported_with_previews_before_each_image(pipeline, disc):
    events = list(pipeline.stream(*disc, **settings()))
    kinds = [type(event) for event in events]
    assert kinds == [SamplingStep, SamplingStep, SamplingStep, SyntheticImage] * 2
    assert [event.step for event in events[:3]] == [1, 2, 3]
    assert any(event.preview is not None for event in events[:3])


def test_stop_stops_within_a_step_and_keeps_what_was_finished(pipeline, disc):
    done, steps_after = [], 0
    for event in pipeline.stream(*disc, **settings(num_images=5, num_inference_steps=6), cancelled=lambda: bool(done)):
        if done:
            steps_after += 1
        if isinstance(event, SyntheticImage):
            done.append(event)
    assert len(done) == 1 and steps_after <= 1
    assert len(pipeline(*disc, **settings(num_images=1))) == 1


def test_a_mask_alone_is_enough(pipeline, disc):
    _, mask = disc
    made = pipeline(None, mask, **settings(num_images=1))[0]
    assert made.image.shape[:2] == mask.shape
    control = pipeline.control_image(None, mask)
    assert control.any()


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"num_images": 0}, "number from 1 to 1000"),
        ({"num_inference_steps": 0}, "steps were asked for"),
        ({"guidance_scale": -1.0}, "guidance scale"),
        ({"controlnet_conditioning_scale": 9.0}, "control strength"),
        ({"seed": -1}, "seed was -1"),
    ],
)
def test_settings_out_of_range_are_answered_before_the_first_step(pipeline, disc, changes, words):
    with pytest.raises(EmitDiffError, match=words):
        pipeline.stream(*disc, **settings(**changes))


def test_neither_image_nor_mask_and_unequal_sizes_are_refused(pipeline, disc):
    with pytest.raises(EmitDiffError, match="Neither an image nor a mask"):
        pipeline(None, None, **settings())
    with pytest.raises(EmitDiffError, match="export the mask"):
        pipeline(disc[0], np.zeros((3, 4), np.uint8), **settings())


def test_a_folder_that_is_no_pipeline_is_named(tmp_path, tiny_synthesis_folder):
    shutil.copytree(tiny_synthesis_folder, tmp_path / "broken")
    (tmp_path / "broken" / "model_index.json").unlink()
    with pytest.raises(EmitDiffError, match="does not hold a complete"):
        load_synthesizer(str(tmp_path / "broken"))
    (tmp_path / "odd").mkdir()
    shutil.copytree(tiny_synthesis_folder, tmp_path / "odd", dirs_exist_ok=True)
    (tmp_path / "odd" / CARD_FILE).write_text('{"colour": 1}')
    with pytest.raises(EmitDiffError, match="cannot be read"):
        load_synthesizer(str(tmp_path / "odd"))


def test_an_image_says_the_weights_and_the_source_by_their_content(pipeline, disc, tiny_synthesis_folder):
    image, mask = disc
    (one,) = pipeline(image, mask, **settings(num_images=1))
    (other,) = pipeline(image ^ 1, mask, **settings(num_images=1))
    assert one.settings["weights_sha256"] == fingerprint(tiny_synthesis_folder)
    assert one.settings["image_sha256"] != other.settings["image_sha256"]
    assert one.settings["mask_sha256"] == other.settings["mask_sha256"]
    assert set(one.settings["made_with"]) == {"emitdiff", "torch", "device", "dtype", "machine"}
    (free,) = pipeline(None, None, **settings(num_images=1, structure=0))
    assert "image_sha256" not in free.settings
