"""What trained models of the early-DRG study say of stays whose admitting diagnosis is kept from them.

MIMIC-III gives the admitting diagnosis no time, so that models read it at every hour, also before it can have been made.
"""

from __future__ import annotations

import functools

import numpy as np
import pandas as pd

from drgstudy import attribution, drgs, icu_cohort, inputs
from drgstudy.flow import read_rows
from drgstudy.predictions import read_folds
from drgstudy.study import Paths


def weights(paths: Paths, run: str, stays: pd.DataFrame, hours: list[int]) -> dict[int, np.ndarray]:
    """The relative weights of the DRGs that a run's models name from the notes up to each hour alone.

    Parameters
    ----------
    paths : Paths
    run : str
        A run on notes, whose models lie here or were asked this before they were released.
    stays : DataFrame
        As `icu_cohort.STAYS`; hold-out stays.
    hours : list of int
        After ICU admission.

    Returns
    -------
    dict of hour to numpy.ndarray of float, shape (models, stays)

    Raises
    ------
    StudyError
        As `predictions.read_folds` and `attribution.remembered`.
    """
    blank, notes = stays.assign(diagnosis=""), read_rows(paths.notes, icu_cohort.NOTES)
    texts = [inputs.texts(blank, notes, hour) for hour in hours]
    asked = f"{len(stays)} stays without their admitting diagnosis at the hours {hours}"
    found: dict[int, list] = {hour: [] for hour in hours}
    for made in read_folds(paths, run):
        weight = drgs.fiscal_2013(made.run["system"])["relative_weight"].loc[made.labels].to_numpy()
        folder = paths.runs / run / f"fold-{made.run['fold']}"
        named = attribution.remembered(paths, folder, made, asked, functools.partial(_named, texts=texts))
        for hour, labels in zip(hours, named, strict=True):
            found[hour].append(weight[labels])
    return {hour: np.array(rows, float) for hour, rows in found.items()}


def _named(model, texts: list[list[str]]) -> list[list[int]]:
    """The label that a model gives each text of several lists."""
    return [model.predict(some).argmax(axis=1).tolist() for some in texts]
