"""Structure at a dose, mask edits and presets as the pipeline applies them."""

import json

import numpy as np
import pytest
import torch

from emitdiff.errors import EmitDiffError
from emitdiff.synthesis.edges import boundary_of, detect_edges, weaken_edges
from emitdiff.synthesis.hed.mini import MiniNetwork, save_hed_mini
from emitdiff.synthesis.loading import load_synthesizer
from emitdiff.synthesis.mask_edits import MaskEdit, edit_mask
from emitdiff.synthesis.presets import APPEARANCE_PHRASES, PRESETS, STYLE, draw_phrase
from emitdiff.synthesis.sampling import DEFAULTS
from emitdiff.synthesis_settings import SynthesisSettings

ONE = {"prompt": "CT, liver", "num_images": 1, "seed": 3, "num_inference_steps": 2}
MOVED = MaskEdit(move_x=0.2, scale=0.8, rotate=10, deform=0.5, seed=2)


@pytest.fixture(scope="module")
def pipeline(tiny_synthesis_folder):
    """A ControlNet that does something, the layout of the embedded weights, 64 x 64."""
    loaded = load_synthesizer(str(tiny_synthesis_folder), device="cpu")
    for name, value in {"area": 64 * 64, "multiple": 16, "control_layout": "layered"}.items():
        object.__setattr__(loaded.checkpoint_card, name, value)
    torch.manual_seed(1)
    with torch.no_grad():
        loaded.pipe.controlnet.controlnet_mid_block.weight.normal_()
    return loaded


@pytest.fixture
def joined(pipeline):
    object.__setattr__(pipeline.checkpoint_card, "control_layout", "joined")
    yield pipeline
    object.__setattr__(pipeline.checkpoint_card, "control_layout", "layered")


@pytest.mark.parametrize("detector", ["soft", "canny"])
def test_less_structure_leaves_less_ink_in_equal_steps(disc, detector):
    image = np.random.default_rng(0).normal(0, 30, disc[0].shape) + disc[0]
    image = np.clip(image, 0, 255).astype(np.uint8)
    edges = detect_edges(image, detector)
    doses = np.linspace(1, 0.5, 11)
    ink = np.array([weaken_edges(edges, dose, image).sum(dtype=float) for dose in doses])
    assert ink[0] == edges.sum(dtype=float) and ink[-1] == 0
    assert (np.diff(ink) <= 0).all()
    assert np.abs(ink / ink[0] - (2 * doses - 1)).max() < 0.15


def test_the_weak_edges_go_first():
    edges = np.array([[10, 60, 120, 255]], np.uint8)
    left = weaken_edges(edges, 0.8)
    assert left[0, 0] == 0 and left[0, 3] == 255 and (left <= edges).all()


def test_of_canny_lines_the_faint_ones_go_whole():
    image = np.zeros((64, 64, 3), np.uint8)
    image[:, 10:20], image[:, 40:50] = 60, 255
    edges = detect_edges(image, "canny")
    left = weaken_edges(edges, 0.75, image)
    assert left[:, 35:].any() and not left[:, :25].any()
    assert np.array_equal(left[:, 35:], edges[:, 35:])


def test_half_the_structure_is_the_mask_alone_and_none_is_nothing(pipeline, disc):
    image, mask = disc
    control = pipeline.control_image(image, mask, structure=0.5)
    assert np.array_equal(control, pipeline.control_image(None, mask)) and control[..., 1].any()
    assert not pipeline.control_image(image, mask, structure=0).any()
    assert not pipeline.control_image(image, None, structure=0.5).any()


def test_half_the_structure_joined_is_the_outline_alone(joined, disc):
    image, mask = disc
    control = joined.control_image(image, mask, structure=0.5)
    assert np.array_equal(control[..., 0], boundary_of(mask)) and np.array_equal(control[..., 0], control[..., 2])
    assert not joined.control_image(image, mask, structure=0).any()


def test_below_half_the_mask_fades_for_weights_trained_beside_their_controlnet(pipeline, disc):
    half, quarter = (pipeline.control_image(*disc, structure=structure) for structure in (0.5, 0.25))
    assert np.array_equal(quarter, np.rint(half * 0.5).astype(np.uint8)) and quarter.any()


def test_below_half_the_control_strength_fades_for_a_locked_unet(joined, disc):
    half = joined(None, disc[1], **ONE, structure=0.5, controlnet_conditioning_scale=0.4)[0]
    quarter = joined(None, disc[1], **ONE, structure=0.25, controlnet_conditioning_scale=0.8)[0]
    assert np.array_equal(half.image, quarter.image)
    assert not np.array_equal(half.image, joined(None, disc[1], **ONE, structure=0.5)[0].image)


