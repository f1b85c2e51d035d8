"""Can a model's confidence be believed, and what if it may pass a stay on to a coder?

The confidence of a stay is the softmax probability of its top-1 DRG. A resample is one count for each stay, as
`bootstrap.resample_counts` draws it: given the same counts, all models are judged on the same resamples.

Throughout, `confidence` (float64) and `hit` (bool), of shape (n,), are what `top1` returns of the n stays, and `counts`
(int) has shape (resamples, n).
"""

from __future__ import annotations

import numpy as np
import pandas as pd
from scipy.optimize import minimize_scalar
from scipy.special import log_softmax, softmax
from statsmodels.stats.proportion import proportion_confint

from drgstudy.bootstrap import summary
from drgstudy.study import StudyError


def top1(logits: np.ndarray, truth: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The confidence in each stay's top-1 DRG, and whether that DRG is the true one.

    Parameters
    ----------
    logits : numpy.ndarray of float, shape (n stays, k labels)
    truth : numpy.ndarray of int, shape (n,)
        Label indices.

    Returns
    -------
    confidence : numpy.ndarray of float64, shape (n,)
    hit : numpy.ndarray of bool, shape (n,)

    Raises
    ------
    StudyError
        If the shapes do not fit, there is no stay, or a logit is not finite.
    """
    logits, truth = np.asarray(logits, np.float64), np.asarray(truth)
    if logits.ndim != 2 or not logits.size or truth.shape != logits.shape[:1] or not np.isfinite(logits).all():
        raise StudyError(
            f"logits of shape {logits.shape} beside truth of shape {truth.shape}; give one row of finite numbers and "
            "one label index for each stay, at least one"
        )
    return softmax(logits, axis=1).max(axis=1), logits.argmax(axis=1) == truth


def reliability(confidence: np.ndarray, hit: np.ndarray, bins: int) -> pd.DataFrame:
    """The points of a reliability diagram, from the least confident stays to the most.

    The bins hold equally many stays, for a model's confidences crowd together: of ten bins of equal width several would
    hold a handful of stays each, whose accuracy says nothing. Equal confidences share a bin, so there may be fewer.

    Returns
    -------
    DataFrame, one row for each bin
        confidence (mean), accuracy, stays, and lower and upper: the accuracy's 95 % Wilson interval.

    Raises
    ------
    StudyError
        If `bins` is below 1.
    """
    stays = pd.DataFrame({"confidence": confidence, "hit": hit}).groupby(_bin(confidence, bins))
    table = stays.agg(confidence=("confidence", "mean"), accuracy=("hit", "mean"), stays=("hit", "size"))
    table["lower"], table["upper"] = proportion_confint(stays["hit"].sum(), table["stays"], method="wilson")
    return table


def calibration(confidence: np.ndarray, hit: np.ndarray, bins: int, counts: np.ndarray) -> pd.DataFrame:
    """How far confidence and accuracy lie apart, with 95 % intervals; the bins are those of the stays as they are.

    Returns
    -------
    DataFrame with the columns value, sd, lower, upper and the rows
        confidence (mean), accuracy, overconfidence (the first minus the second; negative: too modest) and ece, the
        expected calibration error: the absolute gap of each bin, weighted by the bin's stays. Noise in the bins never
        cancels, so the ece of a resample is biased upwards; `chance_error` says how much of it is chance.

    Notes
    -----
    Source: Naeini et al. 2015 and Guo et al. 2017 (equation 3), here with bins of equal mass.
    """
    n, index = confidence.size, _bin(confidence, bins)
    weight = np.vstack([np.ones((1, n), int), counts]) / n  # (1 + resamples, n); the stays as they are come first
    gaps = weight @ (np.eye(index.max() + 1)[index] * (confidence - hit)[:, None])  # (1 + resamples, bins)
    measures = {"confidence": weight @ confidence, "accuracy": weight @ hit, "overconfidence": gaps.sum(axis=1)}
    samples = pd.DataFrame(measures | {"ece": np.abs(gaps).sum(axis=1)})
    return summary(samples[1:]).assign(value=samples.iloc[0])[["value", "sd", "lower", "upper"]]


def chance_error(confidence: np.ndarray, bins: int, draws: int, seed: int) -> np.ndarray:
    """Calibration errors that a perfectly calibrated model with these confidences would show by chance: shape (draws,).

    In each draw every stay is right with exactly the probability that the model states for it.

    Notes
    -----
    Source: Bröcker and Smith 2007 (consistency resampling).
    """
    member, rng = np.eye(bins)[_bin(confidence, bins)], np.random.default_rng(seed)  # (n, bins)
    gaps = ((confidence - (rng.random(confidence.size) < confidence)) @ member for _ in range(draws))
    return np.array([np.abs(gap).sum() for gap in gaps]) / confidence.size


def coverage(confidence: np.ndarray, hit: np.ndarray, count: np.ndarray | None = None) -> pd.DataFrame:
    """Accuracy among the most confident stays, if the model answers these and passes the others on to a coder.

    Stays of equal confidence are answered together or not at all, so the order of the stays never matters. `count`, of
    shape (n,), says how often each stay is taken; by default, once.

    Returns
    -------
    DataFrame, one row for each share of the stays that the model can answer, the smallest first
        threshold (the least confidence that is answered), coverage (the share), accuracy (of the answered stays).
    """
    count = np.ones(confidence.size, int) if count is None else count
    order = np.argsort(-confidence)
    order = order[count[order] > 0]
    last = np.diff(confidence[order], append=-1) != 0
    stays, right = (np.cumsum(number[order])[last] for number in (count, count * hit))
    return pd.DataFrame(
        {"threshold": confidence[order][last], "coverage": stays / count.sum(), "accuracy": right / stays}
    )


def coverage_interval(curve: pd.DataFrame, n: int) -> pd.DataFrame:
    """A curve of `coverage` of `n` stays with lower and upper, the 95 % Wilson interval of the accuracy at each point."""
    stays = (curve["coverage"] * n).round()
    lower, upper = proportion_confint((curve["accuracy"] * stays).round(), stays, method="wilson")
    return curve.assign(lower=lower, upper=upper)


def coverage_at(
    confidence: np.ndarray, hit: np.ndarray, targets: list[float], counts: np.ndarray, seed: int, fewest: int = 0
) -> pd.DataFrame:
    """The share of stays that a model answers, and how often it is right there, by a threshold chosen on other stays.

    The stays fall at random into two halves. On each, the lowest threshold is chosen at which the accuracy is at least the
    target; it is judged on the other half, and both halves count together. Judged on the stays that chose it, a threshold
    would always seem to keep what it promises. In every resample the thresholds are chosen anew; the halves stay.

    Parameters
    ----------
    targets : list of float
        Accuracies above 0 and at most 1.
    seed : int
        Of the halves, which are those of `temperature_scaled`.
    fewest : int
        The least number of stays that a threshold must let the model answer in the half that chooses it.

    Returns
    -------
    DataFrame indexed by target
        value (the coverage; a half for which no threshold reaches the target counts as not answered), sd, lower and upper
        (95 %) over the resamples; accuracy of the answered stays, accuracy_lower and accuracy_upper, NaN if none is
        answered; and the mean threshold of the halves, NaN if there is none.

    Raises
    ------
    StudyError
        If a target is not above 0 and at most 1.
    """
    if wrong := [target for target in targets if not 0 < target <= 1]:
        raise StudyError(f"parameter targets: {wrong[0]} is no accuracy above 0 and at most 1; give e.g. [0.8, 0.9]")

    half = _halves(len(hit), seed)

    def judged(count: np.ndarray) -> list:
        """For each target coverage, accuracy and threshold, where each stay is taken `count` times."""
        curves = [coverage(confidence, hit, count * (half == side)) for side in (0, 1)]
        enough = [
            (curve["coverage"] * count[half == side].sum()).round() >= fewest for side, curve in enumerate(curves)
        ]
        rows = []
        for target in targets:
            limits = [
                curve["threshold"][fine & (curve["accuracy"] >= target)].min()
                for curve, fine in zip(curves, enough, strict=True)
            ]
            # Where a half has no threshold it is NaN, and no stay of the other half is taken.
            taken = count * (confidence >= np.array(limits)[1 - half])
            accuracy = taken @ hit / taken.sum() if taken.any() else np.nan
            rows.append([taken.sum() / count.sum(), accuracy, pd.Series(limits).mean()])
        return rows

    samples = np.array([judged(count) for count in [np.ones_like(half), *counts]])  # (1 + resamples, targets, 3)
    shares, accuracies = (summary(pd.DataFrame(samples[1:, :, i], columns=targets)) for i in (0, 1))
    table = pd.DataFrame(samples[0], targets, ["value", "accuracy", "threshold"]).rename_axis("target").join(shares)
    table = table.join(accuracies[["lower", "upper"]].add_prefix("accuracy_"))
    return table[["value", "sd", "lower", "upper", "accuracy", "accuracy_lower", "accuracy_upper", "threshold"]]


def temperature_scaled(logits: np.ndarray, truth: np.ndarray, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Would one number repair the confidences? Divide the logits by a temperature that is fitted on the *other* stays.

    The stays fall at random into two halves; each half's logits are divided by the temperature that gives the other
    half the highest likelihood. So no stay's label influences its own confidence. Rankings do not change.

    Returns
    -------
    tempered : numpy.ndarray of float64, shape (n, k)
    temperatures : numpy.ndarray of float64, shape (2,)
        Above 1 they make a model more modest.

    Raises
    ------
    StudyError
        If there are fewer than two stays.

    Notes
    -----
    Source: Guo et al. 2017, section 4.2, who fit it on validation stays.
    """
    if len(truth) < 2:
        raise StudyError(f"{len(truth)} stays can't be halved to fit a temperature; give at least 2")
    half = _halves(len(truth), seed)
    logits = np.asarray(logits, np.float64)

    def fitted(part: np.ndarray) -> float:
        rows, labels = logits[part], truth[part][:, None]

        def loss(log_temperature: float) -> float:
            return -np.take_along_axis(log_softmax(rows / np.exp(log_temperature), axis=1), labels, axis=1).mean()

        return np.exp(minimize_scalar(loss, bounds=(-4, 4), method="bounded").x)

    temperatures = np.array([fitted(half != side) for side in (0, 1)])
    return logits / temperatures[half][:, None], temperatures


def assess(logits: np.ndarray, truth: np.ndarray, bins: int, counts: np.ndarray, seed: int) -> pd.DataFrame:
    """What `calibration` measures, how much of it chance alone would make, and how much of it a temperature leaves.

    Returns
    -------
    DataFrame with the columns value, sd, lower, upper and the rows
        of `calibration`; ece_tempered, the ece after `temperature_scaled`; ece_by_chance, the mean of as many draws of
        `chance_error` as there are resamples, of which 95 % lie below its upper; and temperature, the mean of the two.
    """
    confidence, hit = top1(logits, truth)
    tempered, temperatures = temperature_scaled(logits, truth, seed)
    after = calibration(*top1(tempered, truth), bins, counts).loc[["ece"]].rename({"ece": "ece_tempered"})
    table = pd.concat([calibration(confidence, hit, bins, counts), after])
    chance = chance_error(confidence, bins, len(counts), seed)
    table.loc["ece_by_chance", ["value", "upper"]] = chance.mean(), np.quantile(chance, 0.95)
    table.loc["temperature", "value"] = temperatures.mean()
    return table


def _halves(n: int, seed: int) -> np.ndarray:
    """To which half, 0 or 1, each of n stays belongs: int, shape (n,)."""
    return np.random.default_rng(seed).permutation(n) % 2


def _bin(confidence: np.ndarray, bins: int) -> np.ndarray:
    """Index of each stay's bin, from 0, shape (n,); the bins have equal mass, but for ties, and none is empty."""
    if bins < 1:
        raise StudyError(f"parameter bins is {bins}; give at least 1")
    edges = np.quantile(confidence, np.arange(1, bins) / bins)
    return np.unique(np.searchsorted(edges, confidence), return_inverse=True)[1]
