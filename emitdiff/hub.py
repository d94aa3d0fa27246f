"""What is fetched from the Hugging Face Hub, and what is said where it cannot be."""

from __future__ import annotations

from collections.abc import Callable

from emitdiff.errors import EmitDiffError

# Full-precision safetensors and what describes them: no pickles, no half-precision or single-file duplicates.
ALLOWED_FILES = ["*.json", "*.txt", "*model*.safetensors"]
IGNORED_FILES = ["*.fp16*", "*non_ema*", "safety_checker/*"]


def is_repository(text: str) -> bool:
    from huggingface_hub.errors import HFValidationError
    from huggingface_hub.utils import validate_repo_id

    try:
        validate_repo_id(text)
    except HFValidationError:
        return False
    return text.count("/") == 1 and not text.startswith((".", "~"))


def snapshot(repository: str, revision: str, local_files_only: bool) -> str:
    from huggingface_hub import snapshot_download

    return snapshot_download(
        repository,
        revision=revision,
        allow_patterns=ALLOWED_FILES,
        ignore_patterns=IGNORED_FILES,
        local_files_only=local_files_only,
    )


def hub_is_reachable() -> bool:
    """Whether the Hub can be reached, asked once and briefly: the library's own retries keep users waiting 23 s."""
    from huggingface_hub.constants import ENDPOINT, HF_HUB_OFFLINE
    from huggingface_hub.utils import get_session

    if HF_HUB_OFFLINE:
        return False
    try:
        get_session().head(ENDPOINT, timeout=5)
    except Exception:  # noqa: BLE001 - every HTTP client has its own family of errors; any means no
        return False
    return True


def fetch_or_explain(fetch: Callable[[], str], repository: str, command: str) -> str:
    """`fetch()`, with every way the Hub can fail turned into one sentence and the command that fixes it."""
    from huggingface_hub import errors

    try:
        return fetch()
    except errors.GatedRepoError as error:
        reason = f"{repository} is gated: accept its terms on its Hub page, then run `hf auth login` and `{command}`."
        raise EmitDiffError(reason) from error
    except (errors.RepositoryNotFoundError, errors.RevisionNotFoundError, errors.HFValidationError) as error:
        reason = f"{repository} does not exist at that revision or is private: check the name or run `hf auth login`."
        raise EmitDiffError(reason) from error
    except (OSError, errors.CachedRepoTreeNotFoundError, errors.RevisionResolutionError) as error:
        reason = (
            f"The weights {repository} are not on this machine and the Hub cannot be reached: "
            f"run `{command}` where there is a network, or choose an embedded checkpoint."
        )
        raise EmitDiffError(reason) from error
