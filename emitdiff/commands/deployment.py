"""This application as a Hugging Face Space: which files go up, and how they get there.

They are sent as one commit through huggingface_hub, so neither the history of this repository nor a set-up of Git LFS
is needed.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Literal

from emitdiff.checkpoints import find_checkpoint, hub_parts
from emitdiff.errors import EmitDiffError, first_line
from emitdiff.hub import explained, is_repository

Hardware = Literal["cpu-basic", "zero-a10g", "t4-small", "l4x1", "a10g-small"]
SpaceFiles = dict[str, bytes | Path]  # by path in the Space: what is in it, or where it lies

FOLDERS = ("emitdiff", "checkpoints")
FILES = ("app.py", "LICENSE")
LARGE = ("*.safetensors", "*.png", "*.webp")  # what a Space keeps beside its Git repository
PRELOADED = "sd15-softedge"  # fetched while a Space with a card is built, so that its first user does not wait for it
# What ZeroGPU wants, by its documentation: Python 3.12 (or 3.10), torch 2.8 to 2.11, and its package `spaces`, through
# which emitdiff/zero_gpu.py is lent the card. A test holds the torch of requirements-gpu.txt against it.
ZERO_PYTHON = "3.12"
ZERO_TORCH = ("2.8.0", "2.9.1", "2.10.0", "2.11.0")
SPACES = "spaces==0.51.3"
CPU_WHEELS = "--extra-index-url https://download.pytorch.org/whl/cpu"  # torch without 3 GB of CUDA


def space_files(root: Path, hardware: Hardware) -> SpaceFiles:
    """What a Space on `hardware` consists of. With a card, the Hub is asked which files of Stable Diffusion to preload.

    Raises EmitDiffError where `root` is no checkout of this repository, or the Hub does not answer.
    """
    missing = [name for name in (*FILES, "README.md", "requirements.txt", *FOLDERS) if not (root / name).exists()]
    if missing:
        raise EmitDiffError(
            f"{root} is no checkout of this repository ({', '.join(missing)} missing): clone it, and run deploy-space "
            "there."
        )
    found: SpaceFiles = {name: root / name for name in FILES}
    for folder in FOLDERS:
        paths = (path for path in sorted((root / folder).rglob("*")) if path.is_file())
        found |= {str(path.relative_to(root)): path for path in paths if "__pycache__" not in path.parts}
    found["README.md"] = _front_page((root / "README.md").read_text(encoding="utf-8"), hardware).encode()
    found["requirements.txt"] = _requirements(root, hardware).encode()
    found[".gitattributes"] = "".join(f"{ending} filter=lfs diff=lfs merge=lfs -text\n" for ending in LARGE).encode()
    return found


def deploy_space(name: str, hardware: Hardware, files: SpaceFiles, private: bool = False) -> str:
    """Makes the Space `name` ("user/name") of `files`, or brings it up to date; what else lay in it goes. Its address.

    Raises EmitDiffError where the Hub cannot be reached or does not allow it.
    """
    from huggingface_hub import CommitOperationAdd, CommitOperationDelete, HfApi, SpaceHardware

    with _allowed(name):
        api = HfApi()
        address = api.create_repo(name, repo_type="space", space_sdk="gradio", exist_ok=True, private=private or None)
        there = set(api.list_repo_files(name, repo_type="space"))
        added = [CommitOperationAdd(path, _content(content)) for path, content in files.items()]
        removed = [CommitOperationDelete(path) for path in sorted(there - set(files))]
        api.create_commit(name, [*added, *removed], commit_message="Deploy emitdiff", repo_type="space")
        api.request_space_hardware(name, SpaceHardware(hardware))
    return str(address)


def check_space_name(name: str) -> None:
    """Raises EmitDiffError for what is no USER/NAME."""
    if not is_repository(name):
        raise EmitDiffError(f"{name!r} is no name of a Space: give it as USER/NAME.")


def _content(content: bytes | Path) -> bytes | str:
    return content if isinstance(content, bytes) else str(content)


@contextmanager
def _allowed(name: str) -> Iterator[None]:
    from huggingface_hub.errors import HfHubHTTPError, LocalTokenNotFoundError

    login = "run `hf auth login` with a token that may write there"
    try:
        with explained(name, f"emitdiff deploy-space {name}"):
            try:
                yield
            except HfHubHTTPError as error:
                status = error.response.status_code
                if status in (401, 402, 403):
                    reason = first_line(error)
                    raise EmitDiffError(
                        f"The Hub does not let you make the Space {name} (HTTP {status}, {reason}): {login}, or choose "
                        "other --hardware."
                    ) from error
                raise
    except LocalTokenNotFoundError as error:
        raise EmitDiffError(f"Nobody is logged in to the Hub: {login}.") from error


def _front_page(text: str, hardware: Hardware) -> str:
    """README.md whose front matter asks for `hardware`, for a Python that runs there, and for the weights to be there
    before the Space starts."""
    set_here: dict[str, str] = {"suggested_hardware": hardware}
    if hardware == "zero-a10g":
        set_here["python_version"] = f'"{ZERO_PYTHON}"'
    lines = [
        f"{key}: {set_here[key]}" if (key := line.partition(":")[0]) in set_here else line for line in text.split("\n")
    ]
    if hardware != "cpu-basic":
        lines[lines.index("models:") : lines.index("models:")] = ["preload_from_hub:", *_preloads()]
    return "\n".join(lines)


def _preloads() -> Iterator[str]:
    """Repository, files in half precision and commit, as Spaces want them."""
    from huggingface_hub import HfApi

    for part in hub_parts(find_checkpoint(PRELOADED, "synthesis")):
        with explained(part.repository, "emitdiff deploy-space USER/NAME --hardware cpu-basic"):
            names = HfApi().list_repo_files(part.repository, revision=part.revision)
        yield f"  - {part.repository} {','.join(part.choose(names, half=True))} {part.revision}"


def _requirements(root: Path, hardware: Hardware) -> str:
    """With a card the torch of requirements-gpu.txt, and its xformers where the card is the Space's own; on ZeroGPU
    what lends it."""
    text = (root / "requirements.txt").read_text(encoding="utf-8")
    if hardware == "cpu-basic":
        return f"{CPU_WHEELS}\n{text}"
    pair = (root / "requirements-gpu.txt").read_text(encoding="utf-8").splitlines()
    wanted = ("torch==",) if hardware == "zero-a10g" else ("torch==", "xformers==")
    chosen = "\n".join(line for line in pair if line.startswith(wanted))
    lender = f"{SPACES}\n" if hardware == "zero-a10g" else ""
    return lender + "".join(f"{chosen if line.startswith('torch==') else line}\n" for line in text.splitlines())
