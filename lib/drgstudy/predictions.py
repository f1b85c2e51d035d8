"""The predictions file: one schema for every model, so that statistics and report never ask which model predicted.

``runs/<run>/predictions.npz`` holds the test stays' ids, the truth, the labels in column order and the logits, and for
a two-label run also its 345 outputs, both in half precision: all tables and figures are made from what is in the file.
``run.json`` beside it says what made the predictions and what that cost.
"""

from __future__ import annotations

import importlib.metadata
import platform
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd

from drgstudy import provenance
from drgstudy.study import Paths, StudyError, atomic, fingerprint, first_process_first, one_line, read_json, write_json

MODEL_FILES = {".safetensors", ".npz", ".json"}
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
        DRG codes, ascending: those of v34, or of its DRG system in the early-DRG study.
    logits : numpy.ndarray of float32, shape (stays, labels)
    run : dict
        The content of ``run.json``.
    outputs : numpy.ndarray of float32, shape (stays, 345), or None
        A two-label model's outputs, from which `labels.TwoLabels` makes `logits`.

    Raises
    ------
    StudyError
        If shapes do not fit, ids or labels are not unique, labels are not ascending, a logit is not finite, or a truth
        is no index into the labels.
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
    """Versions of Python and of the main packages, as run.json records them."""
    return {"python": platform.python_version()} | {name: importlib.metadata.version(name) for name in PACKAGES}


@first_process_first()
def write_predictions(folder: Path, predictions: Predictions, model: Path | None = None) -> None:
    """Write ``predictions.npz`` into `folder`, then ``run.json``, which marks the run as complete.

    `model` is the folder of the trained model, if it is another one.
    """
    arrays = {key: getattr(predictions, key) for key in ("stay_ids", "truth", "labels", "logits", "outputs")}
    types = {"labels": str, "logits": np.float16, "outputs": np.float16}
    with atomic(folder / "predictions.npz") as beside:
        np.savez_compressed(beside, **{k: np.asarray(a, types.get(k)) for k, a in arrays.items() if a is not None})
    made = {"predictions": fingerprint(folder / "predictions.npz"), "model_files": model_files(model or folder)}
    write_json(folder / "run.json", predictions.run | made | {"versions": versions()})


def read_predictions(folder: Path, stays: Path | None = None, inputs: Path | None = None) -> Predictions:
    """Read one run; if `stays` is given, refuse predictions that were made on another cohort or other stays.

    Parameters
    ----------
    folder : Path
    stays : Path, optional
        The cohort's table as it lies there now.
    inputs : Path, optional
        The notes or measurements that the run has read besides.

    Raises
    ------
    StudyError
        If a file is missing, damaged or was edited; if the cohort or the inputs have changed since; if the stays are
        not the cohort's test stays in its order, or the truth is not what was billed.
    """
    run = read_run_json(folder, "predictions.npz", stays, inputs)
    try:
        with np.load(folder / "predictions.npz", allow_pickle=False) as arrays:
            whole = {name: a.astype(np.float32) if a.dtype == np.float16 else a for name, a in arrays.items()}
            made = Predictions(**whole, run=run)
    except StudyError:
        raise
    except Exception as error:  # numpy's, zipfile's and zlib's, each of its own kind
        raise StudyError(f"{folder / 'predictions.npz'} is damaged ({one_line(error)}); run it again") from None
    if stays is not None:
        billed = held_out(stays, run["split"], "drg" if "fold" in run else "drg_v34")
        file = provenance.relative(folder / "predictions.npz")
        if made.stay_ids.tolist() != billed.index.tolist():
            raise StudyError(f"{file} is not of the test stays of {stays.name} under {run['split']}; run it again")
        if (wrong := made.labels[made.truth] != billed.to_numpy()).any():
            stay, said = made.stay_ids[wrong][0], made.labels[made.truth][wrong][0]
            raise StudyError(f"{file} has stay {stay} billed as {said}, {stays.name} as {billed[stay]}; run it again")
    return made


def read_run_json(folder: Path, result: str, stays: Path | None = None, inputs: Path | None = None) -> dict:
    """Read a run's record; raises StudyError unless it describes the file `result`, made from `stays` and `inputs`."""
    run, file = read_json(folder / "run.json"), folder / result
    if not isinstance(run, dict) or not {"run", "dataset"} <= run.keys():
        raise StudyError(f"{folder / 'run.json'} is no run's record, for it lacks run or dataset; run it again")
    if not file.is_file() or fingerprint(file) != run.get("predictions"):
        name = provenance.relative(file)
        raise StudyError(f"{name} is missing or not the file that {folder.name}/run.json describes; run it again")
    for used, key in ((stays, "fingerprint"), (inputs, "inputs")):
        if used is not None and run["dataset"].get(key) != fingerprint(provenance.verified(used)):
            raise StudyError(
                f"run {run['run']} was made on another cohort than {provenance.relative(used)}; run it again"
            )
    provenance.USED[folder / "run.json"] = None
    return run


