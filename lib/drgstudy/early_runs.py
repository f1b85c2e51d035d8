"""What the runs of the early-DRG study say: a model a fold, predictions by hour, or relative weights.

`runs` trains them and says where their files lie.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd

from drgstudy import casemix, drgs, provenance
from drgstudy.predictions import Predictions, held_out, read_predictions, read_run_json
from drgstudy.study import Paths, StudyError, read_json


def read_run(paths: Paths, run: str, hours: int = 48) -> list[Predictions]:
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


def read_weights(paths: Paths, run: str) -> list[pd.DataFrame]:
    """True and predicted relative weight of the hold-out stays (stay_id, true, predicted), a table a fold's model."""
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
    """The cohort, and the notes or measurements, that the run in a folder was made from."""
    run = read_json(folder / "run.json")
    return paths.cohort(run["system"]), paths.notes if run["reads"] == "notes" else paths.measurements


def weights_of(paths: Paths, run: str, stay_ids: pd.Series, hours: int = 48, way: str = "top-1") -> np.ndarray:
    """The relative weights that a run gives some hold-out stays by naming DRGs: float, shape (models, stays).

    `way` is one of `casemix.predicted_weights`: "top-1", the weight of the DRG it names, or "expected", the mean over all.
    """
    rows = []
    for made in read_run(paths, run, hours):
        weights = drgs.fiscal_2013(made.run["system"])["relative_weight"].loc[made.labels]
        rows.append(pd.Series(casemix.predicted_weights(made.logits, weights)[way], made.stay_ids).loc[stay_ids])
    return np.array(rows, float)


def regressed(paths: Paths, run: str, stay_ids: pd.Series) -> np.ndarray:
    """The relative weights that a run of target "weight" says: float, shape (models, stays)."""
    return np.array([made.set_index("stay_id").loc[stay_ids, "predicted"] for made in read_weights(paths, run)], float)
