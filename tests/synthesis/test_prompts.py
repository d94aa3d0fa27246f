import numpy as np

from emitdiff.datasets.folder import DatasetInfo
from emitdiff.synthesis.prompts import compose_prompt, prompt_of, truncation_warning


def test_parts_are_joined_in_order_and_empty_ones_left_out():
    assert compose_prompt("CT", "abdomen", "liver", "", " high contrast, ") == "CT, abdomen, liver, high contrast"
    assert compose_prompt() == ""


def test_a_row_becomes_modality_organ_finding_and_the_labels_in_its_mask():
    info = DatasetInfo("x", "CT", "abdomen", {"background": 0, "liver": 1, "spleen": 2})
    mask = np.zeros((4, 4), np.uint8)
    assert prompt_of(info, mask) == "CT, abdomen"
    mask[0] = 2
    assert prompt_of(info, mask, "normal") == "CT, abdomen, normal, spleen"


def test_a_long_prompt_is_warned_about_with_what_is_lost(tiny_synthesis_folder):
    from transformers import CLIPTokenizer

    tokenizer = CLIPTokenizer.from_pretrained(tiny_synthesis_folder / "tokenizer")
    assert truncation_warning("CT", tokenizer) == ""
    prompt = " ".join(["liver"] * 100 + ["zebra"])
    count = len(tokenizer(prompt).input_ids)
    warning = truncation_warning(prompt, tokenizer)
    assert str(count) in warning and "zebra" in warning.replace(" ", "")
