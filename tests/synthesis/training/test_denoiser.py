"""The networks that learn to generate, at tiny size: what they are shown, and what remains of a training."""

from __future__ import annotations

import multiprocessing
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from diffusers import AutoencoderTiny, UNet2DConditionModel

from emitdiff import training_state
from emitdiff.datasets.folder import DatasetInfo
from emitdiff.synthesis.training.captions import AppearanceScale
from emitdiff.synthesis.training.corpus import Corpus, Item
from emitdiff.synthesis.training.denoiser import (
    TEXT_WIDTH,
    Denoiser,
    new_text_encoder,
    new_tokenizer,
    train_denoiser,
)
from emitdiff.synthesis.training.views import ViewPool

INFO = DatasetInfo("discs", "Ultrasound", "breast", {"background": 0, "lesion": 1})


@pytest.fixture(autouse=True)
def one_thread():
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@pytest.fixture
def pool(disc):
    """Views of 32 x 32 pixels and 4 x 4 latents."""
    torch.manual_seed(0)
    items = [Item(disc[0], disc[1], INFO, "benign", str(index)) for index in range(3)]
    sizes = {"encoder_block_out_channels": (8,) * 4, "decoder_block_out_channels": (8,) * 4}
    return ViewPool(Corpus(items), AutoencoderTiny(**sizes), AppearanceScale.from_items(items), 32)


@pytest.fixture
def denoiser():
    torch.manual_seed(0)
    tokenizer = new_tokenizer(["ultrasound, breast", "ultrasound, lesion"])
    unet = UNet2DConditionModel(
        sample_size=4, block_out_channels=(32, 32), layers_per_block=1, cross_attention_dim=TEXT_WIDTH,
        down_block_types=("DownBlock2D", "CrossAttnDownBlock2D"), up_block_types=("CrossAttnUpBlock2D", "UpBlock2D"),
    )  # fmt: skip
    return Denoiser(tokenizer, new_text_encoder(tokenizer), unet)


def test_a_view_is_edges_outline_and_inside_of_the_crop_it_encodes(pool):
    views = pool.draw(6, np.random.default_rng(0))
    assert len(views) == 6
    for view in views:
        edges, boundary, inside = view.control
        assert view.latents.shape == (4, 4, 4) and view.latents.dtype == torch.float16
        assert view.control.shape == (3, 32, 32) and view.control.dtype == torch.uint8
        assert edges.any() and set(inside.unique().tolist()) == {0, 255} and 0 < (boundary > 0).float().mean() < 0.4
        assert view.description.finding == "benign" and view.description.targets[0][0] == "lesion"


def test_a_view_is_used_about_four_times_and_the_pool_stays_small(pool, monkeypatch):
    pool.size = 20
    made, make = [], pool.make
    monkeypatch.setattr(pool, "make", lambda rng, count: made.append(count) or make(rng, count))
    rng = np.random.default_rng(0)
    drawn = [pool.draw(4, rng) for _ in range(44)]
    assert all(len(views) == 4 for views in drawn) and made[:4] == [4, 4, 4, 4]
    assert len(pool.views) == 20 and 0.15 < sum(made[4:]) / (4 * 40) < 0.35


def test_with_workers_all_views_come_from_them_until_it_is_closed(pool):
    pool = ViewPool(pool.make.corpus, pool.autoencoder, pool.make.scale, 32, workers=2, seed=1)
    rng = np.random.default_rng(0)
    views = pool.draw(3, rng)
    assert len(views) == 3 and len(pool.views) >= 12
    assert all(view.latents.shape == (4, 4, 4) and view.control.shape == (3, 32, 32) for view in views)
    pool.close()
    assert not pool.stream.thread.is_alive() and not multiprocessing.active_children()


def predict(denoiser: Denoiser, text: str, control: torch.Tensor | None = None) -> torch.Tensor:
    noisy = torch.ones(2, 4, 4, 4)
    with torch.no_grad():
        return denoiser.predict(noisy, torch.tensor([10, 900]), [text, text], control)


