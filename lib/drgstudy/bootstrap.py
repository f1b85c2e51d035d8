"""Resampling the test stays: the trained models stay as they are, and only the stays are drawn again."""

from __future__ import annotations

import os
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pandas as pd

from drgstudy.metrics import Scores
from drgstudy.study import StudyError

BLOCK = 32  # resamples scored together, at most: enough for vector instructions, and few enough for the cache


def resample_counts(n: int, resamples: int, seed: int) -> np.ndarray:
    """How often each of n stays is drawn when n are drawn with replacement, `resamples` times: int32, (resamples, n).

    The first resamples are the same however many are drawn. Raises StudyError if either number is below 1.
    """
    for name, number in ("n", n), ("resamples", resamples):
        if number < 1:
            raise StudyError(f"{name} is {number}; the bootstrap needs at least 1")
    rng = np.random.default_rng(seed)
    counts = np.empty((resamples, n), np.int32)
    for row in counts:
        row[:] = np.bincount(rng.integers(n, size=n), minlength=n)
    return counts


def bootstrap(scores: Scores, resamples: int, seed: int, subset=None) -> pd.DataFrame:
    """Score every resample.

    Parameters
    ----------
    scores : Scores
    resamples, seed : int
    subset : numpy.ndarray of int, optional
        Label indices. The whole test set is resampled, then the stays whose true label is in the subset are kept.

    Returns
    -------
    DataFrame
        One row for each resample, one column for each metric; NaN where a resample has no stay of the subset.

    Notes
    -----
    Source: DRG-LLaMA, Methods: "randomly resampled the whole sample size from the testing set" 30 times.
    """
    counts = resample_counts(scores.truth.size, resamples, seed)
    kept = True if subset is None else scores.among(subset)
    # Work for at least two cores, in blocks that do not depend on how many there are: equal last bits on any machine.
    block = min(BLOCK, resamples // 2 + 1)
    with ThreadPoolExecutor(min(8, os.cpu_count() or 1)) as pool:
        blocks = pool.map(
            lambda start: pd.DataFrame(scores.evaluate(counts[start : start + block] * kept)),
            range(0, resamples, block),
        )
        return pd.concat(blocks, ignore_index=True).rename_axis("resample")


def summary(samples: pd.DataFrame) -> pd.DataFrame:
    """Standard deviation (denominator: rows - 1) and 95 % percentile interval of each column: sd, lower, upper."""
    return pd.DataFrame({"sd": samples.std(ddof=1), "lower": samples.quantile(0.025), "upper": samples.quantile(0.975)})


def difference(a: Scores, b: Scores, resamples: int, seed: int, subset=None) -> pd.DataFrame:
    """Compare two models metric by metric, on the same stays and resamples.

    Parameters
    ----------
    a, b : Scores
    resamples, seed, subset
        As for `bootstrap`.

    Returns
    -------
    DataFrame, one row for each metric
        difference (a minus b on the stays as they are); sd, lower and upper of the resampled difference; and the
        two-sided p, at most 1: twice the smaller share of resamples on one side of zero, the observed one counted in.

    Raises
    ------
    StudyError
        If they were not scored on the same true labels in the same order.

    Notes
    -----
    Source: Davison and Hinkley 1997, section 4.2 (p).
    """
    if a.n_labels != b.n_labels or not np.array_equal(a.truth, b.truth):
        raise StudyError("the two models' true labels differ; compare predictions on the same stays in the same order")
    point = pd.Series(a.evaluate(None if subset is None else a.among(subset)))
    point -= pd.Series(b.evaluate(None if subset is None else b.among(subset)))
    samples = bootstrap(a, resamples, seed, subset) - bootstrap(b, resamples, seed, subset)
    beyond = np.minimum((samples <= 0).sum(), (samples >= 0).sum())
    p = (2 * (beyond + 1) / (samples.notna().sum() + 1)).clip(upper=1)
    return summary(samples).assign(difference=point, p=p)[["difference", "sd", "lower", "upper", "p"]]
