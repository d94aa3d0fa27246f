"""Downloads through huggingface_hub's own client from a stand-in of the Hub, with what goes wrong on the way."""

import os
import random
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from huggingface_hub import constants

from emitdiff import downloads
from emitdiff.downloads import DownloadStopped, fetch
from emitdiff.errors import EmitDiffError
from emitdiff.hub import HubPart, find_snapshot
from emitdiff.progress import Progress

UNET, UNET_HALF = "unet/diffusion_pytorch_model.safetensors", "unet/diffusion_pytorch_model.fp16.safetensors"
SIZE = 3_000_000
ROOT = Path(__file__).resolve().parents[2]
BASE = HubPart("owner/base", "main")


@pytest.fixture
def weights() -> bytes:
    return random.Random(0).randbytes(SIZE)


@pytest.fixture
def base(hub, weights):
    """A repository in diffusers layout on the stand-in."""
    files = {"model_index.json": b"{}", UNET: weights, "unet/config.json": b"{}", UNET_HALF: weights[: SIZE // 2]}
    return hub.add("owner/base", {**files, "v1-5-pruned.ckpt": b"pickle", "safety_checker/model.safetensors": b"no"})


def partials() -> list[Path]:
    return list(Path(constants.HF_HUB_CACHE).rglob("*.incomplete"))


def break_off(hub, name=UNET, at=1_000_000) -> Path:
    """A download whose line broke and stayed broken; its partial file."""
    hub.fail(name, cut_at=at)
    with pytest.raises(EmitDiffError, match="broke again and again.*kept"):
        fetch([BASE])
    hub.faults.clear()
    hub.requests.clear()
    (partial,) = partials()
    assert partial.stat().st_size == at
    return partial


def test_what_is_wanted_arrives_with_its_bytes_counted(hub, base, weights):
    seen = []
    (folder,) = fetch([BASE], progress=Progress(lambda *state: seen.append(state)))
    assert (folder / UNET).read_bytes() == weights
    there = sorted(str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file())
    assert there == ["model_index.json", "unet/config.json", UNET]
    assert seen[0] == (0, SIZE) and seen[-1] == (SIZE, SIZE) and len(seen) > 3
    assert [done for done, _ in seen] == sorted(done for done, _ in seen)
    assert partials() == [] and folder.name == base.commit


def test_half_precision_takes_half_the_bytes(hub, base):
    (folder,) = fetch([BASE], half=True)
    assert (folder / UNET_HALF).stat().st_size == SIZE // 2 and not (folder / UNET).exists()
    assert find_snapshot(BASE, half=True) == find_snapshot(BASE) == folder
    assert find_snapshot(BASE, half=False) is None


def test_full_precision_that_is_here_serves_where_half_is_wanted(hub, base):
    (folder,) = fetch([HubPart("owner/base", base.commit)])
    hub.requests.clear()
    assert fetch([HubPart("owner/base", base.commit)], half=True) == [folder]
    assert hub.requests == [], "a commit that is here is not asked about"


def test_a_repository_in_half_precision_alone_serves_everyone(hub, weights):
    hub.add("owner/half", {"model_index.json": b"{}", UNET_HALF: weights})
    (folder,) = fetch([HubPart("owner/half", "main")], half=False)
    assert (folder / UNET_HALF).exists() and find_snapshot(HubPart("owner/half", "main"), half=False) == folder


def test_a_branch_that_moved_on_is_fetched_again_and_else_only_asked_about(hub, base, weights):
    fetch([BASE])
    hub.requests.clear()
    fetch([BASE])
    assert hub.asked("/store/") == []
    base.files["unet/config.json"] = b'{"new": 1}'
    base.sha256.clear()
    (folder,) = fetch([BASE])
    assert (folder / "unet/config.json").read_bytes() == b'{"new": 1}' and hub.asked("/store/") == []


def test_all_parts_are_counted_together(hub, base):
    hub.add("owner/control", {"config.json": b"{}", "diffusion_pytorch_model.safetensors": b"c" * 500_000})
    seen = []
    folders = fetch([BASE, HubPart("owner/control", "main")], progress=Progress(lambda *state: seen.append(state)))
    assert len(folders) == 2 and {total for _, total in seen} == {SIZE + 500_000} and seen[-1][0] == SIZE + 500_000


def test_a_broken_line_is_taken_up_where_it_broke(hub, base, weights):
    hub.fail(UNET, cut_at=1_200_000, times=2)
    (folder,) = fetch([BASE])
    assert (folder / UNET).read_bytes() == weights
    assert [asked for _, _, asked in hub.asked("/store/")] == [None, "bytes=1200000-", "bytes=1200000-"]


def test_the_next_download_goes_on_where_the_last_one_ended(hub, base, weights):
    break_off(hub)
    seen = []
    (folder,) = fetch([BASE], progress=Progress(lambda *state: seen.append(state)))
    assert (folder / UNET).read_bytes() == weights and partials() == []
    assert [asked for _, _, asked in hub.asked("/store/")] == ["bytes=1000000-"]
    assert seen[0] == (1_000_000, SIZE)


def test_a_server_that_gives_no_parts_is_asked_for_the_whole(hub, base, weights):
    break_off(hub)
    hub.fail(UNET, ranges=False)
    (folder,) = fetch([BASE])
    assert (folder / UNET).read_bytes() == weights


def test_partial_files_of_the_library_are_gone_on_with_and_do_not_stay(hub, base, weights):
    partial = break_off(hub)
    partial.rename(partial.with_name(f"{partial.stem}.0a1b2c3d.incomplete"))
    shutil.copy(partials()[0], partial.with_name(f"{partial.stem}.ffffffff.incomplete"))
    (folder,) = fetch([BASE])
    assert (folder / UNET).read_bytes() == weights and partials() == []
    assert [asked for _, _, asked in hub.asked("/store/")] == ["bytes=1000000-"]


def test_a_partial_file_with_other_contents_is_fetched_anew(hub, base, weights):
    break_off(hub).write_bytes(b"?" * 2_000_000)
    (folder,) = fetch([BASE])
    assert (folder / UNET).read_bytes() == weights
    assert [asked for _, _, asked in hub.asked("/store/")] == ["bytes=2000000-", None]


def test_what_is_altered_on_the_way_is_refused_and_not_kept(hub, base):
    hub.fail(UNET, flip=True)
    with pytest.raises(EmitDiffError, match="model.safetensors of owner/base did not arrive as the Hub"):
        fetch([BASE])
    assert partials() == [] and find_snapshot(BASE) is None


def test_stopping_keeps_what_has_arrived(hub, base, weights):
    arrived = []
    stops = Progress(lambda done, total: arrived.append(done), lambda: len(arrived) > 2)
    with pytest.raises(DownloadStopped, match=r"stopped at \d.\d of 3.0 MB; what has arrived is kept"):
        fetch([BASE], progress=stops)
    kept = partials()[0].stat().st_size
    hub.requests.clear()
    (folder,) = fetch([BASE])
    assert (folder / UNET).read_bytes() == weights
    assert hub.asked("/store/")[0][2] == f"bytes={kept}-" and kept >= arrived[-1] > 0


KILLED = """
import sys
from huggingface_hub import constants
constants.ENDPOINT = sys.argv[1]
constants.HUGGINGFACE_CO_URL_TEMPLATE = sys.argv[1] + "/{repo_id}/resolve/{revision}/{filename}"
from emitdiff.downloads import fetch
from emitdiff.hub import HubPart
from emitdiff.progress import Progress
fetch([HubPart("owner/base", "main")], progress=Progress(lambda done, total: print(done, flush=True)))
"""


def test_a_killed_download_goes_on(hub, base, weights):
    hub.fail(UNET, pause=0.02)
    environment = {**os.environ, "HF_HUB_CACHE": constants.HF_HUB_CACHE, "HF_HUB_OFFLINE": "0"}
    killed = subprocess.Popen(
        [sys.executable, "-c", KILLED, hub.url], stdout=subprocess.PIPE, text=True, cwd=ROOT, env=environment
    )
    while int(killed.stdout.readline()) < 1_000_000:
        pass
    killed.send_signal(signal.SIGKILL)
    killed.wait()
    hub.faults.clear()
    hub.requests.clear()
    (partial,) = partials()
    kept = partial.stat().st_size
    (folder,) = fetch([BASE])
    assert (folder / UNET).read_bytes() == weights and partials() == []
    assert [asked for _, _, asked in hub.asked("/store/")] == [f"bytes={kept}-"] and kept >= 1_000_000


def test_two_processes_fetch_a_file_once(hub, base, weights):
    """The other one is seen to go on, and what it has fetched is taken."""
    hub.fail(UNET, pause=0.02)
    environment = {**os.environ, "HF_HUB_CACHE": constants.HF_HUB_CACHE, "HF_HUB_OFFLINE": "0"}
    other = subprocess.Popen(
        [sys.executable, "-c", KILLED, hub.url], stdout=subprocess.PIPE, text=True, cwd=ROOT, env=environment
    )
    other.stdout.readline()
    other.stdout.readline()
    seen = []
    (folder,) = fetch([BASE], progress=Progress(lambda *state: seen.append(state)))
    assert other.wait(30) == 0
    assert (folder / UNET).read_bytes() == weights and len(hub.asked("/store/")) == 1
    assert 0 < seen[0][0] < SIZE and seen[-1] == (SIZE, SIZE)


def test_a_full_disk_is_said_before_and_when_it_happens(hub, base, monkeypatch):
    with monkeypatch.context() as patched:
        patched.setattr(shutil, "disk_usage", lambda folder: shutil._ntuple_diskusage(10**9, 10**9, 2_000_000))
        with pytest.raises(EmitDiffError, match=r"owner/base needs 0.0 GB, and 0.0 GB are free in .*HF_HOME"):
            fetch([BASE])
    partial = break_off(hub)
    partial.unlink()
    partial.symlink_to("/dev/full")
    with pytest.raises(EmitDiffError, match="disk is full: owner/base does not fit.*goes on from what has arrived"):
        fetch([BASE])


def test_a_cache_that_cannot_be_written_is_said(hub, base, tmp_path, monkeypatch):
    (tmp_path / "file").touch()
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "file" / "cache"))
    with pytest.raises(EmitDiffError, match="set HF_HOME"):
        fetch([BASE])


