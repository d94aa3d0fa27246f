"""Training the small edge detector, and measuring it against its teacher."""

import json
from dataclasses import replace

import numpy as np
import pytest
import torch

from emitdiff.errors import EmitDiffError
from emitdiff.synthesis.hed.conversion import ConvertHed, convert_hed
from emitdiff.synthesis.hed.distillation import TrainHed, distillation_loss, train_hed
from emitdiff.synthesis.hed.evaluation import EvaluateHed, compared, evaluate_hed, ridges
from emitdiff.synthesis.hed.mini import load_hed_mini
from emitdiff.synthesis.hed.network import HedNetwork
from emitdiff.synthesis.hed.views import teaching_view
from emitdiff.synthesis.training.corpus import load_corpus
from emitdiff.synthesis.training.drawn_views import coloured, drawn_picture
from emitdiff.training_state import time_spent


@pytest.fixture(scope="module")
def teacher(tmp_path_factory):
    """A folder of `convert-hed` with the real network, random weights."""
    torch.manual_seed(0)
    folder = tmp_path_factory.mktemp("teacher")
    torch.save(HedNetwork().state_dict(), folder / "ControlNetHED.pth")
    return convert_hed(ConvertHed(folder / "ControlNetHED.pth", folder / "hed"))


@pytest.fixture(scope="module")
def trained(teacher, dataset_folder, tmp_path_factory):
    settings = TrainHed((dataset_folder,), tmp_path_factory.mktemp("student") / "out", teacher, minutes=0.08)
    return settings, train_hed(settings)


def test_training_leaves_a_detector_that_says_what_it_was_made_of(trained, teacher):
    _, folder = trained
    config = json.loads((folder / "config.json").read_text())
    training = config["training"]
    assert training["datasets"][0]["name"] == "discs" and training["datasets"][0]["licence"] == "CC0"
    assert training["teacher"]["source"] == "ControlNetHED.pth" and training["steps"] >= 1
    assert training["teacher"]["sha256"] == json.loads((teacher / "config.json").read_text())["sha256"]
    with torch.inference_mode():
        assert load_hed_mini(folder)(torch.zeros(1, 3, 20, 30)).shape == (1, 1, 20, 30)


def test_training_resumes_and_other_settings_are_refused(trained):
    settings, folder = trained
    before = (folder / "model.safetensors").read_bytes()
    train_hed(settings)  # its time is over
    assert (folder / "model.safetensors").read_bytes() == before
    train_hed(replace(settings, minutes=time_spent(folder / "state" / "hed.pt")[0] / 60 + 0.02))
    assert (folder / "model.safetensors").read_bytes() != before
    with pytest.raises(EmitDiffError, match="seed 0, now 1"):
        train_hed(replace(settings, seed=1))


def test_without_time_or_teacher_nothing_is_trained(trained, tmp_path):
    settings, _ = trained
    with pytest.raises(EmitDiffError, match="positive number"):
        train_hed(replace(settings, out=tmp_path / "out", minutes=0))
    with pytest.raises(EmitDiffError, match="convert-hed FILE"):
        train_hed(replace(settings, out=tmp_path / "out", teacher=tmp_path / "nowhere"))


def test_the_loss_is_least_where_the_teacher_is_met():
    wanted = torch.rand(2, 1, 32, 32, generator=torch.Generator().manual_seed(0)) * 0.9 + 0.05
    small = torch.nn.functional.adaptive_avg_pool2d(wanted, 16)
    met = distillation_loss([wanted.logit(), small.logit()], wanted)
    assert met < distillation_loss([(wanted * 0.8).logit(), small.logit()], wanted)
    assert met < distillation_loss([wanted.logit(), (small * 0.8).logit()], wanted)
    assert met < distillation_loss([wanted.roll(1, -1).logit(), small.logit()], wanted)


def test_views_are_pictures_of_one_size_partly_in_colour(dataset_folder):
    corpus, rng = load_corpus((dataset_folder,), 0.2, 0), np.random.default_rng(0)
    views = [teaching_view(corpus, 48, rng) for _ in range(60)]
    assert all(view.shape == (48, 48, 3) and view.dtype == np.uint8 for view in views)
    grey = sum((view == view[..., :1]).all() for view in views)
    assert 15 < grey < 55 and len({view.tobytes() for view in views}) > 55
    again = teaching_view(corpus, 48, np.random.default_rng(0))
    assert np.array_equal(again, views[0])


def test_drawn_pictures_show_something_and_colour_keeps_the_shape():
    rng = np.random.default_rng(1)
    pictures = [drawn_picture(64, rng) for _ in range(40)]
    assert np.mean([picture.std() > 3 for picture in pictures]) > 0.9
    assert all(coloured(picture, rng).shape == picture.shape for picture in pictures)


def test_ridges_are_thin_lines_along_the_crest():
    edges = np.zeros((40, 40), np.uint8)
    edges[:, 18:23] = (60, 150, 250, 150, 60)
    found = ridges(edges)
    assert found[5:35, 20].all() and found.sum(1).max() == 1
    assert not ridges(edges // 8).any()  # too faint


def test_measures_tell_a_copy_from_a_shifted_map():
    edges = np.zeros((64, 64), np.uint8)
    edges[:, 30:33] = (120, 240, 120)
    assert compared(edges, edges) == {"mae": 0.0, "ridge_f1": 1.0}
    moved = compared(np.roll(edges, 12, 1), edges)
    assert moved["ridge_f1"] == 0.0 and moved["mae"] == pytest.approx(2 * 480 / 255 / 64)


def test_evaluation_prints_the_measures_of_the_images_held_out(trained, teacher, dataset_folder, capsys):
    _, folder = trained
    (row,) = evaluate_hed(EvaluateHed((dataset_folder,), teacher, folder, limit=1, side=64, json=True))
    printed = capsys.readouterr().out
    assert "discs, held-out: 1 images, short side 64" in printed and "hed-mini" in printed and "soft" in printed
    assert json.loads(printed.splitlines()[-1])["hed-mini"]["mae"][0] == pytest.approx(row["hed-mini"]["mae"][0])
    assert 0 < row["hed-mini"]["mae"][0] < 1 and row["hed-mini"]["milliseconds"] > 0
