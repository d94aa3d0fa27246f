from __future__ import annotations

import dataclasses
import os
import re
import subprocess
import sys
from pathlib import Path
from typing import get_args, get_type_hints

import pytest
from command_line import run

from docs.command_reference import build_parser, commands
from emitdiff import cli
from emitdiff.commands import studies


def called(verb: type) -> str:
    """TrainHed is called train-hed."""
    return re.sub("(?<!^)(?=[A-Z])", "-", verb.__name__).lower()


PARSERS = dict(commands(build_parser()))
STUDIES = get_args(get_type_hints(studies.Study)["study"])
VERBS = {called(verb): verb for verb in cli.COMMANDS} | {f"study {called(study)}": study for study in STUDIES}


def processor_seconds() -> float:
    """Spent by the processes that were started here and have ended: the same on a busy machine as on an idle one."""
    spent = os.times()
    return spent.children_user + spent.children_system


def test_help_is_there_at_once_and_without_torch():
    command, before = [sys.executable, "-X", "importtime", "-m", "emitdiff", "--help"], processor_seconds()
    result = subprocess.run(command, capture_output=True, text=True, timeout=60)
    assert processor_seconds() - before < 1, "a fifth of a second on an idle machine"
    assert result.returncode == 0
    for verb in ("synthesize", "segment", "edges", "train-synthesis", "train-segmentation", "check-dataset"):
        assert verb in result.stdout
    assert not any(name in result.stderr for name in (" torch\n", " gradio\n", " diffusers\n"))


@pytest.mark.parametrize("words", PARSERS)
def test_every_field_of_every_verb_is_explained(words, capsys):
    with pytest.raises(SystemExit) as stopped:
        cli.parse([*words.split(), "--help"])
    assert stopped.value.code == 0
    printed, found = capsys.readouterr().out, {}
    for action in PARSERS[words]._actions:
        assert all(re.search(rf"(?<![\w-]){flag}(?![\w-])", printed) for flag in action.option_strings)
        found[action.dest.rpartition(".")[2].replace("-", "_")] = action
    for field in dataclasses.fields(VERBS[words]):
        action = found[{"study": "study (positional)"}.get(field.name, field.name)]
        assert field.name == "study" or re.sub(r"\((default: .*|required)\)", "", action.help).strip(), field.name


def test_no_verb_is_left_out_of_the_help():
    assert list(PARSERS) == list(VERBS)


def test_short_flags_and_defaults():
    verb = cli.parse(["synthesize", "scan.png", "--prompt", "MRI, prostate", "-n", "2", "-o", "out"])
    assert verb == cli.Synthesize(image=Path("scan.png"), prompt="MRI, prostate", out=Path("out"), num_images=2)
    assert verb.seed == 0 and verb.checkpoint == "emitdiff-mini"


def test_several_datasets_and_flags_for_json():
    verb = cli.parse(["train-synthesis", "a", "b", "--out", "weights", "--resolution", "128", "--minutes", "1.5"])
    assert verb.datasets == (Path("a"), Path("b")) and verb.minutes == 1.5
    verb = cli.parse(["evaluate-segmentation", "a", "--text", "shuffled", "--limit", "3", "--json"])
    assert (verb.text, verb.limit, verb.json) == ("shuffled", 3, True)


def test_training_goes_by_train_or_by_its_old_name_and_from_another_checkpoint():
    old = cli.parse(["train-synthesis", "a", "--out", "b", "--stage", "unet"])
    assert old == cli.parse(["train-synthesis", "a", "--out", "b", "--train", "unet"]) and old.start is None
    words = ["--from", "sd15-hed", "--train", "controlnet", "--steps", "5", "--no-ema", "--mixed-precision", "bf16"]
    verb = cli.parse(["train-synthesis", "a", "--out", "b", *words])
    assert (verb.start, verb.train, verb.steps, verb.ema) == ("sd15-hed", "controlnet", 5, False)


def test_studies_are_verbs_within_a_verb(monkeypatch, capsys):
    verb = cli.parse(["study", "utility", "a", "--out", "b", "--arms", "real", "real+synthetic", "--seeds", "2"])
    assert verb == cli.Study(studies.Utility(Path("a"), Path("b"), arms=("real", "real+synthetic"), seeds=2))
    verb = cli.parse(["study", "steps", "a", "b", "--out", "c", "--steps", "4", "8", "--schedulers", "unipc"])
    assert verb.study.datasets == (Path("a"), Path("b")) and verb.study.steps == (4, 8)
    words = ["--images", "5", "10", "--arms", "unet", "--split-column", "split", "--derived", "a"]
    verb = cli.parse(["study", "labels", "a", "--out", "c", *words]).study
    assert (verb.images, verb.arms, verb.split_column, verb.derived) == ((5, 10), ("unet",), "split", ("a",))
    assert run(monkeypatch, "study", "steps", "nowhere", "--out", "out", "--steps", "4", "0") == 2
    assert "--steps 4 0 is invalid" in capsys.readouterr().err


