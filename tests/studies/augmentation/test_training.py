import pytest
import torch

from emitdiff.datasets.folder import open_dataset
from emitdiff.mask_metrics import dice
from emitdiff.studies.augmentation import training
from emitdiff.studies.augmentation.methods import Draw, make_batches
from emitdiff.studies.augmentation.training import Train, measure_cases, train, validation_dice
from emitdiff.studies.unet_baseline import ImageSet, read_pictures, standardised

SETTINGS = Train("unet", 20, 3e-3, 4, 0)


@pytest.fixture(scope="module")
def discs(dataset_folder):
    return open_dataset(dataset_folder)


@pytest.fixture(scope="module")
def pictures(discs):
    return read_pictures(discs, 64)


def test_the_weights_of_the_best_validation_are_kept(pictures, monkeypatch):
    """The figures of the four validations are given, so that the second is the best."""
    figures, seen = iter([0.2, 0.9, 0.3, 0.5]), []

    def validate(model, validation, channels):
        assert validation is pictures and channels == 2 and not model.training
        seen.append({name: value.clone() for name, value in model.state_dict().items()})
        return next(figures)

    monkeypatch.setattr(training, "validation_dice", validate)
    trained = train(SETTINGS, 2, make_batches("none", pictures, None, Draw(20, 4, 0.5, 0)), pictures)
    assert (trained.step, trained.dice, len(seen)) == (10, 0.9, 4) and not trained.model.training
    kept = trained.model.state_dict()
    assert all(torch.equal(kept[name], value) for name, value in seen[1].items())
    assert any(not torch.equal(kept[name], value) for name, value in seen[3].items())


def test_a_few_images_are_learnt(pictures):
    trained = train(SETTINGS, 2, make_batches("none", pictures, None, Draw(20, 4, 0.5, 0)), pictures)
    assert trained.dice > 0.7 and validation_dice(trained.model, pictures, 2) == pytest.approx(trained.dice)


class Drawn(torch.nn.Module):
    """Calls what is brighter than the mean of its image the second class."""

    def __init__(self):
        super().__init__()
        self.scale = torch.nn.Parameter(torch.ones(1))

    def forward(self, images):
        bright = images[:, :1] * self.scale
        return torch.cat([-bright, bright], 1)


def test_dice_of_validation_is_over_images_that_show_a_class():
    images = torch.zeros(2, 3, 64, 64, dtype=torch.uint8)
    images[:, :, :16] = 200
    classes = torch.zeros(2, 64, 64, dtype=torch.uint8)
    classes[0, :8] = 1  # half of what is found is there; of the second nothing
    assert validation_dice(Drawn(), ImageSet(images, classes, ("a", "b")), 2) == pytest.approx(2 / 3)
    assert validation_dice(Drawn(), ImageSet(images[1:], classes[1:], ("b",)), 2) == 0


def test_every_case_is_measured_at_the_size_of_its_source(discs, pictures):
    bright = standardised(pictures.images)[:, 0] > 0
    for cases in (measure_cases(Drawn(), discs, pictures), measure_cases(Drawn(), discs, read_pictures(discs, 32))):
        assert [case["file_name"] for case in cases] == [row["file_name"] for row in discs.rows]
        assert [case["truth"] for case in cases] == [int((sample.mask > 0).sum()) for sample in discs]
    at_source = measure_cases(Drawn(), discs, pictures)
    for case, sample, predicted in zip(at_source, discs, bright.numpy(), strict=True):
        assert case["dice"] == pytest.approx(dice(predicted, sample.mask > 0)) and case["predicted"] == predicted.sum()
