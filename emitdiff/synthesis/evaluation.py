"""Fidelity and diversity of synthetic images relative to their source images."""

from __future__ import annotations

import json
import time
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from monai.metrics import MultiScaleSSIMMetric, SSIMMetric
from tqdm import tqdm

from emitdiff.datasets.fingerprint import dataset_sha256
from emitdiff.datasets.folder import DatasetFolder, DatasetInfo, Sample, open_dataset
from emitdiff.datasets.splits import choose_rows
from emitdiff.errors import EmitDiffError
from emitdiff.images import control_to_tensor, image_to_tensor, resize_image, resize_mask, tensor_to_image
from emitdiff.synthesis.edges import edge_f1, edge_ridges
from emitdiff.synthesis.loading import load_synthesizer
from emitdiff.synthesis.pipeline import SynthesisPipeline
from emitdiff.synthesis.prompts import prompt_of
from emitdiff.synthesis.realism import SETS, SPECTRUM, FeatureExtractor, Realism, spectrum_gap
from emitdiff.synthesis.similarity import LabelPredictor, mean_dice
from emitdiff.synthesis_settings import SynthesisSettings

VARIANTS = 2
QUICK_SIDE = 256  # pixels of the short side on which images are compared while a user waits
MEASURES = ("edge_f1", "ssim", "ms_ssim", "mae", "pairwise_ms_ssim")
SEGMENTER_MEASURES = ("segmenter_dice", "segmenter_dice_source")
AUTOENCODER_MEASURES = ("autoencoder_psnr", "autoencoder_ssim", "autoencoder_edge_f1")
ALONE = "autoencoder_"  # in front of what is measured on the real image encoded and decoded


@dataclass(frozen=True)
class EvaluateSynthesis:
    """Settings of `evaluate_synthesis`. `split` is "all", "held-out" or "train" (as `split_by_group` with the
    fraction and seed the checkpoint records); `limit` takes that many images spread evenly over the split."""

    dataset: Path
    checkpoint: str = "emitdiff-mini"
    split: str = "all"
    limit: int | None = None
    seed: int = 0
    steps: int | None = None
    guidance: float | None = None
    json: bool = False


