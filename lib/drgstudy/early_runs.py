"""Runs of the early-DRG study: one model trained once a fold, and what it says at different hours of the stay.

``runs/<run>/fold-<k>/`` holds the model that was trained without fold k, and below it one predictions file an hour,
``hour+48/`` and so on, of the hold-out stays as they were known then; a model of the relative weight leaves
``weights.parquet`` instead.
"""

from __future__ import annotations

import contextlib
import shutil
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pandas as pd

from drgstudy import casemix, cohort, drgs, early, measurements, models, provenance
from drgstudy.labels import LabelSpace
from drgstudy.predictions import (
    Predictions,
    check_model,
    held_out,
    model_files,
    read_predictions,
    read_run_json,
    write_predictions,
)
from drgstudy.study import (
    EarlyPaths,
    StudyError,
    atomic,
    fingerprint,
    first_process_first,
    peak_memory_gb,
    read_json,
    write_json,
)

SPLITS = ("fold", "fold_stays")
"""Columns of the cohort: no patient in two folds, as in the paper; or drawn by stay, so that patients overlap."""


def target_space(system: str, codes: pd.Series, space: str) -> LabelSpace:
    """The labels of a model: "official", every target of the DRG system (738 or 1,136), or "cohort", those that occur."""
    if space not in ("official", "cohort"):
        raise StudyError(f"parameter space: expected 'official' or 'cohort', got {space!r}")
    facts = drgs.fiscal_2013(system)
    targets = facts.index[facts["target"]]
    return LabelSpace(targets if space == "official" else codes, targets)


def known_at(paths: EarlyPaths, stays: pd.DataFrame, reads: str, last: int) -> Callable:
    """What a model may know: a function of some stays (bool mask), an hour, and the training stays (bool mask).

    With `reads` "notes" it returns texts (list of str), with "measurements" an array (stays, 48, 208), in which nothing
    was measured after that hour; it is standardised by what the training stays had up to the `last` hour.
    """
    cohorts = [file for system in early.SYSTEMS if (file := paths.cohort(system)).is_file()]
    ours = set().union(*(pd.read_parquet(file, columns=["stay_id"])["stay_id"] for file in cohorts))
    if reads == "notes":
        notes = cohort.read_stays(paths.notes, early.NOTES)
        if not ours.issuperset(notes["stay_id"]):
            raise StudyError(f"{provenance.relative(paths.notes)} has notes of stays that are in neither cohort")
        return lambda some, hours, training: early.texts(stays[some], notes, hours)
    if reads != "measurements":
        raise StudyError(f"parameter reads: expected 'notes' or 'measurements', got {reads!r}")
    stay_ids, _, values = measurements.read_measurements(paths.measurements)
    if ours != set(stay_ids.tolist()):
        raise StudyError(f"{provenance.relative(paths.measurements)} has not the cohorts' stays; run notebook 22 again")
    values = values[pd.Index(stay_ids).get_indexer_for(stays["stay_id"])]
    values[:, max(0, last) :] = np.nan

    def measured(some, hours, training):
        until = values.copy()
        until[some, max(0, hours) :] = np.nan
        return measurements.inputs(until, training)[some]

    return measured


