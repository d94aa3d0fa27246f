"""Where a few-shot head cuts its probabilities."""

import torch

from emitdiff.segmentation.few_shot.threshold import decision_threshold, shift_threshold
from emitdiff.segmentation.model.textdiff import HeadConfig, TextDiff


def test_a_lower_threshold_becomes_a_half():
    head = TextDiff(HeadConfig((11, 11), (0, 1), 8, 16, 2, 4, (8, 8), subpixels=2, light=True)).eval()
    maps, tokens = [torch.randn(1, 11, 4, 4), torch.randn(1, 11, 8, 8)], torch.randn(1, 3, 16)
    before = head(maps, tokens).softmax(1)[0, 1]
    shift_threshold(head, 0.3)
    after = head(maps, tokens).softmax(1)[0, 1]
    assert after.shape == (16, 16) and torch.equal(after > 0.5, before > 0.3)
    assert [decision_threshold(value) for value in (0.1, 0.8, 0.99, 1.0)] == [0.3, 0.4, 0.495, 0.5]
