"""A mask as annotations of COCO."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import cv2
import numpy as np


def coco_annotations(mask: np.ndarray) -> Iterator[dict[str, Any]]:
    """One annotation per connected component (8 neighbours) of every class in a mask, class ids uint8 (H, W).

    `segmentation` is COCO's compressed run-length code, which keeps holes and single pixels where polygons would not;
    `bbox` is [left, top, width, height] and `area` the number of pixels.
    """
    from pycocotools import mask as coco

    for label in np.unique(mask[mask > 0]).tolist():
        count, pieces = cv2.connectedComponents((mask == label).astype(np.uint8), connectivity=8)
        for piece in range(1, count):
            code = coco.encode(np.asfortranarray(pieces == piece, dtype=np.uint8))
            yield {
                "category_id": label,
                "segmentation": {"size": list(mask.shape), "counts": code["counts"].decode("ascii")},
                "bbox": coco.toBbox(code).tolist(),
                "area": int(coco.area(code)),
                "iscrowd": 0,
            }
