"""The predictions file: one schema for every model, so that statistics and report never ask who predicted.

``runs/<run>/predictions.npz`` holds the test stays' ids, the truth, the labels in column order and the logits, of a
two-label run also its 345 outputs;
``run.json`` beside it says what made them and what that cost.
"""

from __future__ import annotations

import importlib.metadata
import platform
import shutil
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from drgstudy.study import StudyError, atomic, fingerprint, first_process_first, read_json, write_json

PACKAGES = ("torch", "transformers", "peft", "scikit-learn", "numpy", "pandas")


@dataclass(frozen=True)
class Predictions:
    """One run's predictions on the test stays.

    Attributes
    ----------
    stay_ids : numpy.ndarray of int64, shape (stays,)
    truth : numpy.ndarray of int64, shape (stays,)
        Index into `labels` of each stay's billed DRG.
    labels : numpy.ndarray of str, shape (labels,)
        DRG codes, ascending: v34's, or in the early study those of its system.
    logits : numpy.ndarray of float32, shape (stays, labels)
    run : dict
        The content of ``run.json``.
    outputs : numpy.ndarray of float32, shape (stays, 345), or None
        What a two-label model said, from which `labels.TwoLabels` makes `logits`.
    """

    stay_ids: np.ndarray
    truth: np.ndarray
    labels: np.ndarray
    logits: np.ndarray
    run: dict
    outputs: np.ndarray | None = None

    def __post_init__(self):
        n, k = len(self.stay_ids), len(self.labels)
        name = self.run.get("run", "?")
        if self.logits.shape != (n, k) or self.truth.shape != (n,):
            raise StudyError(
                f"run {name}: {n} stays and {k} labels do not fit logits {self.logits.shape}, truth {self.truth.shape}"
            )
        if len(set(self.stay_ids.tolist())) != n or list(self.labels) != sorted(set(self.labels.tolist())):
            raise StudyError(f"run {name}: stay ids must be unique, labels unique and ascending")
        if not np.isfinite(self.logits).all():
            raise StudyError(f"run {name}: logits hold a NaN or an infinity; the training diverged")
        if n and not (self.truth.min() >= 0 and self.truth.max() < k):
            raise StudyError(f"run {name}: truth points outside the {k} labels")


def versions() -> dict[str, str]:
    """Python's and the main packages' versions, as run.json records them."""
    return {"python": platform.python_version()} | {name: importlib.metadata.version(name) for name in PACKAGES}


@first_process_first()
def write_predictions(folder: Path, predictions: Predictions) -> None:
    """Write ``predictions.npz``, then ``run.json``, which marks the run as complete: its checkpoints are then removed."""
    arrays = {key: getattr(predictions, key) for key in ("stay_ids", "truth", "labels", "logits", "outputs")}
    types = {"labels": str, "logits": np.float32, "outputs": np.float32}
    with atomic(folder / "predictions.npz") as beside:
        np.savez_compressed(beside, **{k: np.asarray(a, types.get(k)) for k, a in arrays.items() if a is not None})
    digest = fingerprint(folder / "predictions.npz")
    write_json(folder / "run.json", predictions.run | {"predictions": digest, "versions": versions()})
    for checkpoints in folder.glob("checkpoints-*"):
        shutil.rmtree(checkpoints)


def read_predictions(folder: Path, stays: Path | None = None) -> Predictions:
    """Read one run; with `stays`, refuse predictions that were made on another cohort.

    Raises
    ------
    StudyError
        If a file is missing, damaged or was edited, or if the cohort has changed since.
    """
    run = read_json(folder / "run.json")
    file = folder / "predictions.npz"
    if not file.is_file() or fingerprint(file) != run["predictions"]:
        raise StudyError(f"{file} is missing or not the file that {folder.name}/run.json describes; run it again")
    if stays is not None and run["dataset"]["fingerprint"] != fingerprint(stays):
        raise StudyError(f"run {run['run']} was made on another cohort than {stays}; run it again")
    with np.load(file, allow_pickle=False) as arrays:
        return Predictions(**arrays, run=run)
