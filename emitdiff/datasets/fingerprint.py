"""Which images and masks exactly a run read: one sha256 for a dataset folder, and the record it is compared with."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Mapping
from dataclasses import asdict
from pathlib import Path

from emitdiff.checksums import SHORT, sha256_of
from emitdiff.datasets.folder import DatasetFolder
from emitdiff.datasets.rows import PATH_COLUMNS
from emitdiff.errors import EmitDiffError
from emitdiff.files import make_folder, read_record, write_text

HASHES = "hashes.json"  # in the folder of a run: sha256 of the weights and of the datasets it began with, by name


def dataset_sha256(dataset: DatasetFolder) -> str:
    """One sha256 for dataset.json, the rows and the files that the rows name: another as soon as a bit changes. A file
    that is not there counts as empty; whoever reads it says so."""
    digest = hashlib.sha256(json.dumps([asdict(dataset.info), dataset.rows], sort_keys=True).encode())
    for row in dataset.rows:
        for column in PATH_COLUMNS:
            path = dataset.path(row[column])
            digest.update((sha256_of(path) if path.is_file() else "").encode())
    return digest.hexdigest()


def check_hashes(
    path: Path, out: str | Path, weights: Mapping[str, str], datasets: Iterable[DatasetFolder]
) -> dict[str, dict[str, str]]:
    """Compares weights (sha256 by name) and datasets with those that the run in the folder `out` began with, as the
    file `path` has it, and adds those that are new to it. Returns what it says then.

    Raises:
        EmitDiffError: weights or images were changed since; the names alone would not tell.
    """
    before = read_record(path, out) or {}
    now = {"weights": dict(weights), "datasets": {one.info.name: dataset_sha256(one) for one in datasets}}
    for kind, hashes in now.items():
        earlier = before.get(kind, {})
        for name, found in hashes.items():
            if earlier.get(name, found) != found:
                raise EmitDiffError(
                    f"The {kind} {name} are not those that {out} was started with (sha256 {earlier[name][:SHORT]}..., "
                    f"now {found[:SHORT]}...). Give another folder, or the original {kind}."
                )
    merged = {kind: {**before.get(kind, {}), **hashes} for kind, hashes in now.items()}
    if merged != before:
        make_folder(path.parent, named=out)
        write_text(path, json.dumps(merged, indent=1, ensure_ascii=False) + "\n")
    return merged
