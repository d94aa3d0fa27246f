"""The network that looks at the pixels again, alone and on a head."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from emitdiff.segmentation.model.refinement import Refinement
from emitdiff.segmentation.model.textdiff import HeadConfig, TextDiff
from emitdiff.segmentation.training.examples import _jittered_stain
from emitdiff.segmentation.training.head import REFINEMENT_CHANNELS

PLAIN = HeadConfig((6, 10), (0, 1), 8, 8, 2, 4, (8, 4), subpixels=4, dropout=0.1, light=True)


@pytest.fixture
def asked():
    """(what attends at two scales of 32 x 48 pixels, tokens, the pixels)."""
    torch.manual_seed(0)
    maps = [torch.randn(2, 6, 4, 6), torch.randn(2, 10, 8, 12)]
    return maps, torch.randn(2, 3, 8), torch.rand(2, 3, 32, 48) * 2 - 1


def logits_of(head, asked):
    maps, tokens, pixels = asked
    return head.predict(head.attend(head.project(maps), tokens), (8, 12), head.encode_pixels(pixels))


def test_it_changes_nothing_before_it_has_learnt(asked):
    torch.manual_seed(1)
    plain = TextDiff(PLAIN).eval()
    head = TextDiff(replace(PLAIN, detail=16)).eval()
    missing = head.load_state_dict(plain.state_dict(), strict=False).missing_keys
    assert missing and all(name.startswith("detail.") for name in missing)
    (logits, correction), (before, none) = logits_of(head, asked), logits_of(plain, asked)
    assert logits.shape == (2, 2, 32, 48) and not correction.any() and none == 0
    torch.testing.assert_close(logits, before)
    torch.testing.assert_close(before, plain(asked[0], asked[1]))


def test_it_learns_what_is_finer_than_a_position(asked):
    """Single dark columns: the features, four pixels a position and noise here, cannot tell where they are."""
    torch.manual_seed(2)
    head = TextDiff(replace(PLAIN, detail=16)).train()
    optimizer = torch.optim.AdamW(head.parameters(), lr=1e-2)
    rng = np.random.default_rng(0)

    def striped():
        truth = torch.zeros(2, 32, 48)
        truth[:, :, rng.choice(48, 9, replace=False)] = 1
        return truth

    for _ in range(60):
        truth = striped()
        logits, _ = logits_of(head, (*asked[:2], (0.5 - truth)[:, None].expand(-1, 3, -1, -1)))
        loss = torch.nn.functional.cross_entropy(logits, truth.long())
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    truth = striped()
    logits, _ = logits_of(head.eval(), (*asked[:2], (0.5 - truth)[:, None].expand(-1, 3, -1, -1)))
    assert (logits.argmax(1) == truth).float().mean() > 0.97


def test_a_head_with_detail_is_saved_and_loaded(asked, tmp_path):
    head = TextDiff(replace(PLAIN, detail=16)).eval()
    torch.nn.init.normal_(head.detail.closing[2].weight)
    head.save(tmp_path)
    loaded, kept = logits_of(TextDiff.load(tmp_path), asked), logits_of(head, asked)
    torch.testing.assert_close(loaded, kept, atol=0.05, rtol=0.05)


def test_looking_is_taken_over_only_where_it_fits(asked):
    one, other, wider = Refinement(16, 4), Refinement(16, 6), Refinement(24, 4)
    pixels = asked[2]
    before = wider.encode_image(pixels)
    other.copy_image_branch(one)
    wider.copy_image_branch(one)
    torch.testing.assert_close(other.encode_image(pixels), one.encode_image(pixels))
    torch.testing.assert_close(wider.encode_image(pixels), before)


def test_gradients_are_finite_as_the_training_computes_them(asked):
    """Half precision with channels last; with 24 channels oneDNN's dilated convolution gave none."""
    torch.manual_seed(0)
    detail = Refinement(REFINEMENT_CHANNELS, 32)
    torch.nn.init.normal_(detail.closing[2].weight, 0, 0.01)
    pixels = torch.randn(14, 3, 128, 128).contiguous(memory_format=torch.channels_last)
    hidden = torch.randn(14, 32, 32, 32).contiguous(memory_format=torch.channels_last)
    with torch.autocast("cpu", torch.bfloat16):
        logits = detail(detail.encode_image(pixels), hidden.bfloat16())
    logits.float().square().mean().backward()
    assert all(parameter.grad.isfinite().all() for parameter in detail.parameters())


def test_coloured_images_are_stained_again_and_grey_ones_are_not():
    rng = np.random.default_rng(0)
    coloured = rng.integers(0, 255, (9, 8, 3)).astype(np.uint8)
    grey = coloured[..., :1].repeat(3, 2)
    assert _jittered_stain(grey, np.random.default_rng(1)) is grey
    first, second = (_jittered_stain(coloured, np.random.default_rng(seed)).astype(int) for seed in (1, 2))
    assert first.shape == coloured.shape and np.abs(first - second).mean() > 2
    changes = (first - coloured).mean((0, 1))
    assert np.ptp(changes) > 2  # each colour its own way
