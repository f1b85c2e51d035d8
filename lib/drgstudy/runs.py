"""Runs of both studies: a training is done once.

A training is identified by its **key**: settings, seed, labels, the stays that it reads, and a fingerprint of the code
that shapes what is learned. The key stands in the run's ``run.json``. A run of the same key is taken as it is, however
often its notebook runs. A run of another key is trained again, and its page says why. If a key differs in code alone,
the run can be kept by name (``make keep RUN=llama``).

A run of DRG-LLaMA's study lies in ``runs/<run>/``. A run of the early-DRG study has a model for each fold:
``runs/<run>/fold-<k>/`` holds the model that was trained without fold k. Below it, ``hour+48/`` and the like hold its
predictions for the hold-out stays by what was known at that hour. A model of the relative weight leaves
``weights.parquet`` instead.
"""

from __future__ import annotations

import functools
import hashlib
import json
import os
import shutil
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd

from drgstudy import cohort, drgs, icu_cohort, inputs, measurements, models, people, provenance
from drgstudy.flow import read_flow, read_rows
from drgstudy.labels import LabelSpace, label_space, target_space
from drgstudy.predictions import Predictions, check_model, model_files, read_run_json, write_predictions
from drgstudy.study import (
    Paths,
    StudyError,
    atomic,
    checked_settings,
    fingerprint,
    first_process_first,
    graph,
    peak_memory_gb,
    places,
    read_json,
    write_json,
)

SPLITS = ("fold", "fold_known")
"""Columns of the ICU cohorts: folds that share no patient, as in the paper; and folds in which the
held-out patients' other stays are trained on."""
READS, TARGETS, SPACES = ("notes", "measurements"), ("drg", "weight"), ("official", "cohort")
SHAPES = (
    "training", "inputs", "models.fast_lora", "models.frozen", "models.pooling", "models.sentencepieces", "models.vectors",
    "models.llama", "labels.TwoLabels.drg_logits",
)  # fmt: skip
"""The code that can shape what is learned, besides the model's own module; `code_of` picks what concerns a run.

The runner, readers, progress bars and messages shape nothing. Which labels a stay has is in the key itself.
"""
CHANGED = {
    "dataset": "the stays, or what is read of them, are others than they were",
    "labels": "the stays' labels are others than they were",
    "files": "a file that a setting names is another than it was",
}
CODE = "the code has changed"
BEGUN = ".begun.json"
"""A file in a run's folder while it is trained: the key, and why it is trained."""


@dataclass(frozen=True)
class Training:
    """One training: what identifies it, and callables for its data, which are read only if it must be done.

    Attributes
    ----------
    folder : Path
        Where the model lies.
    about : dict
        What ``run.json`` says of the run: run, model, settings, seed, split, dataset and so on.
    key : dict
    outputs : list of str
        What each output of the model stands for.
    counts : dict of str to int
        Numbers of stays and outputs, for the run's page.
    learn : callable
        Returns the training rows, their targets, and None or a pair of validation rows and targets, by which a model
        may choose its epoch.
    asked : dict of Path to callable
        For the folder of each result, a callable that returns the rows of the test stays.
    write : callable
        Writes a result, given its folder, the model's outputs, and the content of run.json.
    result : str
        Name of the file of a result.
    """

    folder: Path
    about: dict
    key: dict
    outputs: list[str]
    counts: dict[str, int]
    learn: Callable
    asked: dict[Path, Callable]
    write: Callable
    result: str = "predictions.npz"