def test_words_and_control_are_listened_to_from_the_first_step(denoiser):
    assert predict(denoiser, "breast").shape == (2, 4, 4, 4)
    assert not torch.allclose(predict(denoiser, "breast"), predict(denoiser, "lesion"))
    before, parts = predict(denoiser, "breast"), len(denoiser.modules())
    denoiser.add_controlnet()
    assert len(denoiser.modules()) == parts + 1
    assert torch.equal(predict(denoiser, "breast"), before), "without a control it answers as before"
    lines = (torch.rand(2, 3, 32, 32) > 0.85).float()
    difference = predict(denoiser, "breast", lines) - predict(denoiser, "breast", torch.zeros_like(lines))
    assert difference.std() > 0.01 * before.std(), "the gates are open"


@pytest.fixture
def clock(monkeypatch):
    """Every look at it is 300 seconds later."""
    now = [0.0]

    def monotonic():
        now[0] += 300
        return now[0]

    monkeypatch.setattr(training_state, "time", SimpleNamespace(monotonic=monotonic))


def weights(denoiser: Denoiser) -> list[torch.Tensor]:
    return [weight.detach().clone() for weight in denoiser.modules().parameters()]


def train(denoiser, pool, file, minutes=15.0, **options):
    train_denoiser(denoiser, pool, file, minutes, batch=2, seed=0, **options)


def test_the_averaged_weights_remain_and_a_finished_stage_keeps_them(denoiser, pool, tmp_path, clock):
    before = weights(denoiser)
    train(denoiser, pool, tmp_path / "unet.pt")
    after, stored = weights(denoiser), torch.load(tmp_path / "unet.pt", weights_only=True)
    assert stored["steps"] == 3 and not denoiser.unet.training
    learnt = list(stored["modules"].values())
    assert any(not torch.equal(one, other) for one, other in zip(before, after, strict=True))
    for mine, averaged in zip(after, stored["average"]["shadow_params"], strict=True):
        assert torch.equal(mine, averaged)
    assert any(not torch.equal(one, other) for one, other in zip(after, learnt, strict=False))
    train(denoiser, pool, tmp_path / "unet.pt")
    assert all(torch.equal(one, other) for one, other in zip(after, weights(denoiser), strict=True))


def test_to_look_at_samples_changes_nothing(denoiser, pool, tmp_path, clock):
    """They are drawn from the averaged weights, after four minutes and whenever the time has doubled."""
    start, seen = {key: value.clone() for key, value in denoiser.modules().state_dict().items()}, []
    train(denoiser, pool, tmp_path / "seen.pt", 20.0, on_samples=lambda: seen.append(weights(denoiser)))
    looked = weights(denoiser)
    denoiser.modules().load_state_dict(start)
    pool.views.clear()
    train(denoiser, pool, tmp_path / "unseen.pt", 20.0)
    assert all(torch.equal(one, other) for one, other in zip(looked, weights(denoiser), strict=True))
    assert len(seen) == 2, "after 300 and 900 of 1,200 seconds"
    assert any(not torch.equal(one, other) for one, other in zip(seen[0], seen[1], strict=True))


def test_a_controlnet_learns_beside_the_u_net(denoiser, pool, tmp_path, clock):
    denoiser.add_controlnet()
    parts = {"unet": denoiser.unet, "controlnet": denoiser.controlnet, "text": denoiser.text_encoder}
    before = {name: [weight.detach().clone() for weight in part.parameters()] for name, part in parts.items()}
    train(denoiser, pool, tmp_path / "controlnet.pt", minutes=10.0)
    for name, part in parts.items():
        moved = [not torch.equal(*pair) for pair in zip(before[name], part.parameters(), strict=True)]
        assert np.mean(moved) > 0.8, name
        assert all(torch.isfinite(weight).all() for weight in part.parameters())
