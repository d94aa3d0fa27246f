"""What is fetched from the Hub, and what is said where it cannot be."""

import pytest

from emitdiff.errors import EmitDiffError
from emitdiff.hub import ALLOWED_FILES, IGNORED_FILES, fetch_or_explain


def test_hub_failures_become_sentences():
    import httpx2
    from huggingface_hub import errors

    response = httpx2.Response(403, request=httpx2.Request("GET", "https://hub"))

    def failing(error):
        def fetch():
            raise error

        return fetch

    for error, words in [
        (errors.GatedRepoError("gated", response=response), "hf auth login` and `hf download"),
        (errors.RepositoryNotFoundError("none", response=response), "check the name"),
        (errors.RevisionNotFoundError("none", response=response), "check the name"),
        (errors.LocalEntryNotFoundError("none"), "where there is a network"),
        (ConnectionError("down"), "where there is a network"),
    ]:
        with pytest.raises(EmitDiffError, match=words):
            fetch_or_explain(failing(error), "owner/repo", "hf download owner/repo")


def test_downloads_leave_out_pickles_and_duplicates():
    from huggingface_hub.utils import filter_repo_objects

    offered = [
        "model_index.json",
        "v1-5-pruned.ckpt",
        "v1-5-pruned-emaonly.safetensors",
        "tokenizer/merges.txt",
        "text_encoder/model.safetensors",
        "text_encoder/model.fp16.safetensors",
        "text_encoder/pytorch_model.bin",
        "unet/diffusion_pytorch_model.safetensors",
        "unet/diffusion_pytorch_model.non_ema.safetensors",
        "safety_checker/model.safetensors",
        "diffusion_pytorch_model.safetensors",
    ]
    kept = list(filter_repo_objects(offered, allow_patterns=ALLOWED_FILES, ignore_patterns=IGNORED_FILES))
    assert kept == [offered[index] for index in (0, 3, 4, 7, 10)]