def of_stays(
    paths: Paths, run: str, model: str, settings: dict, labels: str, split: str, kept_back: float, seed: int,
    train_share: float = 1.0, until: int = 0, as_many: bool = False,
) -> Training:  # fmt: skip
    """The training of a run of DRG-LLaMA's study, by the parameters of notebook 05.

    Every model is trained on the same stays: all training stays but the share `kept_back`, drawn from each DRG in
    proportion, by which the models choose their epoch. With 0 all are trained on, and the last epoch counts. For a
    learning curve, `train_share` of the stays to train on are, drawn in the same way. With `until` nothing is learned but
    from training stays of that year and earlier, or, if `as_many`, from as many, drawn from those of all years.

    Raises
    ------
    StudyError
        If a parameter or setting is not allowed, or the cohort is missing or was changed.
    """
    if not 0 <= kept_back < 1 or not 0 < train_share <= 1:
        said = f"got {kept_back!r} and {train_share!r}"
        raise StudyError(f"parameters kept_back and train_share: expected shares, below 1 and above 0; {said}")
    stays = _stays(paths.stays, fingerprint(provenance.verified(paths.stays)) if paths.stays.is_file() else "")
    (train, test), of_years = cohort.parts(stays, split), {}  # which is part of the key only where it is used
    if until or as_many:
        when = people.years(provenance.read_json(paths.source)["folder"])
        train = people.of_years(train, people.dated(stays, when), until, as_many)
        ids = hashlib.sha256(train["stay_id"].to_numpy().tobytes()).hexdigest()[:16]
        of_years = {"until": until, "as_many": as_many, "stays": ids}
    space = label_space(labels, stays["drg_v34"], train["drg_v34"])
    about = {"run": run, "model": model, "settings": _settings(model, settings), "labels": labels, "split": split}
    about |= {"kept_back": kept_back, "seed": seed} | of_years
    about["dataset"] = read_flow(paths)["source"] | {"fingerprint": fingerprint(paths.stays)}
    folder, truth = paths.runs / run, LabelSpace(space.codes).encode(test["drg_v34"])
    judging = np.zeros(len(train), bool)
    if kept_back:
        judging = cohort.stratified_draw(train["drg_v34"], kept_back, np.random.default_rng(0))
    learning = ~judging
    if train_share < 1:
        about["train_share"] = train_share  # part of the key only where it is used
        left = train.loc[learning, "drg_v34"]
        learning[learning] = cohort.stratified_draw(left, train_share, np.random.default_rng(1))

    def rows(some: np.ndarray) -> tuple[list[str], np.ndarray]:
        return train.loc[some, "text"].tolist(), space.encode(train.loc[some, "drg_v34"])

    def write(place: Path, outputs: np.ndarray, made: dict) -> None:
        two = outputs if labels == "two" else None
        ids, logits = test["stay_id"].to_numpy(), space.drg_logits(outputs)
        write_predictions(place, Predictions(ids, truth, space.codes, logits, made, two))

    return Training(
        folder,
        about,
        _key(about, space.outputs, space.encode(stays["drg_v34"]), "labels.TwoLabels" if labels == "two" else ""),
        space.outputs,
        {
            "training stays": int(learning.sum()),
            "stays by which the epoch is chosen": int(judging.sum()),
            "test stays": len(test),
            "DRGs": len(space.codes),
            "outputs": len(space.outputs),
        },
        lambda: (*rows(learning), rows(judging) if kept_back else None),
        {folder: lambda: test["text"].tolist()},
        write,
    )


