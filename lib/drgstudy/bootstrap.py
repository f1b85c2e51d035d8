"""Resampling the test stays: the trained models stay as they are, only the stays are drawn anew."""

from __future__ import annotations

import os
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pandas as pd

from drgstudy.metrics import Scores
from drgstudy.study import StudyError

BLOCK = 32  # resamples, at most, scored together: wide enough for vector instructions, small enough for the cache


def resample_counts(n: int, resamples: int, seed: int) -> np.ndarray:
    """Draw n of n stays with replacement, `resamples` times; return how often each was drawn: (resamples, n) int32.

    The first resamples are the same however many are asked for.
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
    """Score every resample: one row a resample, one column a metric.

    Parameters
    ----------
    scores : Scores
    resamples, seed : int
    subset : array of int, optional
        Labels. The whole test set is resampled, then the stays whose true label is in the subset are kept. A resample
        that has none of them is NaN.

    Source: DRG-LLaMA, Methods: "randomly resampled the whole sample size from the testing set" 30 times.
    """
    counts = resample_counts(scores.truth.size, resamples, seed)
    kept = True if subset is None else scores.among(subset)
    # Work for two cores at least, and not by their number: the same blocks, hence the same last bits, on any machine.
    block = min(BLOCK, resamples // 2 + 1)
    with ThreadPoolExecutor(min(8, os.cpu_count() or 1)) as pool:
        blocks = pool.map(
            lambda start: pd.DataFrame(scores.evaluate(counts[start : start + block] * kept)),
            range(0, resamples, block),
        )
        return pd.concat(blocks, ignore_index=True).rename_axis("resample")


def summary(samples: pd.DataFrame) -> pd.DataFrame:
    """Standard deviation (n - 1) and 95 % percentile interval of each column: columns sd, lower, upper."""
    return pd.DataFrame({"sd": samples.std(ddof=1), "lower": samples.quantile(0.025), "upper": samples.quantile(0.975)})


def difference(a: Scores, b: Scores, resamples: int, seed: int, subset=None, paired: bool = True) -> pd.DataFrame:
    """Compare two models metric by metric, on the same stays and resamples, or each on its own.

    Parameters
    ----------
    a, b : Scores
    resamples, seed, subset : as in `bootstrap`
    paired : bool
        Both were scored on the same stays. Otherwise each is resampled for itself.

    Returns
    -------
    DataFrame, one row a metric
        difference (a minus b on the stays as they are), the resampled difference's sd, lower and upper, and p: two-sided,
        twice the smaller share of resamples on one side of zero, those as they are counted in (Davison and Hinkley 1997,
        section 4.2), at most 1.

    Raises
    ------
    StudyError
        If paired models were not scored on the same true labels in the same order.
    """
    if paired and (a.n_labels != b.n_labels or not np.array_equal(a.truth, b.truth)):
        raise StudyError("the two models' true labels differ; compare predictions on the same stays in the same order")
    point = pd.Series(a.evaluate(None if subset is None else a.among(subset)))
    point -= pd.Series(b.evaluate(None if subset is None else b.among(subset)))
    samples = bootstrap(a, resamples, seed, subset) - bootstrap(b, resamples, seed if paired else seed + 1, subset)
    beyond = np.minimum((samples <= 0).sum(), (samples >= 0).sum())
    p = (2 * (beyond + 1) / (samples.notna().sum() + 1)).clip(upper=1)
    return summary(samples).assign(difference=point, p=p)[["difference", "sd", "lower", "upper", "p"]]
