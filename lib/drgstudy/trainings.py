"""All trainings of a study side by side, and what a training cost, as tables for readers."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd

from drgstudy import disclosure
from drgstudy.names import name_of
from drgstudy.predictions import read_predictions, read_run_json
from drgstudy.study import Paths, StudyError, read_json, without_places

SPENT = {  # what run.json records of a cost: its name for readers, and the unit or form of its value
    "fit_seconds": ("training with all that belongs to it", "{:,.1f} s"),
    "train_seconds": ("of these, the steps of the trainer", "{:,.1f} s"),
    "seconds_before_kill": ("of these, before it was killed", "{:,.1f} s"),
    "train_steps": ("steps", "{:,.0f}"),
    "train_examples": ("training stays read, each as often as it was read", "{:,.0f}"),
    "train_tokens": ("tokens of these", "{:,.0f}"),
    "predict_seconds": ("prediction", "{:,.2f} s"),
    "predict_examples": ("stays predicted", "{:,.0f}"),
    "peak_memory_gb": ("peak memory", "{:.2f} GB"),
    "dtype": ("numbers", "{}"),
}


def spent(costs: dict[str, dict]) -> pd.DataFrame:
    """What trainings cost, in print: a column for each of `costs`, the ``cost`` of a run's record, by its name.

    What none of them recorded has no row, and what one of them did not record is a dash.
    """
    found = {key: form for key, form in SPENT.items() if any(key in cost for cost in costs.values())}
    cells = {
        name: [form.format(cost[key]) if key in cost else "–" for key, (_, form) in found.items()]
        for name, cost in costs.items()
    }
    return pd.DataFrame(cells, index=[name for name, _ in found.values()])


def overview(paths: Paths, runs: dict[str, str], mask_below: int) -> pd.DataFrame:
    """A row for each training: its settings, how long it took, and what it reached.

    Parameters
    ----------
    paths : Paths
        Of the study.
    runs : dict of str to str
        The run of each step.
    mask_below : int
        Scores of credentialed data that would tell of fewer stays are a dash.

    Returns
    -------
    DataFrame
        Indexed by the names of the steps. All cells are in print. *Unlike most of its model* holds the parameters and
        settings whose value is not the commonest one among the runs of the model. Minutes are those of `fit`, of all fold
        models together. The score is top-1 accuracy on the test stays, the mean over the fold models, or the mean absolute
        error of a weight. What is not known of a run, since it does not lie here or is just being written, is a dash.
    """
    made = {step: found for step, run in runs.items() if (found := _records(paths.runs / run))}
    asked = {step: without_places(_asked(next(iter(found.values())))) for step, found in made.items()}
    said = pd.DataFrame.from_dict(asked, orient="index").map(_said)
    mask_below = disclosure.threshold(paths, mask_below)
    first = {step: next(iter(made.get(step, {}).values()), {}) for step in runs}
    rows = {step: {"Run": run, "Model": name_of(first[step], run)} for step, run in runs.items()}
    for step, found in made.items():
        of_model = [other for other in made if asked[other]["model"] == asked[step]["model"]]
        usual = said.loc[of_model].mode().iloc[0]
        cost = [record["cost"] for record in found.values()]
        rows[step] |= {
            "Unlike most of its model": "; ".join(
                f"{key} {said.at[step, key]}" for key in asked[step] if said.at[step, key] != usual[key]
            ),
            "Epochs": _said(asked[step].get("epochs", "–")),
            "Best epoch": ", ".join(dict.fromkeys(_best(each.get("history", [])) for each in cost)),
            "Minutes": f"{sum(each['fit_seconds'] for each in cost) / 60:.1f}",
            "Score": _score(found, mask_below),
        }
    columns = ["Run", "Model", "Unlike most of its model", "Epochs", "Best epoch", "Minutes", "Score"]
    return pd.DataFrame.from_dict(rows, orient="index", columns=columns).fillna("–")


def _records(folder: Path) -> dict[Path, dict]:
    """The records of a run's models by their folders: one, or one for each fold at its last hour; none if none lies here."""
    folds = [
        sorted(fold.glob("hour*"), key=lambda hour: int(hour.name[4:]))[-1:] or [fold]
        for fold in sorted(folder.glob("fold-*"))
    ]
    places = [place for fold in folds for place in fold] or [folder]
    return {place: read_json(place / "run.json") for place in places if (place / "run.json").is_file()}


def _asked(record: dict) -> dict:
    """What shapes a training, settings and parameters alike, by name."""
    others = [
        "model",
        "labels",
        "kept_back",
        "train_share",
        "until",
        "as_many",
        "split",
        "system",
        "reads",
        "target",
        "space",
        "seed",
    ]
    return {key: record[key] for key in others if key in record} | record["settings"]


def _said(value) -> str:
    return f"{value:g}" if isinstance(value, float) else str(value) or "none"


def _best(history: list[dict]) -> str:
    """The epoch after which the score on the stays kept back was best, the first of several; a dash if none was judged."""
    judged = [entry for entry in history if "eval_loss" in entry]
    if not judged:
        return "–"
    best = max(judged, key=lambda each: each.get("eval_accuracy", -each.get("eval_mean_absolute_error", np.inf)))
    return f"{best['epoch']:.3g}"


def _score(made: dict[Path, dict], mask_below: int) -> str:
    try:
        if next(iter(made.values())).get("target") == "weight":
            return f"error {np.mean([_error(folder) for folder in made]):.3f}"
        said = [read_predictions(folder) for folder in made]
    except StudyError:
        return "–"
    right = pd.Series([float((each.logits.argmax(1) == each.truth).mean()) for each in said])
    right = disclosure.shares(right, len(said[0].truth), mask_below)
    return "–" if right.isna().any() else f"{right.mean():.3f}"


def _error(folder: Path) -> float:
    read_run_json(folder, "weights.parquet")
    weights = pd.read_parquet(folder / "weights.parquet")
    return float((weights["predicted"] - weights["true"]).abs().mean())
