"""Small pictures drawn by a program, a small dataset folder, and a whole tiny pipeline built from the real classes."""

from __future__ import annotations

import csv
import json
import os
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

os.environ.setdefault("HF_HUB_OFFLINE", "1")  # a test that needs the Hub fails at once, on every machine alike
if "PYTEST_XDIST_WORKER" in os.environ:
    os.environ.setdefault("OMP_NUM_THREADS", "1")  # the workers share the cores; before torch is imported


def draw_disc(side: int = 64, centre: tuple[float, float] = (0.5, 0.5), radius: float = 0.25, seed: int = 0):
    """A bright disc on a dark, speckled ground: uint8 (side, side, 3) and its mask, uint8 (side, side) of 0 and 1."""
    rows, columns = np.mgrid[0:side, 0:side] / side
    mask = ((rows - centre[0]) ** 2 + (columns - centre[1]) ** 2 <= radius**2).astype(np.uint8)
    speckle = np.random.default_rng(seed).normal(0, 12, (side, side))
    grey = np.clip(60 + 120 * mask + speckle, 0, 255).astype(np.uint8)
    return np.repeat(grey[..., None], 3, axis=-1), mask


@pytest.fixture
def disc() -> tuple[np.ndarray, np.ndarray]:
    """A picture, uint8 (64, 64, 3), and its mask, uint8 (64, 64)."""
    return draw_disc()


@pytest.fixture
def disc_files(tmp_path: Path, disc) -> tuple[Path, Path]:
    """The paths of a picture and of its mask (0/255), both PNG."""
    image, mask = disc
    Image.fromarray(image).save(tmp_path / "disc.png")
    Image.fromarray(mask * 255).save(tmp_path / "disc_mask.png")
    return tmp_path / "disc.png", tmp_path / "disc_mask.png"


@pytest.fixture(scope="session")
def dataset_folder(tmp_path_factory) -> Path:
    """A dataset folder with 10 pictures of 64 x 64 in 5 groups, one class, no text in every other row."""
    folder = tmp_path_factory.mktemp("data") / "discs"
    for name in ("images", "masks"):
        (folder / name).mkdir(parents=True)
    info = {
        "name": "discs",
        "modality": "Ultrasound",
        "organ": "breast",
        "labels": {"background": 0, "lesion": 1},
        "licence": "CC0",
        "citation": "drawn by a program",
    }
    (folder / "dataset.json").write_text(json.dumps(info))
    places = np.random.default_rng(0).uniform(0.35, 0.65, (10, 2))
    with open(folder / "metadata.csv", "w", newline="") as file:
        table = csv.DictWriter(file, ["file_name", "mask", "group", "finding", "text"])
        table.writeheader()
        for index, place in enumerate(places):
            image, mask = draw_disc(centre=tuple(place), radius=0.15 + 0.01 * index, seed=index)
            row = {"file_name": f"images/{index}.png", "mask": f"masks/{index}.png", "group": str(index // 2)}
            Image.fromarray(image).save(folder / row["file_name"])
            Image.fromarray(mask).save(folder / row["mask"])
            table.writerow({**row, "finding": "benign", "text": "breast lesion" if index % 2 else ""})
    return folder


@pytest.fixture(scope="session")
def tiny_synthesis_folder(tmp_path_factory) -> Path:
    """A whole Stable Diffusion with ControlNet of the real classes: tiny, random weights, saved in diffusers layout.

    Latents are 8 times smaller than images, as in the full-size model; the seed is fixed.
    """
    import torch
    from diffusers import (
        AutoencoderKL,
        ControlNetModel,
        DDIMScheduler,
        StableDiffusionControlNetPipeline,
        UNet2DConditionModel,
    )
    from transformers import CLIPTextConfig, CLIPTextModel

    torch.manual_seed(0)
    channels = (32, 32, 32, 32)
    tokenizer = tiny_tokenizer(tmp_path_factory.mktemp("tokenizer"))
    text = CLIPTextConfig(
        vocab_size=len(tokenizer),
        hidden_size=32,
        intermediate_size=37,
        num_attention_heads=4,
        num_hidden_layers=2,
        max_position_embeddings=77,
        bos_token_id=tokenizer.bos_token_id,
        eos_token_id=tokenizer.eos_token_id,
    )
    unet = UNet2DConditionModel(
        sample_size=8,
        block_out_channels=(32, 64),
        layers_per_block=1,
        down_block_types=("DownBlock2D", "CrossAttnDownBlock2D"),
        up_block_types=("CrossAttnUpBlock2D", "UpBlock2D"),
        cross_attention_dim=32,
    )
    pipeline = StableDiffusionControlNetPipeline(
        vae=AutoencoderKL(
            block_out_channels=channels,
            down_block_types=("DownEncoderBlock2D",) * 4,
            up_block_types=("UpDecoderBlock2D",) * 4,
            latent_channels=4,
        ),
        text_encoder=CLIPTextModel(text),
        tokenizer=tokenizer,
        unet=unet,
        controlnet=ControlNetModel.from_unet(unet),
        scheduler=DDIMScheduler(beta_schedule="scaled_linear", beta_start=0.00085, beta_end=0.012, clip_sample=False),
        safety_checker=None,
        feature_extractor=None,
        requires_safety_checker=False,
    )
    folder = tmp_path_factory.mktemp("checkpoint") / "tiny"
    pipeline.save_pretrained(folder)
    return folder


def tiny_tokenizer(folder: Path):
    """A CLIPTokenizer of single letters: a few words fill its 77 places."""
    from transformers import CLIPTokenizer

    letters = [chr(code) for code in range(33, 127)]
    tokens = ["<|startoftext|>", "<|endoftext|>", *letters, *(f"{letter}</w>" for letter in letters)]
    (folder / "vocab.json").write_text(json.dumps({token: index for index, token in enumerate(tokens)}))
    (folder / "merges.txt").write_text("#version: 0.2\n")
    return CLIPTokenizer(str(folder / "vocab.json"), str(folder / "merges.txt"), model_max_length=77)