def test_free_is_text_alone_whatever_is_given(pipeline, joined, disc):
    with_both = pipeline(*disc, **ONE, structure=0)[0]
    alone = pipeline(None, None, **ONE, structure=0, size=(64, 64))[0]
    unsteered = joined(*disc, **ONE, controlnet_conditioning_scale=0.0)[0]
    assert np.array_equal(joined(*disc, **ONE, structure=0)[0].image, unsteered.image)
    grey = alone.image.astype(float).mean(-1)  # a grey source makes grey, text alone may be in colour
    assert np.abs(grey - with_both.image[..., 0]).max() < 1.5
    assert alone.mask is None and pipeline(None, None, **ONE, structure=0)[0].image.shape == (64, 64, 3)
    assert pipeline(None, None, **ONE, structure=0, size=(40, 100))[0].image.shape == (40, 100, 3)


def test_the_label_is_the_edited_mask_and_its_outline_is_what_the_network_sees(pipeline, disc):
    image, mask = disc
    made = pipeline(image, mask, **ONE, edit=MOVED)[0]
    assert np.array_equal(made.mask, edit_mask(mask, MOVED)) and not np.array_equal(made.mask, mask)
    control = pipeline.control_image(image, mask, edit=MOVED)
    assert np.array_equal(control[..., 1], boundary_of(made.mask))
    assert np.array_equal(control[..., 2] > 0, made.mask > 0)
    rim = control[..., 1] > 0
    assert control[..., 0][rim].mean() > 3 * np.median(control[..., 0])


def test_an_edit_of_nothing_generates_the_same_and_an_edit_without_a_mask_is_refused(pipeline, disc):
    assert np.array_equal(pipeline(*disc, **ONE, edit=MaskEdit())[0].image, pipeline(*disc, **ONE)[0].image)
    with pytest.raises(EmitDiffError, match="A mask edit needs a mask"):
        pipeline(disc[0], None, **ONE, edit=MOVED)
    with pytest.raises(EmitDiffError, match="it may have move_x"):
        pipeline(*disc, **ONE, edit={"shift": 3})


@pytest.mark.parametrize("preset", ["default", "released"])
def test_the_settings_recorded_make_the_image_again(pipeline, disc, preset):
    made = pipeline(*disc, **ONE, structure=0.7, edit=MOVED, preset=preset, detector="soft")[0]
    kept = json.loads(json.dumps(made.settings))
    assert kept["structure"] == 0.7 and kept["edit"]["scale"] == 0.8 and kept["preset"] == preset
    again = pipeline(*disc, **{name: kept[name] for name in kept if name in SynthesisSettings.__dataclass_fields__})[0]
    assert np.array_equal(again.image, made.image) and np.array_equal(again.mask, made.mask)


@torch.no_grad()
def test_the_released_mixture_is_the_weighted_sum_of_three_embeddings(pipeline, disc):
    """0.045 CLIP(prompt) + 0.005 CLIP(phrase) + 0.95 CLIP("gray, sketch"), given to diffusers by hand."""

    def encoded(text):
        ids = pipeline.pipe.tokenizer(text, padding="max_length", max_length=77, truncation=True, return_tensors="pt")
        return pipeline.pipe.text_encoder(ids.input_ids)[0]

    made = pipeline(*disc, **ONE, preset="released", detector="soft")[0]
    mixed = 0.045 * encoded(ONE["prompt"]) + 0.005 * encoded(draw_phrase(3)) + 0.95 * encoded(STYLE)
    control = torch.from_numpy(pipeline.control_image(*disc)).permute(2, 0, 1)[None] / 255
    plain = pipeline.pipe(
        prompt_embeds=mixed, negative_prompt_embeds=encoded(""), image=control, height=64, width=64,
        num_inference_steps=2, guidance_scale=9.0, generator=torch.Generator().manual_seed(3), output_type="np",
    ).images[0]  # fmt: skip
    assert np.abs(plain.mean(-1) * 255 - made.image[..., 0]).max() < 1
    assert made.settings["appearance"] == draw_phrase(3) in APPEARANCE_PHRASES