def of_icu_stays(
    paths: Paths, run: str, model: str, settings: dict, system: str, reads: str, target: str, space: str, split: str,
    folds: list[int], hours: list[int], seed: int,
) -> list[Training]:  # fmt: skip
    """The trainings of a run of the early-DRG study, one for each fold, by the parameters of notebook 23.

    Each model is trained on what was known at the last of the hours. A model of the DRG is asked at each hour, a model
    of the weight at the last one.

    Parameters
    ----------
    reads, target : str
        "notes" or "measurements"; "drg" or "weight".
    space, split : str
        As for `labels.target_space`; one of `SPLITS`.
    folds : list of int
        Of 1 to 5; each is the validation set of one model.
    hours : list of int
        After ICU admission.

    Raises
    ------
    StudyError
        If a parameter or setting is not allowed, or the cohort or what it reads is missing or was changed.
    """
    refuse_impossible(model, target, reads, space, split, folds)
    file, last = paths.cohort(system), max(hours)
    stays = read_rows(file, icu_cohort.STAYS)
    read = paths.notes if reads == "notes" else paths.measurements
    about = {"run": run, "model": model, "settings": _settings(model, settings), "system": system, "reads": reads}
    if about["settings"].get("features_of"):
        raise StudyError("setting features_of: no run of the early-DRG study hands states on; leave it out")
    about |= {"target": target, "space": space, "split": split, "seed": seed}
    dataset = {"fingerprint": fingerprint(file), "inputs": fingerprint(read) if read.is_file() else ""}
    about["dataset"] = read_flow(paths)["source"] | dataset
    labels = target_space(system, stays["drg"], space) if target == "drg" else None
    y = labels.encode(stays["drg"]) if labels else stays["weight"].to_numpy(np.float32)
    outputs = labels.outputs.tolist() if labels else ["relative weight"]
    known = functools.cache(lambda: known_at(paths, stays, reads, last))
    test = (stays[split] == 0).to_numpy()
    ids = stays.loc[test, "stay_id"].to_numpy()

    def of_fold(fold: int) -> Training:
        folder, validation = paths.runs / run / f"fold-{fold}", (stays[split] == fold).to_numpy()
        training = (stays[split] > 0).to_numpy() & ~validation

        def learn() -> tuple:
            rows, judged = (known()(some, last, training) for some in (training, validation))
            return rows, y[training], (judged, y[validation])

        def write(place: Path, said: np.ndarray, made: dict) -> None:
            if labels:
                made |= {"hours": int(place.name.removeprefix("hour"))}
                write_predictions(place, Predictions(ids, y[test], labels.codes, said, made), folder)
            else:
                _write_weights(place, ids, y[test], said[:, 0], made | {"hours": last})

        at = {folder / f"hour{hour:+03d}": hour for hour in sorted(hours)} if labels else {folder: last}
        counts = {"hold-out stays": int(test.sum()), "training stays": int(training.sum()), "outputs": len(outputs)}
        asked = {
            place: functools.partial(lambda hour: known()(test, hour, training), hour) for place, hour in at.items()
        }
        whole = about | {"fold": fold}
        key = _key(whole | {"hours": sorted(hours)}, outputs, y, "inputs")
        result = "predictions.npz" if labels else "weights.parquet"
        return Training(folder, whole, key, outputs, counts, learn, asked, write, result)

    return [of_fold(fold) for fold in folds]


def refuse_impossible(model: str, target: str, reads: str, space: str, split: str, folds: list[int]) -> None:
    """Raise StudyError if parameters of notebook 23 are none that it knows, or do not fit the model."""
    if split not in SPLITS or not set(folds) <= set(range(1, 6)):
        raise StudyError(
            f"parameters split and folds: expected one of {SPLITS} and folds 1 to 5, got {split!r}, {folds!r}"
        )
    for name, value, known in (("reads", reads, READS), ("target", target, TARGETS), ("space", space, SPACES)):
        if value not in known:
            raise StudyError(f"parameter {name}: expected {' or '.join(map(repr, known))}, got {value!r}")
    if target == "weight" and not getattr(models.module(model).Model, "numbers", False):
        raise StudyError(f"parameter target: model {model!r} learns no number; choose one whose `numbers` is true")


@functools.lru_cache(maxsize=1)
def _stays(file: Path, fingerprint: str) -> pd.DataFrame:
    return read_rows(file, cohort.STAYS)


def _settings(model: str, settings: dict) -> dict:
    return vars(checked_settings(models.module(model).Settings, settings))


@first_process_first()
def _write_weights(folder: Path, ids: np.ndarray, true: np.ndarray, predicted: np.ndarray, made: dict) -> None:
    weights = pd.DataFrame({"stay_id": ids, "true": true, "predicted": predicted})
    with atomic(folder / "weights.parquet") as beside:
        weights.to_parquet(beside, index=False)
    digest = fingerprint(folder / "weights.parquet")
    write_json(folder / "run.json", made | {"predictions": digest, "model_files": model_files(folder)})