@pytest.mark.parametrize(
    ("refused", "words"),
    [
        ("gated", "owner/base is gated: accept its terms"),
        ("missing", "does not exist on the Hub or is private"),
    ],
)
def test_repositories_that_are_not_given_out(hub, base, refused, words):
    base.refused = refused
    with pytest.raises(EmitDiffError, match=words):
        fetch([BASE], command="hf download owner/base")


def test_a_revision_that_is_not_there(hub, base):
    with pytest.raises(EmitDiffError, match="does not exist at that revision"):
        fetch([HubPart("owner/base", "0" * 40)])


def test_a_file_that_the_hub_lists_and_has_not(hub, base):
    hub.fail(UNET, status=404)
    with pytest.raises(EmitDiffError, match="HTTP 404 for owner/base"):
        fetch([BASE])


def test_a_fault_of_the_hub_is_called_one(hub, base, weights):
    hub.fail(UNET, status=500)
    with pytest.raises(EmitDiffError, match=r"fault of its own \(HTTP 500\) and does not give owner/base"):
        fetch([BASE])
    assert len(hub.asked("/store/")) == downloads.TRIES
    hub.faults.clear()
    hub.fail(UNET, status=503, times=2)
    (folder,) = fetch([BASE])
    assert (folder / UNET).read_bytes() == weights


