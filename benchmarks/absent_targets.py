"""How often a mask is drawn for a target that an image cannot show.

    python -m benchmarks.absent_targets DATASET [DATASET ...] --limit 12

Every held-out image is asked for every target that its image kind never shows ("liver" in a chest X-ray), and for
its own targets, where "not found" would be wrong.
"""

from __future__ import annotations

import argparse
from pathlib import Path

from tqdm import tqdm

from emitdiff.datasets.folder import open_dataset
from emitdiff.datasets.splits import choose_rows
from emitdiff.segmentation.loading import load_segmenter
from emitdiff.segmentation.vocabulary import absent_targets, target_masks


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("datasets", nargs="+", type=Path)
    parser.add_argument("--checkpoint", default="textdiff-mini")
    parser.add_argument("--limit", type=int, default=None, help="images of each dataset")
    arguments = parser.parse_args()
    pipeline = load_segmenter(arguments.checkpoint)
    totals = [0, 0, 0, 0]
    print(f"{'dataset':22} {'absent: mask drawn':>20} {'present: not found':>20}")
    for folder in arguments.datasets:
        dataset = choose_rows(open_dataset(folder), "held-out", arguments.limit)
        counts = [0, 0, 0, 0]
        for sample in tqdm(dataset, desc=dataset.info.name, leave=False):
            encoded = pipeline.encode(sample.image)
            for target in absent_targets(dataset.info):
                counts[0] += pipeline.segment(encoded, target.phrase).found
                counts[1] += 1
            for phrase, mask in target_masks(sample, dataset.info).items():
                if mask.any():
                    counts[2] += not pipeline.segment(encoded, phrase).found
                    counts[3] += 1
        print(f"{dataset.info.name:22} {counts[0]:>12} of {counts[1]:4} {counts[2]:>12} of {counts[3]:4}", flush=True)
        totals = [total + count for total, count in zip(totals, counts, strict=True)]
    print(f"{'all':22} {totals[0]:>12} of {totals[1]:4} {totals[2]:>12} of {totals[3]:4}")


if __name__ == "__main__":
    main()