# --- a training is done once ------------------------------------------------------------------------------------------
def code_of(model: str, more: str = "", library: Path = graph.LIBRARY) -> dict[str, str]:
    """Fingerprints of the code that shapes what a run learns, by place, from `graph.fingerprints`.

    Parameters
    ----------
    model : str
        Its module counts, and so do the modules of `SHAPES` that it imports, directly or not.
    more : str
        Places of `SHAPES` that begin with this count too: the code that makes its input or its labels.
    library : Path
        The folder of the code.
    """
    used = graph.closure([f"models.{model}"], library)
    shapes = [place for place in SHAPES if place in used or (more and place.startswith(more))]
    return graph.fingerprints([f"models.{model}", *shapes], library)


def _key(about: dict, outputs: list[str], y: np.ndarray, more: str) -> dict:
    labels = hashlib.sha256(json.dumps([list(outputs), y.tolist()]).encode()).hexdigest()[:16]
    kept = {name: value for name, value in about.items() if name not in ("run", "dataset", "labels")}
    read = {name: about["dataset"][name] for name in ("fingerprint", "inputs") if name in about["dataset"]}
    named = {
        name: places.NOTEBOOKS / os.path.expanduser(value)
        for name, value in about["settings"].items()
        if isinstance(value, str) and value
    }
    files = {name: fingerprint(file) for name, file in named.items() if file.is_file()}  # such as word vectors
    return kept | {"labels": labels, "dataset": read, "files": files, "code": code_of(about["model"], more)}


def differences(old: dict, new: dict) -> dict[str, str]:
    """What has changed in a key, a sentence for each part that differs; a setting that is new counts as code alone."""
    said = {}
    for part in sorted(old.keys() | new.keys()):
        was, now = old.get(part), new.get(part)
        if part == "settings":
            changed = [name for name in changed_places(was, now) if name in was]
            why = "; ".join(f"setting {name} was {was[name]!r} and is {now.get(name)!r}" for name in changed)
        elif part == "code":
            why = ", ".join(changed_places(was, now)) and f"{CODE}: {', '.join(changed_places(was, now))}"
        else:
            why = CHANGED.get(part, f"parameter {part} was {was!r} and is {now!r}") if was != now else ""
        said |= {part: why} if why else {}
    return said


def changed_places(was: dict, now: dict) -> list[str]:
    """The keys whose values differ, or which only one of the two has."""
    return sorted(place for place in was.keys() | now.keys() if was.get(place) != now.get(place))


def standing(training: Training) -> tuple[dict | None, str]:
    """The record of the run that lies there and "", if it can be taken as it is; otherwise None, and why not."""
    if not any((place / "run.json").is_file() for place in training.asked):
        return None, "it had not been trained before"
    try:
        records = [read_run_json(place, training.result) for place in training.asked]
        check_model(training.folder, records[-1])
    except StudyError as error:
        return None, str(error)
    for record in records:
        if "released" in record and "kept" not in record:
            return None, "only its released predictions lie here"
        if record.get("key") != training.key:
            said = differences(record["key"], training.key).values() if "key" in record else ["its record has no key"]
            return None, "; ".join(said)
    return records[-1], ""


def train_once(training: Training) -> dict:
    """Train a run, unless it was trained under the same key before.

    Returns
    -------
    dict
        The content of ``run.json``: that of the last result, if there are several.
    """
    record, why = standing(training)
    if record is None:
        return _train(training, why)
    _end(training)  # in case the training was killed at its very end
    for place in training.asked:  # what does not identify a training, such as its dataset's name, may have changed
        record = read_json(place / "run.json")
        if record != (now := record | training.about):
            write_json(place / "run.json", now)
    return now


