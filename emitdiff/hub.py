"""What is wanted of repositories on the Hugging Face Hub, what of it is here, and what is said where it cannot be had.

Nothing here fetches weights; `downloads.py` does.
"""

from __future__ import annotations

import errno
from collections.abc import Collection, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from fnmatch import fnmatch
from pathlib import Path, PurePosixPath

from emitdiff.errors import EmitDiffError, first_line

# Safetensors and what describes them: no pickles, no single-file duplicates.
ALLOWED_FILES = ["*.json", "*.txt", "*model*.safetensors"]
IGNORED_FILES = ["*non_ema*", "safety_checker/*", "*onnx*", "*openvino*", "*flax*"]
PICKLES = ("*model*.bin", "*model*.pt", "*model*.pth", "*model*.ckpt")
HALF = ".fp16"  # in the names of files in half precision
FULL_DISK = {errno.ENOSPC, errno.EDQUOT}


class NotOnHub(EmitDiffError):
    """There is no such repository, or nobody to ask: what was meant may have been something else."""


@dataclass(frozen=True)
class HubPart:
    """Weights in diffusers layout in a repository at a revision (a commit or a branch), or the `files` named alone."""

    repository: str
    revision: str
    files: tuple[str, ...] = ()

    @property
    def pinned(self) -> bool:
        """Whether the revision is a commit, so that what is here need not be compared with the Hub."""
        return len(self.revision) == 40 and set(self.revision) <= set("0123456789abcdef")

    def choose(self, names: Collection[str], half: bool) -> list[str]:
        """What is wanted of the files called `names`; of weights that are there in both precisions, the one wanted.

        Raises EmitDiffError where there are none, or only such as run code when they are loaded.
        """
        if self.files:
            missing = set(self.files).difference(names)
            if missing:
                raise EmitDiffError(
                    f"{self.repository} has no file {', '.join(sorted(missing))} at its revision {self.revision}."
                )
            return list(self.files)
        chosen = choose_files(names, half)
        weights = [name for name in chosen if name.endswith(".safetensors")]
        self._refuse_pickles(names, weights)
        if not weights:
            raise EmitDiffError(
                f"{self.repository} holds no weights in diffusers layout (folders like unet/ with a .safetensors file)."
            )
        return chosen

    def _refuse_pickles(self, names: Collection[str], weights: list[str]) -> None:
        safe = {PurePosixPath(name).parent for name in weights}
        for name in sorted(names):
            pickled = any(fnmatch(name, pattern) for pattern in PICKLES)
            if pickled and not _is_ignored(name) and PurePosixPath(name).parent not in safe:
                raise EmitDiffError(
                    f"{self.repository} has {name} as a pickle only, which can run code when it is loaded, and is not "
                    "fetched: ask its author for .safetensors, or convert it where you trust it."
                )


def choose_files(names: Collection[str], half: bool) -> list[str]:
    """The descriptions and safetensors among `names`, sorted; of a file there in both precisions, the one wanted."""
    precisions: dict[str, dict[bool, str]] = {}
    for name in sorted(names):
        if any(fnmatch(name, pattern) for pattern in ALLOWED_FILES) and not _is_ignored(name):
            precisions.setdefault(name.replace(HALF, ""), {})[HALF in name] = name
    return [found.get(half) or found[not half] for found in precisions.values()]


def _is_ignored(name: str) -> bool:
    return any(fnmatch(name, pattern) for pattern in IGNORED_FILES)


def weights_variant(folder: Path, half: bool) -> str | None:
    """What diffusers calls the files to load from `folder` (its own weights, or those in folders of its): "fp16" where
    they are wanted or there is nothing else, None for the plain ones."""
    names = [str(path.relative_to(folder)) for path in folder.rglob("*.safetensors")]
    return "fp16" if any(HALF in name for name in choose_files(names, half)) else None


def find_snapshot(part: HubPart, half: bool | None = None) -> Path | None:
    """The folder with all that is wanted of `part` if it is on this machine, None otherwise; asks nobody.

    `half`: in half precision, in full where the repository has it, None: in either.
    """
    from huggingface_hub import get_cached_repo_tree, snapshot_download
    from huggingface_hub.errors import CachedRepoTreeNotFoundError, RevisionResolutionError

    try:
        names = [file.path for file in get_cached_repo_tree(part.repository, revision=part.revision)]
    except (CachedRepoTreeNotFoundError, RevisionResolutionError, OSError, ValueError, RuntimeError):
        names = None  # put there by another program: what should be there is not known
    wanted: list[list[str] | None] = [None]
    if names is not None:
        try:
            wanted = [part.choose(names, wish) for wish in ((False, True) if half is None else (half, False))]
        except EmitDiffError:
            return None
    for files in wanted:
        try:
            folder = Path(
                snapshot_download(part.repository, revision=part.revision, allow_patterns=files, local_files_only=True)
            )
        except (OSError, ValueError, RuntimeError, CachedRepoTreeNotFoundError, RevisionResolutionError):
            continue
        if all((folder / name).exists() for name in part.files) and (part.files or has_weights(folder)):
            return folder
    return None


def has_weights(folder: Path) -> bool:
    return folder.is_dir() and any(folder.rglob("*.safetensors"))


