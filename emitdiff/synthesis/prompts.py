"""What to generate, in words: modality, organ, finding and appearance make a prompt, as in EMIT-Diff ("Prostate,
MRI")."""

from __future__ import annotations

import numpy as np

from emitdiff.datasets.folder import DatasetInfo

MODALITIES = ("Ultrasound", "MRI", "CT", "X-ray", "Microscopy")
ORGANS = ("breast", "prostate", "heart", "abdomen", "chest", "nuclei")
FINDINGS = (
    "benign lesion", "malignant lesion", "normal", "prostate", "left ventricle", "liver", "pancreas", "spleen",
    "tuberculosis", "COVID-19", "fluorescence", "stained tissue",
)  # fmt: skip
APPEARANCES = (
    "dark", "bright", "low contrast", "high contrast", "smooth", "noisy", "blurred", "sharp",
)  # fmt: skip


# Words that make a prompt of the image kinds the embedded weights were trained on: modality, organ, finding,
# appearance.
EXAMPLE_WORDS = (
    ("X-ray", "chest", "normal", ""),
    ("X-ray", "chest", "tuberculosis", "low contrast"),
    ("CT", "abdomen", "liver", ""),
    ("CT", "abdomen", "pancreas", "noisy"),
    ("CT", "abdomen", "spleen", ""),
    ("MRI", "heart", "left ventricle", ""),
    ("MRI", "prostate", "prostate", "high contrast"),
    ("Ultrasound", "breast", "benign lesion", ""),
    ("Ultrasound", "breast", "malignant lesion", "dark"),
    ("Microscopy", "nuclei", "fluorescence", ""),
    ("Microscopy", "nuclei", "stained tissue", "bright"),
)


# How a finding column's own codes are said in a prompt; anything else is said as it is written.
FINDING_NAMES = {"histology_or_purple": "stained tissue", "brightfield_grey": "brightfield"}


def compose_prompt(
    modality: str = "", organ: str = "", finding: str = "", appearance: str = "", free_text: str = ""
) -> str:
    """Joins what is given with commas: "CT, abdomen, liver, high contrast". Nothing given makes an empty prompt."""
    parts = (modality, organ, finding, appearance, free_text)
    return ", ".join(part.strip().strip(",") for part in parts if part and part.strip(" ,"))


def prompt_of(info: DatasetInfo, mask: np.ndarray, finding: str = "") -> str:
    """The prompt a dataset row stands for: modality, organ, finding and the labels present in the mask (H, W)."""
    present = [name for name, label in info.labels.items() if label and (mask == label).any()]
    return compose_prompt(info.modality, info.organ, FINDING_NAMES.get(finding, finding), "", ", ".join(present))


def count_tokens(prompt: str, tokenizer) -> tuple[int, int]:
    """How many tokens a transformers tokenizer makes of the prompt, with those of start and end, and how many are
    read."""
    return len(_token_ids(prompt, tokenizer)), tokenizer.model_max_length


def _token_ids(prompt: str, tokenizer) -> list[int]:
    return tokenizer(prompt, truncation=False, add_special_tokens=True)["input_ids"]


def truncation_warning(prompt: str, tokenizer) -> str:
    """A sentence naming what a transformers tokenizer would cut off the end of the prompt, or "" if nothing."""
    ids, limit = _token_ids(prompt, tokenizer), tokenizer.model_max_length
    if len(ids) <= limit:
        return ""
    lost = tokenizer.decode(ids[limit - 1 : -1]).strip()
    return f"The prompt has {len(ids)} tokens, the limit is {limit}; truncated: “{lost}”."
