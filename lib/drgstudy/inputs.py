"""What a model reads of an ICU stay at an hour: its notes as one text, or its measurements, filled and standardised."""

from __future__ import annotations

import numpy as np
import pandas as pd

from drgstudy.study import StudyError


def texts(stays: pd.DataFrame, notes: pd.DataFrame, hours: float) -> list[str]:
    """What is known of each stay at an hour: a line with its admitting diagnosis, then its notes up to then, in order.

    Parameters
    ----------
    stays : DataFrame
        As `icu_cohort.STAYS`, all rows or some.
    notes : DataFrame
        As `icu_cohort.NOTES`.
    hours : float
        The hour, counted from ICU admission.

    Returns
    -------
    list of str
        In the order of the stays.
    """
    known = notes[(notes["hours"] <= hours) & notes["stay_id"].isin(stays["stay_id"])]
    written = {stay: "\n".join(group) for stay, group in known.groupby("stay_id")["text"]}
    pairs = zip(stays["diagnosis"], stays["stay_id"], strict=True)
    return [f"{diagnosis}\n{written.get(stay, '')}".strip() for diagnosis, stay in pairs]


def measured(values: np.ndarray, some: np.ndarray, hours: int, last: int, training: np.ndarray) -> np.ndarray:
    """The measurements of some stays up to an hour, standardised by those of the training stays up to the last hour.

    Parameters
    ----------
    values : numpy.ndarray of float32, shape (stays, hours, groups)
        As `measurements.hourly` returns them.
    some : numpy.ndarray of bool, shape (stays,)
        The stays that are wanted.
    hours, last : int
        Hours after ICU admission: the one up to which they are wanted, and the one up to which the model is trained.
    training : numpy.ndarray of bool, shape (stays,)

    Returns
    -------
    numpy.ndarray of float32, shape (wanted stays, hours, 2 * groups)
        As `standardised`; later hours hold what was known at the wanted one.

    Raises
    ------
    StudyError
        As `standardised`.
    """
    until = values.copy()
    until[:, max(0, last) :] = np.nan
    until[some, max(0, hours) :] = np.nan
    return standardised(until, training)[some]


def standardised(values: np.ndarray, training: np.ndarray) -> np.ndarray:
    """What the LSTM reads: each group filled and standardised, then whether it was measured in that hour.

    A value holds until the next one of the same stay; before the first one, the mean of the training stays' measured
    values takes its place. The values are standardised by that mean and the standard deviation of the same values. A
    group that was never measured in training is 0.

    Parameters
    ----------
    values : numpy.ndarray of float32, shape (stays, hours, groups)
        As `measurements.hourly` returns them.
    training : numpy.ndarray of bool, shape (stays,)
        At least one is True.

    Returns
    -------
    numpy.ndarray of float32, shape (stays, hours, 2 * groups)
        First the values in standard deviations from the mean, then 1 where measured and 0 where filled.

    Raises
    ------
    StudyError
        If `training` does not fit `values`, or holds no stay.
    """
    n, hours, size = values.shape
    if training.shape != (n,) or training.dtype != bool or not training.any():
        raise StudyError(f"training must be a mask over the {n} stays with at least one True, got {training!r}")
    made = np.zeros((n, hours, 2 * size), np.float32)
    for j in range(size):  # one at a time: the whole in float64 would take gigabytes
        series = values[:, :, j].astype("float64")  # (stays, hours)
        made[:, :, size + j] = measured = ~np.isnan(series)
        seen = series[training][measured[training]]  # (measured values of the training stays,)
        if seen.size:
            deviation = seen.std() if seen.min() < seen.max() else 1
            last = np.maximum.accumulate(np.where(measured, np.arange(hours), -1), axis=1)  # -1: none so far
            series = np.where(last < 0, seen.mean(), np.take_along_axis(series, last.clip(0), axis=1))
            made[:, :, j] = (series - seen.mean()) / deviation
    return made