def _train(training: Training, why: str) -> dict:
    about, folder = training.about, training.folder
    if of := about["settings"].get("features_of"):
        check_model(folder.parent / of, read_json(folder.parent / of / "run.json"))
    seed, why = about["seed"] + about.get("fold", 0), _begin(training, why)
    network = models.build(about["model"], about["settings"], training.outputs, folder, seed)
    start = time.perf_counter()
    rows, y, validation = training.learn()
    cost = network.fit(rows, y, validation)
    cost["fit_seconds"] = time.perf_counter() - start + cost.pop("seconds_before_kill", 0.0)
    for place, rows in training.asked.items():
        start = time.perf_counter()
        outputs = network.predict(rows())
        cost |= {"predict_seconds": time.perf_counter() - start, "predict_examples": len(outputs)}
        made = about | {
            "cost": cost | {"peak_memory_gb": peak_memory_gb()},
            "key": training.key,
            "trained_because": why,
        }
        training.write(place, outputs, made)
    _end(training)
    return read_json(place / "run.json")


@first_process_first()
def _begin(training: Training, why: str) -> str:
    """Return the reason for this training, as given when it was begun; remove what one under another key has left."""
    begun = training.folder / BEGUN
    if begun.is_file() and (said := read_json(begun))["key"] == training.key:
        return said["why"]
    for left in [*training.folder.glob("checkpoints-*"), *training.folder.glob("frozen")]:
        shutil.rmtree(left) if left.is_dir() else left.unlink()
    write_json(begun, {"key": training.key, "why": why})
    return why


@first_process_first()
def _end(training: Training) -> None:
    """Remove what a finished training no longer needs, and results at hours that are no longer asked for."""
    needless = ("checkpoints-*", "hour*") + (() if training.about["settings"].get("cuts") else ("frozen",))
    for left in {place for name in needless for place in training.folder.glob(name)} - training.asked.keys():
        shutil.rmtree(left)
    (training.folder / BEGUN).unlink(missing_ok=True)


def history(records: list[dict]) -> str:
    """Why a run was trained, and despite what change it was kept, as its page says it; one record for each model."""
    whys = list(dict.fromkeys(record["trained_because"] for record in records))
    kept = list(dict.fromkeys(place for record in records for place in record.get("kept", [])))
    said = f"This run was trained because {'; or because '.join(whys)}."
    if any("released" in record for record in records):
        said += " Its **released** predictions are used."
    if kept:
        said += f" It was **kept by name** although code that shapes it has changed since: {', '.join(kept)}."
    return said


# --- runs of the early-DRG study --------------------------------------------------------------------------------------
def known_at(paths: Paths, stays: pd.DataFrame, reads: str, last: int) -> Callable:
    """Return a function that tells what a model may know of some stays at an hour.

    Its arguments are a mask of the stays asked for, the hour, and a mask of the training stays (bool, shape (stays,)).
    If `reads` is "notes", it returns texts (list of str). If it is "measurements", it returns an array of shape (stays
    asked for, 48, 208), in which nothing was measured after that hour. The array is standardised by what the training
    stays had up to the hour `last`.
    """
    cohorts = [file for system in drgs.SYSTEMS if (file := paths.cohort(system)).is_file()]
    ours = set().union(*(pd.read_parquet(file, columns=["stay_id"])["stay_id"] for file in cohorts))
    if reads == "notes":
        notes = read_rows(paths.notes, icu_cohort.NOTES)
        if not ours.issuperset(notes["stay_id"]):
            raise StudyError(f"{provenance.relative(paths.notes)} has notes of stays that are in neither cohort")
        return lambda some, hours, training: inputs.texts(stays[some], notes, hours)
    stay_ids, _, values = measurements.read_measurements(paths.measurements)
    if ours != set(stay_ids.tolist()):
        raise StudyError(f"{provenance.relative(paths.measurements)} has not the cohorts' stays; run notebook 22 again")
    values = values[pd.Index(stay_ids).get_indexer_for(stays["stay_id"])]
    return lambda some, hours, training: inputs.measured(values, some, hours, last, training)


@first_process_first()
def keep_folds(folder: Path, folds: list[int]) -> None:
    """Remove a run's models of other folds than these, left by an earlier version of its parameter file."""
    for model in folder.glob("fold-*"):
        if int(model.name.removeprefix("fold-")) not in folds:
            shutil.rmtree(model)
