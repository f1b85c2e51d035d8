"""What predicted DRGs mean in money: the case-mix index (CMI) is the mean relative weight of the stays."""

from __future__ import annotations

import numpy as np
import pandas as pd
from scipy.special import softmax
from scipy.stats import spearmanr

from drgstudy.bootstrap import Draws, Measure, resample_counts, summary
from drgstudy.study import StudyError


def predicted_weights(logits: np.ndarray, weights: np.ndarray) -> dict[str, np.ndarray]:
    """Two ways in which a model names the relative weight of a stay.

    Parameters
    ----------
    logits : numpy.ndarray of float, shape (n stays, k labels)
    weights : numpy.ndarray of float, shape (k,)
        The relative weight of each label, of any fiscal year.

    Returns
    -------
    dict of str to numpy.ndarray of float64, shape (n,)
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


def mean_guess(trained: pd.Series, shape: tuple[int, ...]) -> np.ndarray:
    """A guess that reads nothing: each stay gets the mean relative weight of the training stays.

    It is the yardstick of every model that names weights: what a model does not do better, it has not read.
    """
    return np.full(shape, trained.mean())


def case_mix(true: np.ndarray, predicted: np.ndarray, counts: np.ndarray, base_payment: float) -> pd.DataFrame:
    """The case-mix index of the stays, what a model would have made of it, and the difference in dollars.

    Parameters
    ----------
    true, predicted : numpy.ndarray of float, shape (n,)
        Relative weights of the stays.
    counts : numpy.ndarray of int, shape (resamples, n)
        As `bootstrap.resample_counts` draws them; the true and the predicted weight of a stay are drawn together.
    base_payment : float
        Dollars for a relative weight of 1; a stay is paid its weight times this.

    Returns
    -------
    DataFrame with the columns value, sd, lower, upper (95 % interval) and the rows
        cmi_true and cmi_predicted; error_percent (predicted minus true, over true: its size is the paper's CMI error);
        dollars_per_100 (predicted minus true payment of 100 stays); mae_weight and mae_dollars (mean absolute error of
        a stay). Errors of opposite sign cancel in error_percent and dollars_per_100, but not in the last two.

    Raises
    ------
    StudyError
        If there is no stay, there are not as many weights of each kind, or the true weights are all zero.

    Notes
    -----
    Source: early-DRG paper, Methods (CMI error) and Discussion (payment at $6,000).
    """
    n = true.size
    if not n or predicted.shape != true.shape or not true.sum() > 0:
        raise StudyError(
            f"true weights of shape {true.shape} and sum {true.sum():g} beside predicted ones of shape "
            f"{predicted.shape}; give one of each for each stay, and true weights that are not all zero"
        )
    weight = np.vstack([np.ones((1, n), int), counts]) / n  # (1 + resamples, n); the stays as they are come first
    cmi, guess, off = (weight @ values for values in (true, predicted, np.abs(predicted - true)))
    measures = {"cmi_true": cmi, "cmi_predicted": guess, "error_percent": 100 * (guess / cmi - 1)}
    measures |= {
        "dollars_per_100": 100 * base_payment * (guess - cmi),
        "mae_weight": off,
        "mae_dollars": base_payment * off,
    }
    samples = pd.DataFrame(measures)
    return summary(samples[1:]).assign(value=samples.iloc[0])[["value", "sd", "lower", "upper"]]


def cmi_error(true: np.ndarray, predicted: np.ndarray) -> np.ndarray | float:
    """Absolute error of the case-mix index in per cent: |predicted - true| / true mean weight.

    Parameters
    ----------
    true, predicted : numpy.ndarray of float, shape (..., n stays)
        Relative weights. The means are taken over the last axis; the other axes are broadcast.

    Raises
    ------
    StudyError
        If there are no stays, not one weight of each kind for each stay, or true weights whose mean is not above zero.

    Notes
    -----
    Source: early-DRG paper, Methods, "Cross-validation and statistical analysis".
    """
    true, predicted = np.asarray(true), np.asarray(predicted)
    if not (true.shape[-1] == predicted.shape[-1] > 0 and np.isfinite(predicted).all() and (true.mean(-1) > 0).all()):
        raise StudyError(
            f"true weights of shape {true.shape} beside predicted ones of shape {predicted.shape}; give one finite "
            "weight of each for each stay, and true weights that are not all zero"
        )
    return 100 * np.abs(predicted.mean(-1) - true.mean(-1)) / true.mean(-1)


def errors_by_hour(true: np.ndarray, predicted: dict[int, np.ndarray]) -> pd.DataFrame:
    """The error of the case-mix index by the hour of the stays at which it is predicted.

    Parameters
    ----------
    true : numpy.ndarray of float, shape (n,)
    predicted : dict of hour to numpy.ndarray of float, shape (models, n)

    Returns
    -------
    DataFrame, one row for each hour
        hour; mean and sd over the models (ddof 1: NaN with one); each, the list of the models' errors; all in per cent.

    Notes
    -----
    Source: early-DRG paper, Figure 1 and Supplementary Table 2.
    """
    each = {hour: pd.Series(cmi_error(true, weights)) for hour, weights in predicted.items()}
    rows = [{"hour": hour, "mean": e.mean(), "sd": e.std(ddof=1), "each": e.tolist()} for hour, e in each.items()]
    return pd.DataFrame(rows)


def errors_by_size(
    true: np.ndarray, predicted: np.ndarray, sizes: list[int], draws: int = 20, seed: int = 0
) -> pd.DataFrame:
    """The error of the case-mix index of populations of several sizes, drawn with replacement from the test cohort.

    Parameters
    ----------
    true : numpy.ndarray of float, shape (n,)
    predicted : numpy.ndarray of float, shape (models, n)
    sizes : list of int
        Stays of a population; may exceed n.
    draws : int
        Populations of each size for each model; no two models share one. Equal seeds draw the same stays.
    seed : int

    Returns
    -------
    DataFrame, one row for each size
        size; cohort, the stays that it is drawn from (n); mean, lower and upper: the mean of the models * draws errors
        (per cent) and its 95 % bootstrap interval; cmi_true and cmi_predicted, the mean indices.

    Raises
    ------
    StudyError
        If a size or `draws` is below 1.

    Notes
    -----
    Source: early-DRG paper, Results (CMI prediction) and Figure 2.
    """
    table = []
    for size in sizes:
        if min(size, draws) < 1:
            raise StudyError(f"sizes holds {size} and draws is {draws}; populations need at least 1 of each")
        rows = np.random.default_rng([seed, size]).integers(true.size, size=(len(predicted), draws, size))
        drawn = np.take_along_axis(predicted[:, None], rows, axis=2)  # (models, draws, size)
        errors = cmi_error(true[rows], drawn).ravel()  # (models * draws,)
        means = resample_counts(errors.size, 1000, seed) @ errors / errors.size
        lower, upper = np.quantile(means, [0.025, 0.975])
        row = {"size": size, "cohort": true.size, "mean": errors.mean(), "lower": lower, "upper": upper}
        table.append(row | {"cmi_true": true[rows].mean(), "cmi_predicted": drawn.mean()})
    return pd.DataFrame(table)


def cmi_measure(true: np.ndarray, predicted: np.ndarray) -> Measure:
    """The error of the case-mix index in per cent, its size ("error") and with its sign ("signed"), for `bootstrap.Draws`.

    `true` and `predicted` are relative weights of shape (n,).
    """

    def measure(counts: np.ndarray) -> dict[str, np.ndarray]:
        signed = 100 * (counts @ predicted / (counts @ true) - 1)
        return {"error": np.abs(signed), "signed": signed}

    return measure


def change_by_hour(true: np.ndarray, earlier: np.ndarray, later: np.ndarray, resamples: int, seed: int) -> pd.DataFrame:
    """The error of the case-mix index by two predictions and its change, with 95 % intervals over stays and models.

    Parameters
    ----------
    true : numpy.ndarray of float, shape (n,)
    earlier, later : numpy.ndarray of float, shape (models, n)
        Weights predicted at two hours, or by a guess that reads nothing (one model) and by models; a stay is drawn with
        both, and the models are drawn too.
    resamples, seed : int

    Returns
    -------
    DataFrame with the columns value, lower, upper and the rows earlier, later, change
        Means over the models: errors in per cent of the true index, and their change in percentage points.
    """
    draws = Draws(true.size, resamples, seed)
    before, after = ([draws.evaluate(cmi_measure(true, guess)) for guess in hour] for hour in (earlier, later))
    found = {"earlier": draws.difference(before), "later": draws.difference(after)}
    found["change"] = draws.difference(after, before)
    table = pd.DataFrame({name: effects.loc["error"] for name, effects in found.items()}).T
    return table.rename(columns={"difference": "value"})[["value", "lower", "upper"]]


def cancelled(true: np.ndarray, predicted: np.ndarray, base_payment: float = 6000.0) -> dict[str, float]:
    """How much of the stays' errors cancels in their total.

    Parameters
    ----------
    true : numpy.ndarray of float, shape (n,)
    predicted : numpy.ndarray of float, shape (models, n)
    base_payment : float
        Dollars for a relative weight of 1.

    Returns
    -------
    dict of str to float
        stay_dollars (mean absolute error of a stay), total_dollars (absolute error of the total, divided by the stays),
        both means over the models; and cancels, the share of the stays' errors that cancels in the total.
    """
    off = base_payment * (predicted - true)
    single, total = np.abs(off).mean(axis=1), np.abs(off.mean(axis=1))
    return {"stay_dollars": single.mean(), "total_dollars": total.mean(), "cancels": 1 - total.sum() / single.sum()}


def mae_difference(true: np.ndarray, a: np.ndarray, b: np.ndarray, resamples: int, seed: int) -> dict[str, float]:
    """Mean absolute error of weights `a` minus that of `b`, each (models, n), with a 95 % interval over the stays."""
    gain = np.abs(a - true).mean(axis=0) - np.abs(b - true).mean(axis=0)  # (n,)
    lower, upper = np.quantile(resample_counts(gain.size, resamples, seed) @ gain / gain.size, [0.025, 0.975])
    return {"difference": gain.mean(), "lower": lower, "upper": upper}


def payments(
    true: np.ndarray, predicted: dict[int, np.ndarray], rows: np.ndarray, base_payment: float = 6000.0
) -> pd.DataFrame:
    """True and predicted case-mix index and payment of some stays, by hour.

    Parameters
    ----------
    true : numpy.ndarray of float, shape (n,)
    predicted : dict of hour to numpy.ndarray of float, shape (models, n)
    rows : numpy.ndarray of int
        Positions of the sampled stays, repeated or not.
    base_payment : float
        Dollars for a relative weight of 1.

    Returns
    -------
    DataFrame, one row for each hour
        hour; stays; cohort, the stays that they were sampled from (n); cmi_true; cmi_predicted (mean over the models),
        lowest and highest of the models; dollars_true and dollars_predicted of all sampled stays.

    Notes
    -----
    Source: early-DRG paper, Figure 3.
    """
    table = []
    for hour, weights in predicted.items():
        cmi, each = true[rows].mean(), weights[:, rows].mean(axis=1)
        row = {"hour": hour, "stays": len(rows), "cohort": true.size, "cmi_true": cmi, "cmi_predicted": each.mean()}
        row |= {"lowest": each.min(), "highest": each.max()}
        table.append(
            row | {f"dollars_{key}": row[f"cmi_{key}"] * len(rows) * base_payment for key in ("true", "predicted")}
        )
    return pd.DataFrame(table)


def regression_scores(true: np.ndarray, predicted: np.ndarray) -> dict[str, float]:
    """How near predicted weights come to the true ones, stay by stay and in the mean.

    Parameters
    ----------
    true, predicted : numpy.ndarray of float, shape (n,)

    Returns
    -------
    dict of str to float
        mae and rmse (in relative weight), spearman (NaN if all weights of a kind are equal), cmi_error_percent.

    Notes
    -----
    Source: early-DRG paper, Supplementary Method 3 and Supplementary Table 1.
    """
    error, off = float(cmi_error(true, predicted)), np.asarray(predicted) - true
    spearman = float(spearmanr(true, predicted).statistic) if np.ptp(predicted) and np.ptp(true) else np.nan
    mae, rmse = float(np.abs(off).mean()), float(np.sqrt((off**2).mean()))
    return {"mae": mae, "rmse": rmse, "spearman": spearman, "cmi_error_percent": error}