def test_unknown_verb_exits_2():
    with pytest.raises(SystemExit) as stopped:
        cli.parse(["paint"])
    assert stopped.value.code == 2


@pytest.mark.parametrize(
    "arguments",
    [
        ["synthesize", "nowhere.png", "--prompt", "CT, liver", "-o", "out"],
        ["segment", "nowhere.png", "--text", "liver", "-o", "out"],
        ["edges", "nowhere.png", "-o", "out"],
        ["check-dataset", "nowhere"],
        ["train-synthesis", "nowhere", "--out", "out"],
        ["train-synthesis", "--out", "out"],
        ["train-segmentation", "nowhere", "--out", "out"],
        ["evaluate-synthesis", "nowhere"],
        ["evaluate-segmentation", "nowhere"],
        ["teach", "nowhere", "-o", "head.safetensors"],
        ["evaluate-segmentation"],
        ["augment", "nowhere", "out"],
        ["export", "nowhere", "out", "--format", "coco"],
        ["filter", "nowhere", "nowhere-else", "out"],
        ["study", "copies", "nowhere", "--out", "out"],
        ["study", "utility", "nowhere", "--out", "out"],
        ["study", "steps", "nowhere", "--out", "out"],
        ["study", "steps", "--out", "out"],
        ["study", "blocks", "nowhere", "--out", "out"],
        ["study", "labels", "nowhere", "--out", "out"],
        ["study", "labels", "--out", "out"],
        ["evaluate-synthesis", "nowhere", "elsewhere", "--prompts"],
        ["evaluate-synthesis"],
    ],
)
def test_what_is_not_there_gets_a_sentence_and_2(arguments, monkeypatch, tmp_path, capsys):
    monkeypatch.chdir(tmp_path)
    assert run(monkeypatch, *arguments) == 2
    printed = capsys.readouterr()
    assert printed.err.startswith("emitdiff: ") and printed.err.count("\n") == 1
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    "arguments",
    [
        ["evaluate-synthesis", "nowhere", "--limit", "0"],
        ["evaluate-segmentation", "nowhere", "--limit", "-1"],
        ["train-synthesis", "nowhere", "--out", "out", "--minutes", "0"],
        ["train-segmentation", "nowhere", "--out", "out", "--minutes", "-5"],
        ["train-segmentation", "nowhere", "--out", "out", "--minutes", "nan"],
        ["train-synthesis", "nowhere", "--out", "out", "--threads", "0"],
        ["synthesize", "nowhere.png", "--prompt", "CT", "-o", "out", "-n", "0"],
        ["synthesize", "nowhere.png", "--prompt", "CT", "-o", "out", "--seed", "-1"],
        ["segment", "nowhere.png", "--text", "liver", "-o", "out", "--threshold", "1"],
        ["segment", "nowhere.png", "--text", "liver", "-o", "out", "--threshold", "nan"],
    ],
)
def test_numbers_that_cannot_be_used_are_refused_before_anything_is_read(arguments, monkeypatch, capsys):
    assert run(monkeypatch, *arguments) == 2
    flag = arguments[-2] if arguments[-2] != "-n" else "--num-images"
    assert capsys.readouterr().err.startswith(f"emitdiff: {flag} {arguments[-1]}")


@pytest.mark.parametrize("verb", [["synthesize", "--prompt", "CT"], ["segment", "--text", "liver"]])
@pytest.mark.parametrize("name", ["no-such-weights", "owner/no-such-repository"])
def test_missing_weights_get_a_sentence_and_2(verb, name, disc_files, monkeypatch, tmp_path, capsys):
    assert run(monkeypatch, *verb, disc_files[0], "--checkpoint", name, "-o", tmp_path / "out") == 2
    assert name in capsys.readouterr().err.splitlines()[-1]


@pytest.mark.parametrize(
    ("arguments", "module"),
    [
        (["train-segmentation", "a", "--out", "b"], "emitdiff.segmentation.training.run"),
    ],
)
def test_settings_take_every_field_of_their_verb(arguments, module):
    from importlib import import_module

    verb = cli.parse(arguments)
    settings = getattr(import_module(module), type(verb).__name__)(**vars(verb))
    assert dataclasses.asdict(settings).items() >= dataclasses.asdict(verb).items()
