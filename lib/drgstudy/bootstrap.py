"""Resampling the test stays: the trained models stay as they are, and only the stays are drawn again."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pandas as pd
from scipy.stats import norm

from drgstudy.metrics import Scores
from drgstudy.study import StudyError

BLOCK = 32  # resamples scored together, at most: enough for vector instructions, and few enough for the cache
GROUPS = 1000  # parts of the stays that the jackknife leaves out in turn, at most

Measure = Callable[[np.ndarray], dict[str, np.ndarray]]
"""From counts of the stays, shape (rows, n), to one or more numbers for each row, as `metrics.Scores.evaluate`."""


def resample_counts(n: int, resamples: int, seed: int | list[int]) -> np.ndarray:
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


def left_out_counts(n: int, seed: int) -> np.ndarray:
    """Counts that leave each stay out once, for the jackknife: bool, shape (n, n), or (1000, n) of more stays.

    Of more than 1,000 stays, 1,000 parts of nearly equal size are left out in turn, into which the stays are dealt at
    random. The acceleration of `bca` stays the same but for chance.

    Notes
    -----
    Source: Efron and Narasimhan 2020 (parts for large n).
    """
    parts = np.arange(n) % min(n, GROUPS)
    if n > GROUPS:
        np.random.default_rng(seed).shuffle(parts)
    return parts != np.arange(min(n, GROUPS))[:, None]


def evaluate(measure: Measure, counts: np.ndarray) -> pd.DataFrame:
    """What a measure says of each row of counts: one row for each, one column for each number."""
    # Work for at least two cores, in blocks that do not depend on how many there are: equal last bits on any machine.
    block = min(BLOCK, len(counts) // 2 + 1)
    with ThreadPoolExecutor(min(8, os.cpu_count() or 1)) as pool:
        starts = range(0, len(counts), block)
        blocks = pool.map(lambda start: pd.DataFrame(measure(counts[start : start + block])), starts)
        return pd.concat(blocks, ignore_index=True)


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
    return evaluate(scored(scores, subset), resample_counts(scores.truth.size, resamples, seed)).rename_axis("resample")


def scored(scores: Scores, subset=None) -> Measure:
    """All metrics of the stays whose true label is in the subset, as `bootstrap` takes it."""
    kept = True if subset is None else scores.among(subset)
    return lambda counts: scores.evaluate(counts * kept)


def summary(samples: pd.DataFrame) -> pd.DataFrame:
    """Standard deviation (denominator: rows - 1) and 95 % percentile interval of each column: sd, lower, upper."""
    return pd.DataFrame({"sd": samples.std(ddof=1), "lower": samples.quantile(0.025), "upper": samples.quantile(0.975)})


def bca(value: pd.Series, samples: pd.DataFrame, *left_out: pd.DataFrame) -> pd.DataFrame:
    """Bias-corrected and accelerated 95 % intervals.

    A percentile interval is off where resamples are: macro-F1 rises when rare labels are not drawn, and the size of a
    mean error can't fall below zero. This one asks how many resamples lie below the value itself, and moves both ends.

    Parameters
    ----------
    value : Series of float, shape (metrics,)
        Of the stays as they are.
    samples : DataFrame of float, shape (resamples, metrics)
    *left_out : DataFrames of float, shape (parts, metrics)
        For each thing that is drawn (stays, trainings): the values without each of its parts.

    Returns
    -------
    DataFrame, one row for each metric
        lower and upper; NaN where all resamples are. An end that lies beyond all resamples is the outermost one.

    Notes
    -----
    Source: Efron 1987; for several things that are drawn, as `scipy.stats.bootstrap` does.
    """
    n = samples.notna().sum().clip(lower=1)
    tied = (samples - value).abs() < 1e-12  # sums in another order differ by less
    share = (((samples < value) & ~tied).sum() + tied.sum() / 2) / n
    bias = norm.ppf(share.clip(0.5 / n, 1 - 0.5 / n))
    influence = [(len(part) - 1) * (part.mean() - part) for part in left_out]
    cubes = sum((each**3).sum() / len(each) ** 3 for each in influence)
    squares = sum((each**2).sum() / len(each) ** 2 for each in influence)
    acceleration = np.divide(cubes, 6 * squares**1.5, out=np.zeros(len(value)), where=squares > 0)
    ends = {}
    for name, z in ("lower", norm.ppf(0.025)), ("upper", norm.ppf(0.975)):
        moved = bias + z
        level = norm.cdf(bias + moved / np.maximum(1 - acceleration * moved, 1e-9))
        ends[name] = [samples[metric].quantile(q) for metric, q in zip(samples, level, strict=True)]
    return pd.DataFrame(ends, index=value.index)


def normal_p(difference, sd):
    """Two-sided p of a difference, by the normal distribution: 1 if there is neither a difference nor a spread."""
    with np.errstate(invalid="ignore", divide="ignore"):
        z = np.where(np.equal(difference, 0), 0, np.abs(difference) / sd)
    return 2 * norm.sf(z)


class Draws:
    """The same draws of n stays for whatever is to be compared on them.

    Parameters
    ----------
    n, resamples, seed : int

    Attributes
    ----------
    counts : numpy.ndarray of int32, shape (1 + parts + resamples, n)
        The stays as they are, without each part of them (`left_out_counts`), and resampled (`resample_counts`).
    """

    def __init__(self, n: int, resamples: int, seed: int):
        drawn, without = resample_counts(n, resamples, seed), left_out_counts(n, seed)
        self.counts = np.vstack([np.ones((1, n), np.int32), without, drawn])
        self.parts, self.resamples, self.seed = len(without), resamples, seed

    def evaluate(self, measure: Measure) -> pd.DataFrame:
        """What a measure says of all `counts`: a table for `difference`."""
        return evaluate(measure, self.counts)

    def difference(self, above: Sequence[pd.DataFrame], below: Sequence[pd.DataFrame] = ()) -> pd.DataFrame:
        """The mean of the models above minus the mean of those below, number by number.

        Parameters
        ----------
        above, below : lists of DataFrame
            From `evaluate`: a table for each training (fold, seed) of one model, and of the other, with equal columns.
            Without any below, the mean of those above itself is described.

        Returns
        -------
        DataFrame, one row for each column
            difference (of the stays as they are), sd (of the resamples), lower and upper (`bca`), p (`normal_p`).

        Notes
        -----
        Each resample draws the trainings too, with replacement, and so carries what another training would have
        changed. Of k trainings it shows k - 1 of k parts of that variance; of one it shows nothing. If both sides have
        as many trainings, they are drawn in pairs: the k-th fold of both shares its training stays.
        """
        sides = [
            np.stack([table.to_numpy(float) for table in side]) for side in (above, below) if side
        ]  # (k, rows, metrics)
        if len(sides) == 2:
            sides = [sides[0] - sides[1]] if len(above) == len(below) else [sides[0], -sides[1]]
        names, rest = above[0].columns, slice(1 + self.parts, None)
        value = pd.Series(sum(side[:, 0].mean(axis=0) for side in sides), names)
        without = sum(side[:, 1 : 1 + self.parts].mean(axis=0) for side in sides)
        left_out, samples = [pd.DataFrame(without, columns=names)], 0
        for i, side in enumerate(sides):
            k = len(side)
            drawn = resample_counts(k, self.resamples, [self.seed, i]) / k  # (resamples, k)
            samples = samples + np.einsum("rk,krm->rm", drawn, side[:, rest])
            if k > 1:
                change = (side[:, 0].mean(axis=0) - side[:, 0]) / (k - 1)
                left_out.append(pd.DataFrame(value.to_numpy() + change, columns=names))
        samples = pd.DataFrame(samples, columns=names)
        table = bca(value, samples, *left_out).assign(difference=value, sd=samples.std(ddof=1))
        return table.assign(p=normal_p(value, table["sd"]))[["difference", "sd", "lower", "upper", "p"]]


def difference(a: Scores | list[Scores], b: Scores | list[Scores], resamples: int, seed: int, subset=None):
    """Compare two models metric by metric, on the same stays and resamples.

    Parameters
    ----------
    a, b : Scores, or lists of Scores
        Of a list, such as the models of all folds, the means are compared.
    resamples, seed, subset
        As for `bootstrap`.

    Returns
    -------
    DataFrame
        As `Draws.difference`, one row for each metric.

    Raises
    ------
    StudyError
        If not all were scored on the same true labels in the same order.
    """
    sides = [side if isinstance(side, list) else [side] for side in (a, b)]
    first = sides[0][0]
    if any(s.n_labels != first.n_labels or not np.array_equal(s.truth, first.truth) for side in sides for s in side):
        raise StudyError("the models' true labels differ; compare predictions on the same stays in the same order")
    draws = Draws(first.truth.size, resamples, seed)
    return draws.difference(*([draws.evaluate(scored(one, subset)) for one in side] for side in sides))
