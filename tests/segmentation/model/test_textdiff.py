"""Attention, classifier and the head that joins them."""

import pytest
import torch
from torch.nn import functional

from emitdiff.segmentation.model.attention import CrossModalAttention, TextAttention
from emitdiff.segmentation.model.classifier import PixelClassifier
from emitdiff.segmentation.model.textdiff import PAPER_MONUSEG, PAPER_QATA, HeadConfig, TextDiff


def count(module):
    return sum(parameter.numel() for parameter in module.parameters())


def test_the_papers_parameter_counts():
    assert count(CrossModalAttention()) == 3_745_536
    assert count(PixelClassifier()) == 3_576_866
    assert count(TextDiff(PAPER_MONUSEG)) == 9_683_234
    assert count(TextDiff(PAPER_QATA)) == 10_862_882


def test_folded_attention_equals_the_usual_order():
    torch.manual_seed(0)
    layer = TextAttention(dim=24, text_dim=16, heads=4, head_dim=8)
    x, tokens, visible = torch.randn(2, 50, 24), torch.randn(2, 7, 16), torch.ones(2, 7, dtype=torch.bool)
    visible[1, 4:] = False

    def split(part):
        return part.unflatten(-1, (4, 8)).transpose(1, 2)

    usual = functional.scaled_dot_product_attention(
        split(layer.query(x)), split(layer.key(tokens)), split(layer.value(tokens)), attn_mask=visible[:, None, None]
    )
    usual = layer.out(usual.transpose(1, 2).flatten(2))
    torch.testing.assert_close(layer(x, tokens, visible), usual, atol=1e-5, rtol=1e-5)


def test_padding_is_not_seen():
    torch.manual_seed(0)
    attention = CrossModalAttention(24, 16, 2, 8)
    image, tokens = torch.randn(1, 24, 5, 6), torch.randn(1, 3, 16)
    padded = torch.cat([tokens, torch.randn(1, 4, 16)], dim=1)
    mask = torch.tensor([[1, 1, 1, 0, 0, 0, 0]])
    assert attention(image, tokens).shape == image.shape
    torch.testing.assert_close(attention(image, padded, mask), attention(image, tokens), atol=1e-5, rtol=1e-5)
    assert not torch.allclose(attention(image, padded), attention(image, tokens), atol=1e-3)


def test_classifier_brings_all_scales_to_one_size():
    classifier = PixelClassifier(12, (8, 4), 3).eval()
    logits = classifier([torch.randn(2, 8, 3, 4), torch.randn(2, 4, 12, 16)], (12, 16))
    assert logits.shape == (2, 3, 12, 16)


def test_head_of_any_size_and_saved_whole(tmp_path):
    torch.manual_seed(0)
    config = HeadConfig((6, 10, 16), (0, 1, None), dim=16, text_dim=8, heads=2, head_dim=4, hidden=(8, 4))
    head = TextDiff(config).eval()
    features = [torch.randn(2, channels, side, side) for channels, side in ((6, 4), (10, 8), (16, 16))]
    tokens = torch.randn(2, 5, 8)
    assert head(features, tokens).shape == (2, 2, 16, 16)
    assert head(features, tokens, size=(20, 30)).shape == (2, 2, 20, 30)
    head.save(tmp_path)
    loaded = TextDiff.load(tmp_path)
    assert loaded.config == config and not loaded.training
    torch.testing.assert_close(loaded(features, tokens), head(features, tokens), atol=5e-3, rtol=5e-2)


def test_what_half_precision_cannot_hold_is_saved_as_it_is(tmp_path):
    """A variance of more than 65504 would become infinite, and its channel silent."""
    head = TextDiff(HeadConfig((6, 10), (0, None), dim=16, text_dim=8, heads=2, head_dim=4, hidden=(8,)))
    variances = [part.running_var for part in head.modules() if isinstance(part, torch.nn.BatchNorm2d)]
    for values in variances:
        values[0] = 1e6
    head.save(tmp_path)
    loaded = TextDiff.load(tmp_path)
    found = [part.running_var for part in loaded.modules() if isinstance(part, torch.nn.BatchNorm2d)]
    assert variances and all(torch.equal(one, other) for one, other in zip(found, variances, strict=True))


@pytest.mark.parametrize("scale", (0, 1, 2))
def test_every_scale_and_every_word_counts(scale):
    torch.manual_seed(0)
    config = HeadConfig((6, 6, 6), (0, 1, 2), dim=16, text_dim=8, heads=2, head_dim=4, hidden=(8, 4))
    head = TextDiff(config)
    features = [torch.randn(1, 6, side, side, requires_grad=True) for side in (4, 8, 16)]
    tokens = torch.randn(1, 5, 8, requires_grad=True)
    head(features, tokens).square().sum().backward()
    assert features[scale].grad.abs().sum() > 0
    assert (tokens.grad.abs().sum(-1) > 0).all()
