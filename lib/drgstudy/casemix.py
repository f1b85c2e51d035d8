"""What predicted DRGs mean in money: the case-mix index (CMI) is the mean relative weight of the stays."""

from __future__ import annotations

import numpy as np
import pandas as pd
from scipy.special import softmax

from drgstudy.bootstrap import summary
from drgstudy.study import StudyError


def predicted_weights(logits: np.ndarray, weights: np.ndarray) -> dict[str, np.ndarray]:
    """Two ways in which a model names the relative weight of a stay.

    Parameters
    ----------
    logits : array of shape (n stays, k labels), float
    weights : array of shape (k,), float
        The relative weight of each label, of any fiscal year.

    Returns
    -------
    dict of str to array of shape (n,)
        "top-1": the weight of the top-1 DRG; "expected": the mean weight of all DRGs under the softmax probabilities.

    Raises
    ------
    StudyError
        If there is not one finite weight, zero or more, for each label.
    """
    weights = np.asarray(weights, np.float64)
    if weights.shape != logits.shape[1:] or not (np.isfinite(weights) & (weights >= 0)).all():
        raise StudyError(
            f"relative weights of shape {weights.shape} beside logits of shape {logits.shape}; give one finite weight, "
            "zero or more, for each label: a DRG without a weight in that fiscal year can't be paid"
        )
    return {
        "top-1": weights[logits.argmax(axis=1)],
        "expected": softmax(logits.astype(np.float64), axis=1) @ weights,
    }


def case_mix(true: np.ndarray, predicted: np.ndarray, counts: np.ndarray, payment: float) -> pd.DataFrame:
    """The case-mix index of the stays, what a model would have made of it, and the difference in dollars.

    Parameters
    ----------
    true, predicted : arrays of shape (n,), float
        Relative weights of the stays.
    counts : array of shape (resamples, n), int
        As `bootstrap.resample_counts` draws them; the true and the predicted weight of a stay are drawn together.
    payment : float
        Dollars for a relative weight of 1; a stay is paid its weight times this.

    Returns
    -------
    DataFrame with value, sd, lower, upper (95 % interval), for
        cmi_true and cmi_predicted; error_percent (predicted minus true, over true: its size is the paper's CMI error);
        dollars_per_100 (predicted minus true payment of 100 stays); mae_weight and mae_dollars (mean absolute error of a
        stay). In the first three errors of opposite sign cancel, in the last two they don't.

    Source: Early DRG, Methods (CMI error) and Discussion (payment at $6,000).
    """
    n = true.size
    if not n or predicted.shape != true.shape or not true.sum() > 0:
        raise StudyError(
            f"true weights of shape {true.shape} and sum {true.sum():g} beside predicted ones of shape "
            f"{predicted.shape}; give one of each for each stay, and true weights that are not all zero"
        )
    weight = np.vstack([np.ones((1, n), int), counts]) / n  # the stays as they are come first
    cmi, guess, off = (weight @ values for values in (true, predicted, np.abs(predicted - true)))
    measures = {"cmi_true": cmi, "cmi_predicted": guess, "error_percent": 100 * (guess / cmi - 1)}
    measures |= {"dollars_per_100": 100 * payment * (guess - cmi), "mae_weight": off, "mae_dollars": payment * off}
    samples = pd.DataFrame(measures)
    return summary(samples[1:]).assign(value=samples.iloc[0])[["value", "sd", "lower", "upper"]]