def is_repository(text: str) -> bool:
    from huggingface_hub.errors import HFValidationError
    from huggingface_hub.utils import validate_repo_id

    try:
        validate_repo_id(text)
    except HFValidationError:
        return False
    return text.count("/") == 1 and not text.startswith((".", "~"))


def hub_is_reachable() -> bool:
    """Whether the Hub can be reached, asked once and briefly: the library's own retries keep users waiting 23 s."""
    from huggingface_hub import constants
    from huggingface_hub.utils import get_session

    if constants.HF_HUB_OFFLINE:
        return False
    try:
        get_session().head(constants.ENDPOINT, timeout=5)
    except Exception:  # noqa: BLE001 - every HTTP client has its own family of errors; any means no
        return False
    return True


@contextmanager
def explained(repository: str, command: str) -> Iterator[None]:
    """Turns every way in which the Hub, the line or the disk can fail inside into one sentence that says what to do;
    `command` fetches the weights elsewhere.
    """
    from huggingface_hub import errors

    try:
        yield
    except EmitDiffError:
        raise
    except errors.HfHubHTTPError as error:
        raise _http_error(error, repository, command) from error
    except errors.HFValidationError as error:
        raise EmitDiffError(f"{repository} is no name of a repository: give owner/repo.") from error
    except errors.FileMetadataError as error:
        raise EmitDiffError(_foreign_hub(repository)) from error
    except (errors.EntryNotFoundError, errors.CachedRepoTreeNotFoundError, errors.RevisionResolutionError) as error:
        cause = error.__cause__
        if isinstance(cause, errors.HfHubHTTPError):
            raise _http_error(cause, repository, command) from error
        if isinstance(cause, errors.FileMetadataError):
            raise EmitDiffError(_foreign_hub(repository)) from error
        raise NotOnHub(unreachable(repository, command)) from error
    except errors.HTTPError as error:
        raise EmitDiffError(broken_line(repository, first_line(error))) from error
    except OSError as error:
        raise _disk_error(error, repository, command) from error
    except RuntimeError as error:
        if "home" not in str(error).lower():
            raise
        raise EmitDiffError(_no_cache("There is no home folder here")) from error


def unreachable(repository: str, command: str) -> str:
    return (
        f"The weights {repository} are not on this machine and the Hub cannot be reached: run `{command}` where there "
        "is a network, or choose an embedded checkpoint."
    )


def broken_line(repository: str, reason: str) -> str:
    return (
        f"The connection broke again and again while {repository} was fetched ({reason}). What has arrived is kept: "
        "try again, and it goes on from there."
    )


def _http_error(error: Exception, repository: str, command: str) -> EmitDiffError:
    from huggingface_hub import errors

    status = error.response.status_code  # type: ignore[attr-defined]
    if isinstance(error, errors.RepositoryNotFoundError) and not isinstance(error, errors.GatedRepoError):
        return NotOnHub(f"{repository} does not exist on the Hub or is private: check the name or run `hf auth login`.")
    return EmitDiffError(_http_sentence(error, status, repository, command))


def _http_sentence(error: Exception, status: int, repository: str, command: str) -> str:
    from huggingface_hub import errors

    if isinstance(error, errors.GatedRepoError):
        return f"{repository} is gated: accept its terms on its Hub page, then run `hf auth login` and `{command}`."
    if isinstance(error, errors.RevisionNotFoundError):
        return f"{repository} does not exist at that revision: check the name, or leave the revision to its branch."
    if isinstance(error, errors.EntryNotFoundError):
        return f"{repository} has lost a file that it lists ({first_line(error)}): try again, or ask its author."
    if isinstance(error, errors.DisabledRepoError) or status in (403, 451):
        return f"The Hub does not give out {repository} (HTTP {status}): read why on its page."
    if status == 401:
        return f"The Hub does not know the token it was given for {repository} (HTTP 401): run `hf auth login`."
    if status == 429:
        return f"The Hub asks to wait (HTTP 429, too many requests): try {repository} again in some minutes."
    if status >= 500:
        return (
            f"The Hub has a fault of its own (HTTP {status}) and does not give {repository} at the moment: try again "
            "in some minutes. What has arrived is kept."
        )
    return f"The Hub answers HTTP {status} for {repository}: {first_line(error)}"


def _disk_error(error: OSError, repository: str, command: str) -> EmitDiffError:
    from huggingface_hub import constants

    if error.errno in FULL_DISK:
        return EmitDiffError(
            f"The disk is full: {repository} does not fit into {constants.HF_HUB_CACHE}. Free some space and try "
            "again, and it goes on from what has arrived; or set HF_HOME to a folder on a larger disk."
        )
    if error.filename is not None:  # of a file here, not of the line
        return EmitDiffError(_no_cache(f"{constants.HF_HUB_CACHE} cannot be written ({error.strerror})"))
    return NotOnHub(unreachable(repository, command))


def _no_cache(what: str) -> str:
    return f"{what}: set HF_HOME to a folder for downloaded weights that can be written."


def _foreign_hub(repository: str) -> str:
    from huggingface_hub import constants

    return (
        f"What answers at {constants.ENDPOINT} is not the Hub ({repository} came without its commit): check "
        "HF_ENDPOINT, and any proxy on the way."
    )
