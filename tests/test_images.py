import numpy as np
import pytest
import torch

from emitdiff.errors import EmitDiffError
from emitdiff.images import (
    control_to_tensor,
    fitted_size,
    image_to_tensor,
    images_to_tensor,
    outline,
    overlay,
    resize_image,
    resize_mask,
    tensor_to_image,
    to_rgb,
)


def test_every_grey_value_survives_the_way_to_a_tensor_and_back():
    grey = to_rgb(np.arange(256, dtype=np.uint8).reshape(16, 16))
    tensor = image_to_tensor(grey)
    assert tensor.shape == (1, 3, 16, 16) and tensor.min() == -1 and tensor.max() == 1
    assert np.array_equal(tensor_to_image(tensor), grey)
    assert control_to_tensor(grey).min() == 0 and control_to_tensor(grey).max() == 1


def test_a_stack_of_images_is_scaled_as_each_of_them():
    stack = np.random.default_rng(0).integers(0, 256, (3, 8, 9, 3), dtype=np.uint8)
    assert torch.equal(images_to_tensor(stack), torch.cat([image_to_tensor(image) for image in stack]))
    assert torch.equal(images_to_tensor(stack), torch.from_numpy(stack).permute(0, 3, 1, 2).float() / 127.5 - 1)


def test_values_outside_the_range_are_clipped():
    assert tensor_to_image(torch.tensor([-3.0, 0.0, 3.0]).view(3, 1, 1)).tolist() == [[[0, 128, 255]]]


@pytest.mark.parametrize("shape", [(8, 9), (8, 9, 1), (8, 9, 3), (8, 9, 4)])
def test_every_layout_becomes_rgb(shape):
    assert to_rgb(np.zeros(shape, np.uint8)).shape == (8, 9, 3)


def test_sixteen_bits_are_refused_with_what_to_do():
    with pytest.raises(TypeError, match="read_scan"):
        to_rgb(np.zeros((4, 4), np.uint16))


def test_resizing_a_mask_makes_no_new_classes_and_undoes_itself(disc):
    _, mask = disc
    larger = resize_mask(mask * 7, (192, 128))
    assert larger.shape == (192, 128) and np.unique(larger).tolist() == [0, 7]
    assert np.array_equal(resize_mask(larger, (64, 64)), mask * 7)
    assert resize_image(disc[0], (32, 48)).shape == (32, 48, 3)


@pytest.mark.parametrize("size", [(100, 100), (300, 200), (100, 700)])
def test_fitted_size_keeps_ratio_and_divisibility(size):
    height, width = fitted_size(size, area=256 * 256, multiple=32)
    assert height % 32 == width % 32 == 0
    assert abs(np.log(height / width) - np.log(size[0] / size[1])) < 0.3


@pytest.mark.parametrize(("area", "multiple"), [(256 * 256, 32), (256 * 256, 64), (512 * 512, 64)])
def test_a_fitted_size_fits(area, multiple):
    for size in np.random.default_rng(0).integers(300, 2400, (2000, 2)).tolist():
        fitted = fitted_size(size, area, multiple)
        assert fitted_size(fitted, area, multiple) == fitted, size


@pytest.mark.parametrize("size", [(1, 1_000_000), (8001, 1000)])
def test_strips_are_refused(size):
    with pytest.raises(EmitDiffError, match="aspect ratio"):
        fitted_size(size, 256 * 256, 64)


def test_outline_lies_inside_and_overlay_leaves_the_rest_alone(disc):
    image, mask = disc
    rim = outline(mask)
    assert rim.any() and (mask[rim] == 1).all()
    shown = overlay(image, mask, opacity=0.5)
    assert np.array_equal(shown[mask == 0], image[mask == 0])
    assert (shown[mask == 1] != image[mask == 1]).any()


def test_a_dashed_outline_has_gaps_all_around(disc):
    mask = disc[1]
    image = np.zeros((*mask.shape, 3), np.uint8)
    whole, dashed = (overlay(image, mask, opacity=0.0, dashed=value).any(axis=-1) for value in (False, True))
    assert not (dashed & ~whole).any() and 0.3 < dashed.sum() / whole.sum() < 0.8
    rows, columns = (int(places.mean()) for places in np.nonzero(mask))
    for half in (np.s_[:rows], np.s_[rows:], np.s_[:, :columns], np.s_[:, columns:]):
        assert dashed[half].any() and (whole & ~dashed)[half].any()
