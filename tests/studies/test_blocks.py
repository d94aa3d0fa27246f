import json
import shutil
from dataclasses import replace

import numpy as np
import pytest
import torch
from PIL import Image

from emitdiff.datasets.folder import open_dataset
from emitdiff.datasets.splits import split_by_group
from emitdiff.errors import EmitDiffError
from emitdiff.studies import blocks
from emitdiff.studies.blocks import Blocks, as_markdown, cell_names, dice_of, make_report, study_blocks
from emitdiff.studies.results_table import read_table


@pytest.fixture(scope="module")
def backbone(tmp_path_factory):
    """A tiny denoiser of the real class, random weights, in a folder as `convert-adm` leaves it."""
    from diffusers import DDPMScheduler, UNet2DModel

    folder = tmp_path_factory.mktemp("backbone")
    torch.manual_seed(0)
    kinds = {"down_block_types": ("DownBlock2D", "AttnDownBlock2D"), "up_block_types": ("AttnUpBlock2D", "UpBlock2D")}
    unet = UNet2DModel(
        sample_size=64, layers_per_block=1, block_out_channels=(8, 16), norm_num_groups=4, out_channels=6, **kinds
    )
    unet.save_pretrained(folder)
    DDPMScheduler().save_pretrained(folder)
    return folder


@pytest.fixture
def settings(dataset_folder, backbone, tmp_path):
    return Blocks(dataset_folder, tmp_path / "out", backbone=backbone, timesteps=(0, 100), images=4, seeds=2, test=2,
                  resolution=64)  # fmt: skip


def test_a_cell_for_each_block_and_step_and_a_page_with_a_heat_map(settings, capsys):
    report = study_blocks(settings)
    rows = read_table(settings.out / "results.csv")
    names = ["0", "1", "2", "3", "0+1+2+3"]
    assert {(row["block"], row["timestep"], row["seed"]) for row in rows} == {
        (name, step, seed) for name in names for step in ("0", "100") for seed in ("0", "1")
    }
    assert len(rows) == 20 and {row["target"] for row in rows} == {"breast lesion"}
    own = [float(row["dice"]) for row in rows if (row["block"], row["timestep"]) == ("3", "0")]
    cell = next(cell for cell in report["cells"] if (cell["block"], cell["timestep"]) == ("3", 0))
    assert cell["dice"] == pytest.approx(np.mean(own)) and cell["sd"] == pytest.approx(np.std(own, ddof=1))
    assert cell["dice"] > 0.8, "the disc is brighter than its ground, and the last block sees every pixel"
    assert cell["shape"] == "8 at 1/1"
    page = (settings.out / "report.md").read_text()
    assert page == as_markdown(report) and "| together |" in page and page.strip() in capsys.readouterr().out
    assert json.loads((settings.out / "report.json").read_text()) == report
    assert Image.open(settings.out / "blocks.png").size[0] > 200


def test_killed_between_two_steps_it_ends_with_the_same_rows(settings, monkeypatch):
    study_blocks(replace(settings, out=settings.out.with_name("whole")))
    steps, probe_step = [], blocks.probe_step

    def one_step(*given):
        if steps:
            raise KeyboardInterrupt
        steps.append(1)
        return probe_step(*given)

    with monkeypatch.context() as patched, pytest.raises(KeyboardInterrupt):
        patched.setattr(blocks, "probe_step", one_step)
        study_blocks(settings)
    assert len(read_table(settings.out / "results.csv")) == 10
    study_blocks(settings)
    written = [(folder / "results.csv").read_text() for folder in (settings.out, settings.out.with_name("whole"))]
    assert written[0] == written[1]


def test_blocks_steps_and_seeds_may_be_added_but_no_other_images(settings):
    few = replace(settings, blocks=(3,), timesteps=(0,), seeds=1)
    study_blocks(few)
    first = read_table(settings.out / "results.csv")
    report = study_blocks(replace(settings, blocks=(1, 3), timesteps=(0, 100)))
    assert read_table(settings.out / "results.csv")[: len(first)] == first
    assert [cell["block"] for cell in report["cells"]] == ["1", "1", "3", "3", "together", "together"]
    with pytest.raises(EmitDiffError, match="started with images 4, now 5"):
        study_blocks(replace(settings, images=5))


def test_dice_by_hand():
    measured = dice_of(np.array([5.0, 0, 3, 0]), np.array([10.0, 0, 3, 7]), np.array([10.0, 4, 3, 0]))
    assert measured == {"dice": pytest.approx((0.5 + 0 + 1) / 3, abs=1e-5), "n": 3,
                        "dice_pooled": pytest.approx(16 / (20 + 4 + 6), abs=1e-5)}  # fmt: skip
    assert dice_of(np.zeros(2), np.ones(2), np.zeros(2)) == {"dice": "", "dice_pooled": "", "n": 0}


def test_several_targets_count_alike(settings):
    dices = {("0", "a"): 0.2, ("0", "b"): 0.4, ("1", "a"): 0.6, ("1", "b"): ""}
    rows = [{"block": "2", "timestep": "0", "seed": seed, "target": target, "dice": str(dice), "n": "3", "shape": ""}
            for (seed, target), dice in dices.items()]  # fmt: skip
    (cell,) = make_report(replace(settings, timesteps=(0,)), (2,), rows, "organs")["cells"]
    assert cell["dice"] == pytest.approx((0.3 + 0.6) / 2) and cell["sd"] == pytest.approx(0.3 / 2**0.5)
    assert cell_names((2,)) == ("2",) and cell_names((2, 5)) == ("2", "5", "2+5")


@pytest.mark.parametrize(
    ("change", "answer"),
    [({"blocks": (4,)}, "no block 4"), ({"timesteps": (0, 1000)}, "from 0 to 999"), ({"images": 20}, "20 were asked")],
)
def test_what_cannot_be_probed_leaves_nothing(settings, change, answer):
    with pytest.raises(EmitDiffError, match=answer):
        study_blocks(replace(settings, **change))
    assert not settings.out.exists()


def test_held_out_images_without_any_label_are_refused_before_anything_is_written(settings, tmp_path):
    folder = shutil.copytree(settings.dataset, tmp_path / "discs")
    _, test = split_by_group(open_dataset(folder))
    for row in test.rows:
        Image.fromarray(np.zeros((64, 64), np.uint8)).save(folder / row["mask"])
    with pytest.raises(EmitDiffError, match="None of the 2 held-out images of 'discs' shows a label: test on more"):
        study_blocks(replace(settings, dataset=folder))
    assert not settings.out.exists()


def test_a_folder_without_a_backbone(settings, tmp_path):
    with pytest.raises(EmitDiffError, match="holds no backbone"):
        study_blocks(replace(settings, backbone=tmp_path))
