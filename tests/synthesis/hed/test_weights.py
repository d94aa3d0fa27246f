"""Where the weights of HED lie."""

from emitdiff.errors import EmitDiffError
from emitdiff.hub import HubPart
from emitdiff.synthesis.hed import weights


def test_hed_comes_along_from_the_hub_where_it_can_and_nothing_fails_where_it_cannot(monkeypatch, tmp_path):
    asked = []

    def fetch(parts, progress):
        asked.extend(parts)
        raise EmitDiffError("the line broke")

    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path))
    monkeypatch.setattr(weights, "fetch", fetch)
    monkeypatch.setenv("EMITDIFF_HED", str(tmp_path / "hed"))
    weights.fetch_hed()
    assert asked == [HubPart("lllyasviel/Annotators", weights.ANNOTATORS[1], ("ControlNetHED.pth",))]
    (tmp_path / "hed").mkdir()
    (tmp_path / "hed" / "model.safetensors").touch()
    weights.fetch_hed()
    assert len(asked) == 1


def test_the_converted_hed_lies_where_the_user_says_or_in_the_users_cache(monkeypatch, tmp_path):
    monkeypatch.setenv("EMITDIFF_HED", str(tmp_path))
    assert weights.hed_folder() == tmp_path
    monkeypatch.delenv("EMITDIFF_HED")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    assert weights.hed_folder() == tmp_path / "cache" / "emitdiff" / "hed"
    monkeypatch.delenv("XDG_CACHE_HOME")
    monkeypatch.setenv("HOME", str(tmp_path))
    assert weights.hed_folder() == tmp_path / ".cache" / "emitdiff" / "hed"
