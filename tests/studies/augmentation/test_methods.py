from typing import get_args

import numpy as np
import pytest
import torch

from emitdiff.commands.arguments import Method
from emitdiff.errors import EmitDiffError
from emitdiff.studies.augmentation.methods import METHODS, SINGLE, Draw, alter, make_batches, make_transform
from emitdiff.studies.unet_baseline import ImageSet, standardised

SIDE = 64
INTENSITY = ("contrast", "gamma", "brightness", "noise", "blur")


def pictures(count=4, level=0, prefix="real"):
    """Grey gradients with a square; the painted ones are mirrored upside down."""
    rows = np.tile(np.linspace(0, 200, SIDE, dtype=np.float32), (SIDE, 1))
    classes = np.zeros((SIDE, SIDE), np.uint8)
    classes[10:30, 20:50] = 1
    image = rows + 50 * classes + level
    stack = np.repeat(np.repeat(image[None, None], count, 0), 3, 1).astype(np.uint8)
    return ImageSet(torch.from_numpy(stack), torch.from_numpy(np.repeat(classes[None], count, 0)),
                    tuple(f"{prefix}{index}" for index in range(count)))  # fmt: skip


def altered(method, seed=0):
    real = pictures()
    before = standardised(real.images)
    return before, real.classes, *alter(before, real.classes, make_transform(method, seed))


def test_the_command_names_all_methods():
    assert get_args(Method) == METHODS


@pytest.mark.parametrize("method", SINGLE)
def test_a_single_augmentation_alters_the_image_and_its_mask_only_in_shape(method):
    before, classes, after, masks = altered(method)
    assert after.shape == before.shape and not torch.equal(after, before)
    assert masks.dtype == torch.uint8 and set(masks.unique().tolist()) == {0, 1}
    assert torch.equal(masks, classes) == (method in INTENSITY)
    assert torch.equal(after[:, 0], after[:, 2]), "grey stays grey"
    again = altered(method)
    assert torch.equal(after, again[2]) and not torch.equal(after, altered(method, seed=1)[2])


def test_ranges_are_the_paper_s():
    image = standardised(pictures(200).images)
    classes = pictures(200).classes
    shifts = (alter(image, classes, make_transform("brightness", 0))[0] - image).mean((1, 2, 3))
    assert shifts.std() == pytest.approx(0.5, rel=0.2) and abs(shifts.mean()) < 0.15
    spread = alter(image, classes, make_transform("contrast", 0))[0].std((1, 2, 3)) / image.std((1, 2, 3))
    assert 0.74 < spread.min() < 0.8 and 1.2 < spread.max() < 1.26
    noise = (alter(image, classes, make_transform("noise", 0))[0] - image).std((1, 2, 3))
    assert noise.max() < 0.05**0.5 * 1.1 and noise.min() < 0.05
    area = alter(image, classes, make_transform("scale", 0))[1].float().sum((1, 2)) / classes.float().sum((1, 2))
    assert area.min() > 0.87 and area.max() < 1.13
    mirrored = (alter(image, classes, make_transform("mirror", 0))[1] != classes).any(1).any(1)
    assert mirrored.float().mean() == pytest.approx(0.75, abs=0.1)


def test_the_stack_keeps_masks_with_their_images():
    """Where the image is bright, the mask is: both are turned, scaled and mirrored alike."""
    base = pictures(40)
    image = (base.classes[:, None].float() * 2 - 1).repeat(1, 3, 1, 1)
    images, classes = alter(image, base.classes, make_transform("classical", 0))
    agree = [float(((one[0] > 0) == (mask > 0)).float().mean()) for one, mask in zip(images, classes, strict=True)]
    assert np.mean(agree) > 0.95 and not torch.equal(classes, base.classes)


def test_colours_stay_colours():
    image = torch.randn(2, 3, SIDE, SIDE)
    after, _ = alter(image, pictures(2).classes, make_transform("blur", 0))
    assert not torch.equal(after[:, 0], after[:, 1])


@pytest.mark.parametrize(
    ("method", "real", "painted"),
    [("none", 8, 0), ("painted", 4, 4), ("classical+painted", 4, 4), ("painted-only", 0, 8)],
)
def test_every_method_has_as_many_steps_and_images(method, real, painted):
    first, second = pictures(3), pictures(5, prefix="painted")
    marked = ImageSet(first.images, first.classes + 1, first.names)  # classes 1 and 2, so that they are told apart
    batches = list(make_batches(method, marked, second, Draw(4, 8, 0.5, 0)))
    assert len(batches) == 4
    for images, classes in batches:
        assert images.shape == (8, 3, SIDE, SIDE) and classes.shape == (8, SIDE, SIDE)
        assert [int(one.max()) for one in classes].count(2) == real
        assert [int(one.max()) for one in classes].count(1) == painted


def test_real_images_are_shuffled_and_all_come():
    real = ImageSet(torch.arange(6, dtype=torch.uint8)[:, None, None, None].expand(6, 3, SIDE, SIDE).clone(),
                    torch.arange(6, dtype=torch.uint8)[:, None, None].expand(6, SIDE, SIDE).clone(),
                    tuple("abcdef"))  # fmt: skip
    seen = [int(one.max()) for _, classes in make_batches("none", real, None, Draw(6, 2, 0.5, 0)) for one in classes]
    assert sorted(seen[:6]) == list(range(6)) == sorted(seen[6:]) and seen[:6] != list(range(6))


def test_painted_methods_need_painted_images():
    with pytest.raises(EmitDiffError, match="needs painted images"):
        next(make_batches("painted", pictures(), None, Draw(1, 2, 0.5, 0)))


@pytest.mark.parametrize("method", ["emit-diff", "classical+emit-diff"])
def test_squares_are_merged_with_those_painted_from_the_same_image(method):
    side = torch.zeros(2, SIDE, SIDE, dtype=torch.uint8)
    real = ImageSet(torch.zeros(2, 3, SIDE, SIDE, dtype=torch.uint8), side, ("a", "b"))
    painted = ImageSet(
        torch.full((3, 3, SIDE, SIDE), 200, dtype=torch.uint8), side[:1].expand(3, -1, -1) + 1, ("a",) * 3
    )
    shares = []
    for images, classes in make_batches(method, real, painted, Draw(20, 2, 0.5, 0)):
        assert images.shape == (2, 3, SIDE, SIDE)
        taken = classes.float().mean((1, 2))
        assert sorted(taken > 0) == [False, True], "nothing was painted from the second"
        shares.append(float(taken.max()))
        if method == "emit-diff":
            for image, one in zip(images, classes, strict=True):
                assert torch.equal(one > 0, image[0] > image.mean()) or not one.any()
    assert np.mean(shares) == pytest.approx(0.4, abs=0.08)