def image_similarity(first: np.ndarray, second: np.ndarray) -> dict[str, float]:
    """SSIM, MS-SSIM and MAE of two uint8 (H, W, 3) images on a 0..1 scale; sides of at least 11 pixels.

    MS-SSIM takes the five scales of Wang et al. 2003 from 176 pixels up and fewer below, weights renormalized.
    """
    one, two = (control_to_tensor(image).contiguous() for image in (first, second))
    weights = (0.0448, 0.2856, 0.3001, 0.2363, 0.1333)
    # MONAI wants each side, divided by (scales - 1) squared, to exceed the kernel of 11 pixels.
    scales = max(n for n in range(1, len(weights) + 1) if n == 1 or min(first.shape[:2]) // (n - 1) ** 2 > 10)
    kept = tuple(weight / sum(weights[:scales]) for weight in weights[:scales])
    metrics: dict[str, Any] = {
        "ssim": SSIMMetric(spatial_dims=2), "ms_ssim": MultiScaleSSIMMetric(spatial_dims=2, weights=kept)
    }  # fmt: skip
    return {
        **{name: metric(one, two).item() for name, metric in metrics.items()},
        "mae": (one - two).abs().mean().item(),
    }


def edge_preservation(source: np.ndarray, other: np.ndarray) -> float:
    """Edge F1 of two uint8 (H, W, 3) images: one-pixel ridges of their soft edges, tolerance 2 pixels at 256."""
    tolerance = max(1, round(2 * min(source.shape[:2]) / 256))
    return edge_f1(edge_ridges(source), edge_ridges(other), tolerance)


def measure_pair(source: np.ndarray, synthetic: np.ndarray) -> dict[str, float]:
    """SSIM, MS-SSIM, MAE and edge F1 of two uint8 (H, W, 3) of one size, as they are."""
    return {**image_similarity(source, synthetic), "edge_f1": edge_preservation(source, synthetic)}


def quick_scores(source: np.ndarray, synthetic: np.ndarray) -> dict[str, float]:
    """`measure_pair` of two uint8 (H, W, 3) of one size, shrunk to a short side of 256 where they are larger.

    Raises EmitDiffError for different sizes, and for sides below 11 pixels, which no window of SSIM fits in.
    """
    if source.shape != synthetic.shape or min(source.shape[:2]) < 11:
        sizes = " and ".join(f"{image.shape[1]} x {image.shape[0]}" for image in (source, synthetic))
        raise EmitDiffError(f"Images of {sizes} pixels cannot be compared: one size of at least 11 x 11 is needed.")
    scale = min(1.0, QUICK_SIDE / min(source.shape[:2]))
    size = tuple(max(11, round(side * scale)) for side in source.shape[:2])
    return measure_pair(resize_image(source, size), resize_image(synthetic, size))


@torch.inference_mode()
def autoencoded(pipeline: SynthesisPipeline, image: np.ndarray) -> np.ndarray:
    """What the autoencoder alone makes of uint8 (H, W, 3), sides multiples of 8: uint8 (H, W, 3), with grain where the
    checkpoint adds it.

    Nothing generated with it can be sharper than that.
    """
    vae = pipeline.pipe.vae
    encoded = vae.encode(image_to_tensor(image).to(vae.device, vae.dtype))
    latents = encoded.latents if hasattr(encoded, "latents") else encoded.latent_dist.mode()
    return tensor_to_image(pipeline.with_grain(vae.decode(latents).sample[0].float().clamp(-1, 1).cpu(), 0))


def round_trip(image: np.ndarray, decoded: np.ndarray) -> dict[str, float]:
    """PSNR in dB, SSIM, edge F1 and the spectrum of `decoded` against `image`, uint8 (H, W, 3) both."""
    error = np.mean((image.astype(np.float64) - decoded) ** 2)
    found = {
        "psnr": float(10 * np.log10(255**2 / max(error, 1e-3))),
        "ssim": image_similarity(image, decoded)["ssim"],
        "edge_f1": edge_preservation(image, decoded),
        **spectrum_gap(image, decoded),
    }
    return {ALONE + name: value for name, value in found.items()}


def measure_sample(
    pipeline: SynthesisPipeline,
    sample: Sample,
    info: DatasetInfo,
    settings: SynthesisSettings,
    predict_labels: LabelPredictor | None = None,
    realism: Realism | None = None,
) -> dict[str, float]:
    """Generates `VARIANTS` images from one sample's edges, mask and prompt; mean of each measure at the working size.

    `predict_labels` is a segmenter (see similarity.py): its Dice with the mask on the generated images and on the
    source is added, NaN for an image without any label. `realism` is given the images as well. Of `settings` the prompt
    and the number of images are set here.
    """
    size = pipeline.working_size(*sample.mask.shape)
    source, mask = resize_image(sample.image, size), resize_mask(sample.mask, size)
    prompt = prompt_of(info, mask, sample.finding)
    started = time.perf_counter()
    painted = pipeline(source, mask, settings, prompt=prompt, num_images=VARIANTS)
    seconds = time.perf_counter() - started
    rows = [measure_pair(source, one.image) | spectrum_gap(source, one.image) for one in painted]
    means = {name: float(np.mean([row[name] for row in rows])) for name in rows[0]}
    means["pairwise_ms_ssim"] = image_similarity(painted[0].image, painted[1].image)["ms_ssim"]
    if predict_labels is not None:
        found = [mean_dice(predict_labels(replace(sample, image=one.image, mask=mask))) for one in painted]
        real = mean_dice(predict_labels(replace(sample, image=source, mask=mask)))
        means |= {
            "segmenter_dice": np.nan if real is None else float(np.mean([dice for dice in found if dice is not None])),
            "segmenter_dice_source": np.nan if real is None else real,
        }
    decoded = autoencoded(pipeline, source)
    if realism is not None:
        realism.add(sample.group, source, [one.image for one in painted], decoded)
    return {**means, **round_trip(source, decoded), "seconds": seconds}


def evaluate_synthesis(
    settings: EvaluateSynthesis, predict_labels: LabelPredictor | None = None, extract: FeatureExtractor | None = None
) -> dict:
    """Measures a checkpoint on a dataset folder, prints a table and, with `json`, one JSON object as the last line.

    `predict_labels` is a segmenter that is asked for the masks of generated and real images, see similarity.py;
    `extract` gives the features in which `kid` is measured, see realism.py. "sd" in the result holds the spread of each
    measure: over the images, for `kid` over a bootstrap of groups, for `two_sample_accuracy` over its folds.

    Raises:
        EmitDiffError: unreadable dataset, unknown checkpoint, or a split with no images.
    """
    dataset = open_dataset(settings.dataset).real()
    if not len(dataset):
        raise EmitDiffError(
            f"{settings.dataset} holds synthetic images alone; give the dataset they were generated from."
        )
    pipeline = load_synthesizer(settings.checkpoint)
    training = pipeline.checkpoint_card.training
    chosen = choose_rows(
        dataset, settings.split, settings.limit, training.get("held_out", 0.2), training.get("split_seed", 0)
    )
    asked = SynthesisSettings(num_inference_steps=settings.steps, guidance_scale=settings.guidance)
    rows, realism = [], Realism(extract)
    for index in tqdm(range(len(chosen)), desc=f"generating {dataset.info.name}", unit="image"):
        own = asked.replace(seed=settings.seed + index * VARIANTS)
        rows.append(measure_sample(pipeline, chosen[index], dataset.info, own, predict_labels, realism))
    result = summary(rows, realism)
    result |= {"n": len(rows), "groups": len(set(chosen.groups))}
    result["images_per_second"] = round(VARIANTS * len(rows) / sum(row["seconds"] for row in rows), 3)
    print_table(settings, dataset, result)
    if settings.split != "held-out" and dataset.info.name in {row["name"] for row in training.get("datasets", ())}:
        print(
            f"Note: {settings.checkpoint} was trained on part of this dataset; use --split held-out for fair figures."
        )
    if settings.json:
        used = {**asdict(settings), "dataset": dataset.info.name, "dataset_sha256": dataset_sha256(chosen)}
        print(json.dumps({**result, "settings": {**used, "weights_sha256": pipeline.weights}}))
    return result


def summary(rows: list[dict[str, float]], realism: Realism) -> dict:
    """Every measure by name, and under "sd" its spread; None where no image has it or the groups are too few."""
    found = {name: over_images(rows, name) for name in rows[0] if name != "seconds"} | realism.scores()
    told = {
        name: [None if np.isnan(number) else round(number, places(name)) for number in score]
        for name, score in found.items()
    }
    values, spreads = ({name: score[part] for name, score in told.items()} for part in (0, 1))
    return {**values, "sd": spreads}


def over_images(rows: list[dict[str, float]], name: str) -> tuple[float, float]:
    """Mean and standard deviation of a measure over the images that have it; NaN where none has."""
    values = [row[name] for row in rows if not np.isnan(row[name])]
    return (float(np.mean(values)), float(np.std(values))) if values else (np.nan, np.nan)


def places(name: str) -> int:
    """Decimal places that a measure is told with; kernel distances are small."""
    return 6 if name.endswith("kid") else 4


def print_table(settings: EvaluateSynthesis, dataset: DatasetFolder, result: dict) -> None:
    """Every measure and its spread."""
    count = f"{result['n']} images of {result['groups']} groups"
    print(f"\n{settings.checkpoint} on {dataset.info.name}, {settings.split}: {count} x {VARIANTS} variants")
    alone = (*AUTOENCODER_MEASURES, *(ALONE + name for name in (*SPECTRUM, *SETS)))
    for name in (*MEASURES, *SPECTRUM, *SETS, *alone, *SEGMENTER_MEASURES):
        if result.get(name) is not None:
            number, spread = (f"{value:.{places(name)}f}" for value in (result[name], result["sd"][name]))
            print(f"  {name:33} {number:>8} +- {spread}")
    print(f"  {'images_per_second':33} {result['images_per_second']:8.3f}")