def model_files(folder: Path) -> dict[str, str]:
    """Fingerprints of the files that a trained model left in its run's folder, by their paths below it."""
    files = [
        file for where in ("*", "adapter/*", "frozen/*") for file in folder.glob(where) if file.suffix in MODEL_FILES
    ]
    ours = [file for file in files if file.name not in ("run.json", "predictions.npz") and file.name[0] != "."]
    return {file.relative_to(folder).as_posix(): fingerprint(file) for file in sorted(ours)}


def check_model(folder: Path, run: dict) -> None:
    """Raise StudyError if a file of the model in `folder` is not the one that `run`, a run's record, describes."""
    for name, found in model_files(folder).items():
        if found != run.get("model_files", {}).get(name):
            file = provenance.relative(folder / name)
            raise StudyError(f"{file} is not the file that run {run['run']} left there; train it again")


def held_out(stays: Path, split: str, column: str) -> pd.Series:
    """A column of a split's test stays ("test", or fold 0), indexed by stay id, in the cohort's order."""
    table = pd.read_parquet(stays, columns=["stay_id", split, column]).set_index("stay_id")
    return table.loc[table[split].isin(["test", 0]), column]


def refuse_other_split(made: Predictions, split: str) -> None:
    """Raise StudyError if a run was trained and tested under another split than this one."""
    if (under := made.run["split"]) != split:
        raise StudyError(f"run {made.run['run']!r} was trained under {under!r}; this needs one with split: {split}")


def read_runs(paths: Paths, names: list[str], split: str = "") -> dict[str, Predictions]:
    """Read the runs called `names`, in that order. All were made on this cohort and tested on the same stays.

    Raises
    ------
    StudyError
        If none is named, one has not run or was made on another cohort, two were tested on different stays, or one was
        trained under another split than `split`, if that is given.
    """
    if not names:
        raise StudyError("parameter runs: names no run; give at least one, e.g. [tfidf]")
    if missing := [name for name in names if not (paths.runs / name / "run.json").is_file()]:
        known = ", ".join(sorted(file.parent.name for file in paths.runs.glob("*/run.json"))) or "none"
        raise StudyError(f"run {missing[0]!r} has no run.json under {paths.runs}; train it, or choose of: {known}")
    runs = {name: read_predictions(paths.runs / name, paths.stays) for name in names}
    for name in names:
        if split:
            refuse_other_split(runs[name], split)
        if not np.array_equal(runs[name].stay_ids, runs[names[0]].stay_ids):
            raise StudyError(f"run {name!r} was tested on other stays than {names[0]!r}; they can't be compared")
    return runs


def read_folds(paths: Paths, run: str, hours: int = 48, whole: bool = True) -> list[Predictions]:
    """Read what each fold model of a run says of the hold-out stays at an hour, in the order of the folds.

    Raises
    ------
    StudyError
        If the run has no predictions at that hour; if they are to be `whole`, and were released with the highest logits of
        each stay alone; or as `read_predictions`.
    """
    folders = sorted((paths.runs / run).glob(f"fold-*/hour{hours:+03d}"))
    if not folders:
        raise StudyError(f"run {run!r} has no predictions at hour {hours} under {paths.runs}; train it (notebook 23)")
    made = [read_predictions(folder, *_made_from(paths, folder)) for folder in folders]
    if whole and (top := max(each.run.get("top", 0) for each in made)):
        raise StudyError(
            f"of run {run!r} at hour {hours} only the {top} highest logits of each stay are released; train it, or choose another hour"
        )
    return made


def read_weights(paths: Paths, run: str) -> list[pd.DataFrame]:
    """Read the hold-out stays' relative weights (stay_id, true, predicted), one table for each fold model."""
    files = sorted((paths.runs / run).glob("fold-*/weights.parquet"))
    if not files:
        raise StudyError(f"run {run!r} has predicted no weights under {paths.runs}; train it (notebook 23)")
    tables = []
    for file in files:
        stays, read = _made_from(paths, file.parent)
        made = read_run_json(file.parent, file.name, stays, read)
        tables.append(pd.read_parquet(file))
        true = held_out(stays, made["split"], "weight").astype("float32").rename("true").reset_index()
        if not tables[-1][["stay_id", "true"]].equals(true):
            raise StudyError(f"{provenance.relative(file)} has not the hold-out stays of {stays.name}; run it again")
    return tables


def _made_from(paths: Paths, folder: Path) -> tuple[Path, Path]:
    """The files that the run in a folder was made from: the cohort, and the notes or measurements."""
    run = read_json(folder / "run.json")
    return paths.cohort(run["system"]), paths.notes if run["reads"] == "notes" else paths.measurements