def run_fold(
    folder: Path, about: dict, stays: pd.DataFrame, known: Callable, labels: LabelSpace | None, hours: list[int]
) -> dict:
    """Train the model of one fold, unless it is there already, and write what it says of the hold-out stays.

    Parameters
    ----------
    folder : Path
        The fold's own.
    about : dict
        What identifies the run (model, settings, fold, split, seed, dataset, ...), as its run.json will hold it.
    stays : DataFrame
        As `early.STAYS`.
    known : callable
        From `known_at`.
    labels : LabelSpace or None
        None trains on the relative weight instead of the DRG.
    hours : list of int
        The model is trained on what was known at the last, and predicts at each.

    Returns
    -------
    dict
        What it cost.

    Raises
    ------
    StudyError
        For an unknown split or fold.
    """
    at = {hour: folder / f"hour{hour:+03d}" for hour in hours}
    results = [(place, "predictions.npz") for place in at.values()] if labels else [(folder, "weights.parquet")]
    with contextlib.suppress(StudyError):  # what is missing or was changed is made again
        done = [read_run_json(*result) for result in results]
        check_model(folder, done[-1])
        if all(run.get(key) == value for run in done for key, value in about.items()):
            return done[-1]["cost"]
    fold, split = about["fold"], about["split"]
    if split not in SPLITS or fold not in range(1, 6):
        raise StudyError(
            f"parameters split and folds: expected one of {SPLITS} and folds 1 to 5, got {split!r}, {fold!r}"
        )
    test, validation = (stays[split] == 0).to_numpy(), (stays[split] == fold).to_numpy()
    training = ~test & ~validation
    if labels:
        y = labels.encode(stays["drg"])
        outputs = labels.outputs.tolist()
    else:
        y, outputs = stays["weight"].to_numpy(np.float32), ["relative weight"]
    network = models.build(about["model"], about["settings"], outputs, folder, about["seed"] + fold)
    start = time.perf_counter()
    rows = known(training, hours[-1], training), known(validation, hours[-1], training)
    cost = network.fit(rows[0], y[training], (rows[1], y[validation]))
    cost["fit_seconds"] = time.perf_counter() - start + cost.pop("seconds_before_kill", 0.0)
    cost |= {"predict_examples": int(test.sum()), "peak_memory_gb": peak_memory_gb()}
    for hour in hours:
        start = time.perf_counter()
        said = network.predict(known(test, hour, training))
        cost["predict_seconds"] = time.perf_counter() - start
        made = about | {"hours": hour, "cost": cost}
        if labels:
            ids = stays.loc[test, "stay_id"].to_numpy()
            write_predictions(at[hour], Predictions(ids, y[test], labels.codes, said, made), folder)
    with first_process_first():
        if not labels:
            weights = pd.DataFrame({"stay_id": stays.loc[test, "stay_id"], "true": y[test], "predicted": said[:, 0]})
            with atomic(folder / "weights.parquet") as beside:
                weights.to_parquet(beside, index=False)
            digest = fingerprint(folder / "weights.parquet")
            write_json(folder / "run.json", made | {"predictions": digest, "model_files": model_files(folder)})
        for checkpoints in folder.glob("checkpoints-*"):
            shutil.rmtree(checkpoints)
    return cost


def read_run(paths: EarlyPaths, run: str, hours: int = 48) -> list[Predictions]:
    """What each fold's model of a run says of the hold-out stays at an hour, in the order of the folds.

    Raises
    ------
    StudyError
        If the run has not been made at that hour, or as `predictions.read_predictions`.
    """
    folders = sorted((paths.runs / run).glob(f"fold-*/hour{hours:+03d}"))
    if not folders:
        raise StudyError(f"run {run!r} has no predictions at hour {hours} under {paths.runs}; train it (notebook 23)")
    return [read_predictions(folder, *_made_from(paths, folder)) for folder in folders]


@first_process_first()
def keep_folds(folder: Path, folds: list[int]) -> None:
    """Remove a run's models of other folds, which an earlier parameter file asked for."""
    for model in folder.glob("fold-*"):
        if int(model.name.removeprefix("fold-")) not in folds:
            shutil.rmtree(model)


def read_weights(paths: EarlyPaths, run: str) -> list[pd.DataFrame]:
    """True and predicted relative weight of the hold-out stays (stay_id, true, predicted), a table a fold's model."""
    files = sorted((paths.runs / run).glob("fold-*/weights.parquet"))
    if not files:
        raise StudyError(f"run {run!r} has predicted no weights under {paths.runs}; train it (notebook 23)")
    tables = []
    for file in files:
        stays, inputs = _made_from(paths, file.parent)
        made = read_run_json(file.parent, file.name, stays, inputs)
        tables.append(pd.read_parquet(file))
        true = held_out(stays, made["split"], "weight").astype("float32").rename("true").reset_index()
        if not tables[-1][["stay_id", "true"]].equals(true):
            raise StudyError(f"{provenance.relative(file)} has not the hold-out stays of {stays.name}; run it again")
    return tables


def _made_from(paths: EarlyPaths, folder: Path) -> tuple[Path, Path]:
    """The cohort, and the notes or measurements, that the run in a folder was made from."""
    run = read_json(folder / "run.json")
    return paths.cohort(run["system"]), paths.notes if run["reads"] == "notes" else paths.measurements


def weights_of(paths: EarlyPaths, run: str, stay_ids: pd.Series, hours: int = 48, way: str = "top-1") -> np.ndarray:
    """The relative weights that a run gives some hold-out stays by naming DRGs: float, shape (models, stays).

    `way` is one of `casemix.predicted_weights`: "top-1", the weight of the DRG it names, or "expected", the mean over all.
    """
    rows = []
    for made in read_run(paths, run, hours):
        weights = drgs.fiscal_2013(made.run["system"])["relative_weight"].loc[made.labels]
        rows.append(pd.Series(casemix.predicted_weights(made.logits, weights)[way], made.stay_ids).loc[stay_ids])
    return np.array(rows, float)


def regressed(paths: EarlyPaths, run: str, stay_ids: pd.Series) -> np.ndarray:
    """The relative weights that a run of target "weight" says: float, shape (models, stays)."""
    return np.array([made.set_index("stay_id").loc[stay_ids, "predicted"] for made in read_weights(paths, run)], float)