def test_presets_fill_in_what_is_not_given_and_explicit_arguments_win(pipeline, disc):
    tinted = disc[0].copy()
    tinted[..., 0] //= 2
    text = {"prompt": "CT", "num_images": 1}
    made = pipeline(tinted, disc[1], **text, preset="released", detector="canny")[0]
    wanted = {"num_inference_steps": 20, "guidance_scale": 9.0, "controlnet_conditioning_scale": 1.0, "boundary": True}
    assert {name: made.settings[name] for name in wanted} == wanted and made.settings["detector"] == "canny"
    assert (made.image == made.image[..., :1]).all()
    explicit = pipeline(
        *disc, **text, preset="paper", detector="soft", num_inference_steps=2, guidance_scale=1.5, boundary=False
    )[0].settings
    assert (explicit["num_inference_steps"], explicit["guidance_scale"], explicit["boundary"]) == (2, 1.5, False)
    card = pipeline(*disc, **text, num_inference_steps=1)[0].settings
    assert (
        card["guidance_scale"] == {**DEFAULTS, **pipeline.checkpoint_card.defaults}["guidance_scale"]
        and card["preset"] == "default"
    )


def test_a_given_phrase_is_used_and_the_paper_adds_it(pipeline, disc):
    drawn, given = (
        pipeline(*disc, **ONE, preset="paper", detector="soft", appearance=phrase)[0] for phrase in ("", "speckled")
    )
    assert given.settings["appearance"] == "speckled" and drawn.settings["appearance"] == draw_phrase(3)
    assert not np.array_equal(given.image, drawn.image)
    joined = pipeline(*disc, **ONE, appearance="speckled")[0].image
    assert np.array_equal(joined, pipeline(*disc, **{**ONE, "prompt": "CT, liver, speckled"})[0].image)


def test_the_papers_preset_generates_without_a_network_and_says_whose_edges_it_followed(
    pipeline, disc, monkeypatch, tmp_path
):
    """Of what is recorded the weights of the edges are told too, and only where a network drew some."""
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path))
    monkeypatch.setenv("EMITDIFF_HED", str(tmp_path / "nothing"))
    monkeypatch.setenv("EMITDIFF_CHECKPOINTS", str(tmp_path))
    assert pipeline.control_image(*disc, preset="paper", structure=0.5).any()  # where no edges are wanted none is asked
    assert "edge_weights" not in pipeline(*disc, **ONE, preset="paper", structure=0.5)[0].settings
    (tmp_path / "hed-mini").mkdir()
    save_hed_mini(MiniNetwork(), tmp_path / "hed-mini", {})
    made = pipeline(*disc, **ONE, preset="paper")[0]
    assert made.settings["edge_weights"] == "hed-mini" and made.settings["detector"] == "hed"
    again = pipeline(*disc, **{**ONE, "detector": made.settings["edge_weights"]}, preset="paper")[0]
    assert np.array_equal(again.image, made.image) and again.settings["edge_weights"] == "hed-mini"
    assert "edge_weights" not in pipeline(*disc, **ONE, preset="paper", detector="soft")[0].settings


def test_presets_scheduler_is_ddim_and_the_checkpoints_own_comes_back(pipeline, disc):
    from diffusers import DDIMScheduler, UniPCMultistepScheduler

    reference = pipeline(*disc, **ONE, preset="released", detector="soft")[0].image
    ddim = pipeline.pipe.scheduler
    pipeline.pipe.scheduler = own = UniPCMultistepScheduler.from_config(ddim.config)
    try:
        assert np.array_equal(pipeline(*disc, **ONE, preset="released", detector="soft")[0].image, reference)
        assert pipeline.pipe.scheduler is own and isinstance(ddim, DDIMScheduler)
        assert not np.array_equal(pipeline(*disc, **ONE)[0].image, reference)
    finally:
        pipeline.pipe.scheduler = ddim


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"structure": 1.2}, "structure was 1.2"),
        ({"preset": "best"}, "choose one of default, paper, released"),
        ({"structure": 0, "size": (0, 64)}, "size was 0 x 64"),
    ],
)
def test_what_cannot_be_used_is_said_before_the_first_step(pipeline, disc, changes, words):
    with pytest.raises(EmitDiffError, match=words):
        pipeline.stream(*disc, **{**ONE, **changes})


def test_the_phrases_are_plain_words_without_doubles():
    assert len(set(APPEARANCE_PHRASES)) == len(APPEARANCE_PHRASES) >= 20
    assert {draw_phrase(seed) for seed in range(300)} == set(APPEARANCE_PHRASES)
    assert sum((PRESETS["released"].prompt_weight, PRESETS["released"].phrase_weight, 0.95)) == pytest.approx(1)
