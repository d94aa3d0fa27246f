"""What is wanted of a repository, and what of it is here."""

import pytest

from emitdiff.errors import EmitDiffError
from emitdiff.hub import HubPart, choose_files, explained, find_snapshot, weights_variant

OFFERED = [
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


def test_downloads_leave_out_pickles_and_duplicates():
    assert sorted(choose_files(OFFERED, half=False)) == sorted(OFFERED[index] for index in (0, 3, 4, 7, 10))


def test_half_precision_is_taken_where_it_is_wanted_and_there():
    assert sorted(choose_files(OFFERED, half=True)) == sorted(OFFERED[index] for index in (0, 3, 5, 7, 10))
    assert choose_files(["unet/model.fp16.safetensors"], half=False) == ["unet/model.fp16.safetensors"]


@pytest.mark.parametrize(
    ("names", "half", "variant"),
    [
        (["a/model.safetensors"], True, None),
        (["a/model.safetensors", "a/model.fp16.safetensors"], True, "fp16"),
        (["a/model.safetensors", "a/model.fp16.safetensors"], False, None),
        (["a/model.fp16.safetensors"], False, "fp16"),
        (["model.fp16.safetensors"], True, "fp16"),
    ],
)
def test_the_variant_to_load_is_the_one_that_was_fetched(tmp_path, names, half, variant):
    for name in names:
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).touch()
    assert weights_variant(tmp_path, half) == variant


def test_pickles_are_refused_by_name_unless_there_is_something_safe_beside_them():
    part = HubPart("owner/repo", "main")
    assert part.choose(["unet/pytorch_model.bin", "unet/model.safetensors"], False) == ["unet/model.safetensors"]
    with pytest.raises(EmitDiffError, match="text_encoder/pytorch_model.bin as a pickle only"):
        part.choose(["unet/model.safetensors", "text_encoder/pytorch_model.bin"], False)
    with pytest.raises(EmitDiffError, match="no weights in diffusers layout"):
        part.choose(["README.md", "v1-5-pruned.safetensors"], False)


def test_named_files_are_wanted_alone():
    assert HubPart("owner/repo", "main", ("a.pth",)).choose(["a.pth", "model.safetensors"], True) == ["a.pth"]
    with pytest.raises(EmitDiffError, match="no file b.pth at its revision main"):
        HubPart("owner/repo", "main", ("b.pth",)).choose(["a.pth"], True)


def test_a_cache_that_another_program_filled_is_taken_as_it_is(monkeypatch, tmp_path):
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path))
    part, commit = HubPart("owner/repo", "main"), "0123456789abcdef0123456789abcdef01234567"
    assert find_snapshot(part) is None
    folder = tmp_path / "models--owner--repo" / "snapshots" / commit
    folder.mkdir(parents=True)
    (tmp_path / "models--owner--repo" / "refs").mkdir()
    (tmp_path / "models--owner--repo" / "refs" / "main").write_text(commit)
    assert find_snapshot(part) is None, "it holds no weights"
    (folder / "model.safetensors").touch()
    assert find_snapshot(part) == folder


def test_failures_of_the_client_become_sentences():
    import httpx2
    from huggingface_hub import errors

    def answer(status):
        return httpx2.Response(status, request=httpx2.Request("GET", "https://hub"))

    for error, words in [
        (errors.GatedRepoError("gated", response=answer(403)), "hf auth login` and `hf download"),
        (errors.RepositoryNotFoundError("none", response=answer(404)), "check the name"),
        (errors.RevisionNotFoundError("none", response=answer(404)), "at that revision: check the name"),
        (errors.HfHubHTTPError("limit", response=answer(429)), "asks to wait"),
        (errors.HfHubHTTPError("token", response=answer(401)), "does not know the token"),
        (errors.HfHubHTTPError("law", response=answer(451)), "read why on its page"),
        (errors.LocalEntryNotFoundError("none"), "where there is a network"),
        (errors.FileMetadataError("no commit"), "is not the Hub"),
        (httpx2.ReadTimeout("slow"), "broke again and again"),
        (PermissionError(13, "Permission denied", "/cache"), "set HF_HOME"),
        (RuntimeError("Could not determine home directory."), "set HF_HOME"),
        (ConnectionError("down"), "where there is a network"),
    ]:
        with pytest.raises(EmitDiffError, match=words), explained("owner/repo", "hf download owner/repo"):
            raise error