def test_pickles_alone_are_not_fetched(hub):
    hub.add("owner/base", {"unet/config.json": b"{}", "unet/diffusion_pytorch_model.bin": b"pickle"})
    with pytest.raises(EmitDiffError, match="diffusion_pytorch_model.bin as a pickle only"):
        fetch([BASE])
    assert hub.asked("/store/") == [] and hub.asked("/resolve/", "HEAD") == []


def test_without_a_network_what_is_here_serves_and_what_is_not_is_said(hub, base, monkeypatch):
    with pytest.raises(EmitDiffError, match="does not exist on the Hub"):
        fetch([HubPart("owner/none", "main")])
    (folder,) = fetch([BASE])
    hub.close()
    assert fetch([BASE]) == [folder]
    with pytest.raises(EmitDiffError, match="Hub cannot be reached: run `hf download owner/none`"):
        fetch([BASE, HubPart("owner/none", "main")], command="hf download owner/none")
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    assert fetch([BASE]) == [folder]


def test_what_answers_and_is_not_the_hub_is_called_so(hub, base):
    """As the page of a network that first wants a log-in; what has arrived before stays."""
    partial = break_off(hub)

    def answers(request) -> bool:
        if "/resolve/" in request.path:
            request.answer(200, b"<html>Welcome</html>")
        return "/resolve/" in request.path

    hub.extra.append(answers)
    with pytest.raises(EmitDiffError, match="is not the Hub.*HF_ENDPOINT"):
        fetch([BASE])
    assert partial.stat().st_size == 1_000_000
