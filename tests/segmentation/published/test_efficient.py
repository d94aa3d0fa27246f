"""The head in another order of its sums: the same logits and gradients as the published head, and far less kept."""

from dataclasses import replace

import pytest
import torch

from benchmarks.head_step import kept_for_backward
from benchmarks.published_head import published_logits
from emitdiff.segmentation.loading import load_segmenter
from emitdiff.segmentation.model.textdiff import PAPER_MONUSEG, PAPER_QATA, HeadConfig, TextDiff
from emitdiff.segmentation.published.efficient import efficient_logits

SMALL = HeadConfig((6, 10, 16, 16), (0, 1, None, None), dim=16, text_dim=8, heads=2, head_dim=4, hidden=(8, 4))


@pytest.fixture
def small():
    """A small head, features of two images that are not square, tokens and a mask with padding."""
    torch.manual_seed(0)
    maps = [torch.randn(2, channels, side, side + 3) for channels, side in ((6, 4), (10, 8), (16, 9), (16, 32))]
    mask = torch.ones(2, 5)
    mask[1, 3:] = 0
    return TextDiff(SMALL), maps, torch.randn(2, 5, 8), mask


@pytest.mark.parametrize("size", [None, (40, 51), (20, 24)])
@pytest.mark.parametrize("positions", [40, 64, 10_000])
def test_same_logits_and_gradients_in_bands_of_any_size(small, size, positions):
    head, maps, tokens, mask = small
    head, maps, found = head.double(), [part.double() for part in maps], {}  # so that rounding hides nothing
    for name, way, extra in (
        ("published", published_logits, {}),
        ("efficient", efficient_logits, {"positions": positions}),
    ):
        tokens = tokens.detach().double().requires_grad_(True)
        head.zero_grad()
        logits = way(head, maps, tokens, mask, size, **extra)
        logits.sin().sum().backward()
        found[name] = [logits.detach(), tokens.grad, *(parameter.grad.clone() for parameter in head.parameters())]
    for one, other in zip(found["published"], found["efficient"], strict=True):
        torch.testing.assert_close(one, other, atol=1e-9, rtol=1e-7)


@pytest.mark.parametrize("config", [PAPER_MONUSEG, PAPER_QATA], ids=["monuseg", "qata"])
def test_same_logits_with_the_papers_weights_on_small_maps(config):
    torch.manual_seed(0)
    head = TextDiff(config).eval()
    sides = (4, 8, 16, 32) if config is PAPER_MONUSEG else (2, 4, 8, 16)
    maps = [torch.randn(1, count, side, side) for count, side in zip(config.feature_channels, sides, strict=True)]
    tokens = torch.randn(1, 10, 768)
    with torch.no_grad():
        published, efficient = (way(head, maps, tokens, None, (32, 32)) for way in (published_logits, efficient_logits))
    torch.testing.assert_close(efficient, published, atol=1e-4, rtol=0)


def test_neither_batch_norms_nor_evaluation_are_confused(small):
    head, maps, tokens, mask = small
    twin = TextDiff(SMALL)
    twin.load_state_dict(head.state_dict())
    for model, way in ((head, published_logits), (twin, efficient_logits)):
        way(model.train(), maps, tokens, mask).sum().backward()
    for (name, one), other in zip(head.named_buffers(), twin.buffers(), strict=True):
        torch.testing.assert_close(one, other, atol=1e-5, rtol=1e-4, msg=name)
    with torch.no_grad():
        both = [way(head.eval(), maps, tokens, mask) for way in (published_logits, efficient_logits)]
    torch.testing.assert_close(*both, atol=1e-5, rtol=1e-4)


def test_features_in_half_precision_as_the_cache_gives_them(small):
    head, maps, tokens, mask = small
    halves = [part.half() for part in maps]
    logits = efficient_logits(head, halves, tokens, mask)
    assert logits.dtype == torch.float32
    torch.testing.assert_close(logits, published_logits(head, [part.float() for part in halves], tokens, mask))


@pytest.mark.slow
def test_at_most_six_tenths_of_a_gigabyte_is_kept_for_backward():
    torch.manual_seed(0)
    head = TextDiff(PAPER_MONUSEG)
    pairs = zip(PAPER_MONUSEG.feature_channels, (32, 64, 128, 256), strict=True)
    maps = [torch.randn(1, count, side, side) for count, side in pairs]
    logits, kept = kept_for_backward(lambda: efficient_logits(head, maps, torch.randn(1, 10, 768)))
    assert logits.requires_grad and 0.3e9 < kept < 0.6e9


def test_kept_memory_falls_with_the_bands_of_a_small_head(small):
    head, maps, tokens, mask = small
    _, efficient = kept_for_backward(lambda: efficient_logits(head, maps, tokens, mask, positions=64))
    _, published = kept_for_backward(lambda: published_logits(head, maps, tokens, mask))
    assert efficient < published / 4


def test_the_embedded_head_answers_as_in_the_usual_order_of_sums():
    segment = load_segmenter("textdiff-mini", device="cpu")
    # the same weights without the shortcuts of a light head, which the published order does not know
    head, generator = TextDiff(replace(segment.head.config, light=False)), torch.Generator().manual_seed(0)
    head.load_state_dict(segment.head.state_dict())
    head.eval()
    maps = [torch.randn(1, count, 2 ** (k + 1), 2 ** (k + 1), generator=generator)
            for k, count in enumerate(head.config.feature_channels)]  # fmt: skip
    tokens, mask = segment.text(["left lung"])
    with torch.inference_mode():
        expected = published_logits(head, maps, tokens, mask)
        torch.testing.assert_close(head(maps, tokens, mask), expected, atol=1e-4, rtol=1e-4)
        torch.testing.assert_close(efficient_logits(head, maps, tokens, mask), expected, atol=1e-4, rtol=1e-4)
    assert expected.std() > 0
