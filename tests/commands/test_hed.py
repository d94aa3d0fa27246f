"""The commands of HED."""

from command_line import run


def test_edges_of_hed_say_which_network_drew_them(disc_files, monkeypatch, tmp_path, capsys):
    from emitdiff.synthesis.hed.mini import MiniNetwork, save_hed_mini

    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path / "hub"))
    monkeypatch.setenv("EMITDIFF_HED", str(tmp_path / "hed"))
    monkeypatch.setenv("EMITDIFF_CHECKPOINTS", str(tmp_path))
    (tmp_path / "hed-mini").mkdir()
    save_hed_mini(MiniNetwork(), tmp_path / "hed-mini", {})
    for detector in ("hed", "hed-mini"):
        assert run(monkeypatch, "edges", disc_files[0], "--detector", detector, "-o", tmp_path / detector) == 0
        assert "drawn by HED: hed-mini" in capsys.readouterr().err
    assert run(monkeypatch, "edges", disc_files[0], "-o", tmp_path / "soft") == 0
    assert "drawn by" not in capsys.readouterr().err
    made = [(tmp_path / name / "edges_disc.png").read_bytes() for name in ("hed", "hed-mini", "soft")]
    assert made[0] == made[1] != made[2]


def test_hed_is_converted_from_the_command_line(monkeypatch, tmp_path, capsys):
    import torch

    from emitdiff.synthesis.hed.network import HedNetwork

    torch.save(HedNetwork().state_dict(), tmp_path / "ControlNetHED.pth")
    monkeypatch.setenv("EMITDIFF_HED", str(tmp_path / "hed"))
    assert run(monkeypatch, "convert-hed", tmp_path / "ControlNetHED.pth") == 0
    assert str(tmp_path / "hed") in capsys.readouterr().out
    assert sorted(path.name for path in (tmp_path / "hed").iterdir()) == ["config.json", "model.safetensors"]
    assert run(monkeypatch, "convert-hed", tmp_path / "nothing.whl") == 2
    assert "There is no file" in capsys.readouterr().err
