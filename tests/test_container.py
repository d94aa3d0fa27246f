"""The Dockerfile and compose.yaml, as far as a machine without an engine can try them."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

import emitdiff

ROOT = Path(emitdiff.__file__).resolve().parents[1]
TEXT = (ROOT / "Dockerfile").read_text(encoding="utf-8")
ASKS_WHO_IT_IS = """
import getpass, os, pathlib, tempfile
from emitdiff.temporary import TemporaryRoot
from huggingface_hub import constants
import matplotlib, torch._inductor.runtime.cache_dir_utils as inductor
print(os.getuid(), getpass.getuser(), inductor.default_cache_dir(), matplotlib.get_cachedir())
assert os.getuid() == 12345 and pathlib.Path(constants.HF_HOME) == pathlib.Path(os.environ["HF_HOME"])
for place in (pathlib.Path.home(), pathlib.Path(constants.HF_HOME)):
    (place / "written").touch()
TemporaryRoot().close()
"""
NAMELESS = "import os, pwd; os.getuid = lambda: 12345; pwd.getpwuid = {}.__getitem__"  # where no user can be made up


def steps(stage: str) -> list[tuple[str, str]]:
    """Instruction and what it is given, of one stage."""
    joined = TEXT.replace("\\\n", " ")
    found, inside = [], False
    for line in joined.splitlines():
        word, _, given = line.strip().partition(" ")
        if word == "FROM":
            inside = given.endswith(f" AS {stage}")
        elif inside and word and word[0] != "#":
            found.append((word, given.strip()))
    return found


def environment() -> dict[str, str]:
    (given,) = (given for word, given in steps("base") if word == "ENV")
    return dict(pair.split("=", 1) for pair in given.split())


def shell(command: str, folder: Path, **env: str) -> None:
    run = ["bash", "-o", "pipefail", "-c", command]
    subprocess.run(run, cwd=folder, env={**os.environ, **env}, check=True, timeout=60)


def hadolint(file: Path) -> subprocess.CompletedProcess:
    command = [str(Path(sys.executable).parent / "hadolint"), str(file)]
    return subprocess.run(command, capture_output=True, text=True, check=False, timeout=60)


def test_hadolint_has_nothing_to_say(tmp_path):
    found = hadolint(ROOT / "Dockerfile")
    assert found.returncode == 0, found.stdout
    (tmp_path / "Dockerfile").write_text(TEXT.replace("FROM python:3.11-slim-bookworm", "FROM python"))
    assert "DL3006" in hadolint(tmp_path / "Dockerfile").stdout


def test_torch_is_taken_apart_from_the_other_packages(tmp_path):
    for name in ("requirements.txt", "requirements-gpu.txt"):
        (tmp_path / name).write_bytes((ROOT / name).read_bytes())
    (command,) = (given for word, given in steps("pins") if word == "RUN")
    shell(command, tmp_path)
    pinned = {
        name: re.findall(r"^([\w-]+)==", (tmp_path / f"{name}.txt").read_text(), re.MULTILINE)
        for name in ("torch-cpu", "torch-cuda", "others", "requirements", "requirements-gpu")
    }
    assert pinned["torch-cpu"] == ["torch"] and pinned["torch-cuda"] == pinned["requirements-gpu"]
    assert sorted(pinned["torch-cpu"] + pinned["others"]) == sorted(pinned["requirements"])


def test_folders_of_a_user_can_be_written_by_anyone(tmp_path):
    home, app = tmp_path / "home", tmp_path / "app"
    env = {name: value.replace("/home/user", str(home)) for name, value in environment().items()}
    (command,) = (given for word, given in steps("base") if word == "RUN")
    shell(command.replace(" /app", f" {app}"), tmp_path, HOME=env["HOME"], HF_HOME=env["HF_HOME"])
    assert app.is_dir() and not app.stat().st_mode & 0o022
    for folder in (Path(env["HOME"]), Path(env["HF_HOME"]), *Path(env["HF_HOME"]).relative_to(home).parents):
        assert (home / folder).stat().st_mode & 0o7777 == 0o1777


@pytest.mark.parametrize("left_out", ["", "USER"])
def test_a_user_without_a_name_can_run_it(tmp_path, left_out):
    tmp_path.chmod(0o777)
    (tmp_path / "weights").mkdir(mode=0o777)
    env = {**environment(), "HOME": str(tmp_path), "HF_HOME": str(tmp_path / "weights"), "PYTHONPATH": str(ROOT)}
    env |= {"PATH": os.environ["PATH"], "TMPDIR": str(tmp_path), "OMP_NUM_THREADS": "1"}
    env.pop(left_out, None)
    unshare = ["unshare", "--user", "--map-user=12345"]
    possible = subprocess.run([*unshare, "true"], capture_output=True, check=False).returncode == 0
    command, before = (unshare, "") if possible else ([], NAMELESS)
    done = subprocess.run(
        [*command, sys.executable, "-c", f"{before}\n{ASKS_WHO_IT_IS}"],
        env=env, cwd=tmp_path, capture_output=True, text=True, check=False, timeout=60,
    )  # fmt: skip
    if left_out:
        assert "12345" in done.stderr, "there is no such user, which is what this test is about"
    else:
        assert done.returncode == 0 and done.stdout.startswith("12345 user"), done.stderr


@pytest.mark.parametrize("target", ["cpu", "cuda"])
def test_targets_bring_the_program_and_run_it_as_an_ordinary_user(target):
    done = steps(target)
    assert done[-2:] == [("USER", "1000"), ("CMD", '["python", "app.py"]')]
    copied = [name for word, given in done if word == "COPY" for name in given.split()[:-1]]
    assert copied == ["LICENSE", "checkpoints", "emitdiff", "app.py"], "what changes least comes first"
    assert all((ROOT / name).exists() for name in copied)
    assert [given for word, given in steps(f"{target}-packages") if word == "RUN"][0].endswith(f"torch-{target}.txt")
    ignored = (ROOT / ".dockerignore").read_text(encoding="utf-8").splitlines()
    assert not {*copied, "requirements.txt", "requirements-gpu.txt"} & set(ignored)


def test_compose_has_a_service_for_each_target_with_the_weights_in_a_volume():
    composed = yaml.safe_load((ROOT / "compose.yaml").read_text(encoding="utf-8"))
    services = composed["services"]
    assert {name: service["build"]["target"] for name, service in services.items()} == {"cpu": "cpu", "cuda": "cuda"}
    for service in services.values():
        (volume,) = service["volumes"]
        name, place = volume.split(":")
        assert name in composed["volumes"] and place == environment()["HF_HOME"]
        assert service["ports"] == [f"127.0.0.1:7860:{environment()['GRADIO_SERVER_PORT']}"]
    (device,) = services["cuda"]["deploy"]["resources"]["reservations"]["devices"]
    assert device["driver"] == "nvidia" and device["capabilities"] == ["gpu"] and "deploy" not in services["cpu"]
