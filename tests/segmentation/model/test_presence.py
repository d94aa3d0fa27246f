import pytest
import torch

from benchmarks.presence import Question, calibrate, left_out, told
from emitdiff.segmentation.model.presence import ImageKindClassifier, PresenceCalibration, peak_logit, signature
from emitdiff.segmentation.vocabulary import BY_PHRASE, Target


def drawn(centre: float, count: int = 12) -> list[torch.Tensor]:
    generator = torch.Generator().manual_seed(int(centre * 10))
    return [centre * torch.linspace(-1, 1, 20) + 0.3 * torch.randn(20, generator=generator) for _ in range(count)]


def scenes() -> ImageKindClassifier:
    return ImageKindClassifier.fit({"chest x-ray": drawn(1.0), "abdominal CT": drawn(-1.0), "microscopy": drawn(3.0)})


def test_a_scene_is_recognised_and_says_what_it_cannot_show(tmp_path):
    learnt = scenes()
    learnt.save(tmp_path / "scenes.safetensors")
    for known in (learnt, ImageKindClassifier.load(tmp_path / "scenes.safetensors")):
        chest = drawn(1.0)[0]
        assert max(known.probabilities(chest), key=known.probabilities(chest).get) == "chest x-ray"
        assert known.conflicting_kind(BY_PHRASE["lung"], chest) == ""
        assert known.conflicting_kind(BY_PHRASE["liver"], chest) == "chest x-ray"
        assert (
            known.probability_of(BY_PHRASE["liver"], chest)
            < 0.04
            < 0.96
            < known.probability_of(BY_PHRASE["lung"], chest)
        )
        assert known.conflicting_kind(BY_PHRASE["nuclei"], drawn(-1.0)[0]) == "abdominal CT"


def test_a_scene_that_may_show_a_target_unlabelled_is_not_held_against_it():
    learnt, abdomen = scenes(), drawn(-1.0)[0]
    assert learnt.conflicting_kind(BY_PHRASE["lung"], abdomen) == ""
    assert learnt.untaught_kind(BY_PHRASE["lung"], abdomen) == "abdominal CT", "nor is it told for sure"
    own = Target("whole kidney", "", ("kidney",), ("kidney",), ())
    assert [learnt.untaught_kind(target, abdomen) for target in (BY_PHRASE["liver"], BY_PHRASE["nuclei"], own)] == [
        ""
    ] * 3
    assert learnt.untaught_kind(BY_PHRASE["lung"], learnt.mean + 2.5 * learnt.spread) == "", "of no known kind"


def test_an_image_unlike_all_that_was_trained_is_not_refused():
    learnt = scenes()
    assert learnt.conflicting_kind(BY_PHRASE["liver"], learnt.mean + 0.9 * learnt.spread) != ""
    assert learnt.conflicting_kind(BY_PHRASE["liver"], learnt.mean + 2.5 * learnt.spread) == ""
    assert learnt.probability_of(BY_PHRASE["liver"], learnt.mean + 2.5 * learnt.spread) == 1


def test_calibration_believes_what_can_be_believed():
    """One logit tells, the other is noise; of two classes the rarer may count as much."""
    generator = torch.Generator().manual_seed(0)
    there = torch.arange(400) % 4 > 0
    telling = torch.where(there, 1.5, -0.5) + torch.randn(400, generator=generator)
    logits = torch.stack([torch.randn(400, generator=generator), telling], dim=1)
    alike = torch.where(there, 2 / 3, 2.0)
    learnt = PresenceCalibration.fit(logits, there, alike)
    assert learnt.drawn > 1 and abs(learnt.said) < 0.3
    assert abs(learnt.probability(0.0, 0.5) - 0.5) < 0.1, "half way between the classes"
    unweighted = PresenceCalibration.fit(logits, there, torch.ones(400))
    assert unweighted.probability(0.0, 0.5) > 0.6, "three of four are there"


def test_a_mask_is_judged_by_its_surest_positions():
    probability = torch.full((20, 20), 0.1)
    probability[3, 4:8] = 0.9
    assert abs(peak_logit(probability) - torch.logit(torch.tensor(0.9)).item()) < 1e-4
    assert peak_logit(torch.zeros(5, 5)) < -9 and peak_logit(torch.ones(5, 5)) > 9, "finite"


def test_no_file_holds_nothing_absent(tmp_path):
    assert ImageKindClassifier.load(tmp_path / "scenes.safetensors") is None


def test_a_signature_leaves_coordinates_out_and_does_not_depend_on_size():
    part = torch.arange(8.0).reshape(1, 8, 1, 1)
    small, large = part.expand(1, 8, 4, 4), part.expand(1, 8, 16, 12)
    assert torch.equal(signature([small], with_coordinates=True), signature([large], with_coordinates=True))
    assert signature([small], with_coordinates=True).tolist() == [0, 1, 2, 0, 0, 0]
    assert len(signature([small], with_coordinates=False)) == 16


def questions(*means: float) -> list[Question]:
    """Of twelve groups each, ten images with the target and five without; `means` of the telling logit with it."""
    generator = torch.Generator().manual_seed(1)
    asked = []
    for name, mean in zip("ab", means, strict=False):
        for row in range(180):
            there = row % 15 < 10
            said = (mean if there else -mean) + torch.randn(1, generator=generator).item()
            asked.append(Question(name, f"{name}/{row % 12}", there, (said, 0.0), 0.5, False, True, 0.8))
    return asked


def test_a_benchmark_judges_every_group_by_a_calibration_without_it():
    asked = questions(2.0)
    odd = [one._replace(logits=(-9.0, 0.0)) if one.group == "a/3" and one.there else one for one in asked]
    before, after = left_out(asked), left_out(odd)
    fold = {one.group for one, old, new in zip(asked, before, after, strict=True)
            if one.group != "a/3" and old == new}  # fmt: skip
    same = [one.group for one, old, new in zip(asked, before, after, strict=True) if old == new and not one.there]
    assert "a/3" in same and len(fold) == 1, "those scored with it are the two groups of one fold"
    assert calibrate(odd).said < calibrate(asked).said


def test_what_a_benchmark_tells():
    asked = [one._replace(dice=0.5) for one in questions(2.0)]
    kept = told(asked, [float(one.there) for one in asked])
    assert kept == "false masks   0 of  60, not found   0 of 120, Dice 0.500"
    assert told(asked, [0.0] * 120 + [1.0] * 60) == "false masks  20 of  60, not found  80 of 120, Dice 0.167"
    blank = [one._replace(drawn=False, dice=0.0 if one.there else 1.0) for one in asked]
    assert told(blank, [1.0] * 180) == "false masks   0 of  60, not found 120 of 120, Dice 0.000"


def test_what_is_of_another_kind_stays_refused_and_out_of_it():
    asked = questions(2.0)
    foreign = [one._replace(elsewhere=True, logits=(9.0, 9.0), there=False) for one in asked]
    assert calibrate(asked + foreign) == calibrate(asked)
    assert left_out(asked + foreign)[len(asked) :] == [0.0] * len(foreign)
    with pytest.raises(SystemExit, match="Images that show the target"):
        calibrate([one for one in asked if one.there])
