import pytest
import torch

from emitdiff.errors import EmitDiffError
from emitdiff.segmentation.model.text import TextEncoder, build_text_encoder, pretrain_text_encoder


def test_tokens_and_mask_of_sentences_of_any_length(text_encoder):
    tokens, mask = text_encoder(["liver", "Segment the left lung, please!", ""])
    assert tokens.shape == (3, mask.shape[1], 32) and text_encoder.dim == 32
    lengths = mask.sum(1).tolist()
    assert lengths[1] > lengths[0] > lengths[2] == 2  # the two marks around every sentence


def test_padding_changes_nothing(text_encoder):
    alone, _ = text_encoder(["liver"])
    padded, mask = text_encoder(["liver", "a very much longer sentence about the left lung"])
    torch.testing.assert_close(padded[0, mask[0].bool()], alone[0], atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("strange", ["zqxwvk", "LIVER", "肝臓 🫁", "a" * 500, "line\nbreak\ttab", "leber, früh 3½"])
def test_no_wording_breaks_it(text_encoder, strange):
    tokens, mask = text_encoder([strange])
    assert torch.isfinite(tokens).all() and mask.shape[1] <= 32


def test_letters_are_pieces_so_latin_words_are_never_unknown(text_encoder):
    ids = text_encoder.tokenizer("zqxwvk hepatosplenomegaly 42")["input_ids"]
    assert text_encoder.tokenizer.unk_token_id not in ids


def test_cut_sentences_are_noticed(text_encoder):
    assert not text_encoder.is_truncated("the liver")
    assert text_encoder.is_truncated("the liver " * 40)


def test_loads_again_from_its_folder_frozen(text_encoder, tmp_path):
    text_encoder.save(tmp_path)
    loaded = TextEncoder.load(tmp_path)
    assert not any(parameter.requires_grad for parameter in loaded.parameters())
    torch.testing.assert_close(loaded(["left lung"])[0], text_encoder(["left lung"])[0], atol=2e-2, rtol=2e-2)


def test_clinical_bert_is_taken_at_one_commit_or_asked_for(monkeypatch, tmp_path):
    monkeypatch.setenv("HF_HOME", str(tmp_path))
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path))
    with pytest.raises(EmitDiffError, match="hf download emilyalsentzer/Bio_ClinicalBERT --revision [0-9a-f]{40}`"):
        TextEncoder.load()


def test_a_clip_text_model_serves_as_well(tmp_path):
    from transformers import CLIPTextConfig, CLIPTextModel

    pieces = build_text_encoder(["liver", "left lung"] * 5, dim=32, layers=1).tokenizer
    config = CLIPTextConfig(vocab_size=len(pieces), hidden_size=16, intermediate_size=16, num_hidden_layers=1,
                            num_attention_heads=2, max_position_embeddings=32)  # fmt: skip
    tokens, _ = TextEncoder(CLIPTextModel(config).eval(), pieces)(["left lung", "liver"])
    assert tokens.shape[::2] == (2, 16)


def test_names_learnt_from_words_are_told_apart_and_the_encoder_is_frozen(text_encoder):
    names, words = ("left lung", "right lung", "liver", "spleen"), ("{}", "the {}", "{} only", "show {}")
    rng = torch.Generator().manual_seed(0)

    def draw(count):
        picks = torch.randint(len(words), (count,), generator=rng).tolist()
        return [words[pick].format(names[index % len(names)]) for index, pick in enumerate(picks)]

    loss = pretrain_text_encoder(text_encoder, draw, len(names), steps=300, batch=16)
    assert loss < 0.3 < torch.log(torch.tensor(4.0))  # far below guessing
    assert not any(parameter.requires_grad for parameter in text_encoder.parameters())

    def meant(sentences):
        tokens, mask = text_encoder(sentences)
        return (tokens * mask[..., None]).sum(1) / mask.sum(1, keepdim=True)

    taught, asked = meant(list(names)), meant([f"show the {name}" for name in names])
    assert torch.cdist(asked, taught).argmin(1).tolist() == [0, 1, 2, 3]
