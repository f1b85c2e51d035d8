"""The six metrics of Table 1, for any number of resamples of the same stays at once.

A resample is one count for each stay: how often it was drawn. The scores are sorted once; a resample then costs one sum
of counts over the (stay, label) pairs. All sums are of integers (or halves) in float64, hence exact in any order.
"""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor

import numpy as np
from scipy.sparse import csr_array, get_index_dtype
from statsmodels.stats.proportion import proportion_confint

from drgstudy.study import StudyError

TOP = (1, 5, 10)
METRICS = {"macro_f1": "macro-F1"} | {f"acc_at_{k}": f"top-{k} accuracy" for k in TOP}
METRICS |= {"macro_auc": "macro-AUC", "micro_auc": "micro-AUC"}
"""The six metrics and their names in print."""


class Scores:
    """The logits of one model on the test stays, sorted and ready to be scored under any counts of the stays.

    Parameters
    ----------
    logits : numpy.ndarray of float, shape (n stays, c labels)
    truth : numpy.ndarray of int, shape (n,)
        Index of each stay's true label, from 0 to c - 1.

    Raises
    ------
    StudyError
        If the shapes do not fit, there is no stay or only one label, a logit is not finite, or a truth is no label.
    """

    def __init__(self, logits: np.ndarray, truth: np.ndarray):
        logits, truth = np.asarray(logits), np.asarray(truth)
        if logits.ndim != 2 or logits.shape[0] < 1 or logits.shape[1] < 2 or logits.dtype.kind not in "fiu":
            raise StudyError(
                f"logits has shape {logits.shape} and type {logits.dtype}; give one row of numbers for "
                "each stay, at least one, and a column for each label, at least two"
            )
        if truth.shape != logits.shape[:1] or truth.dtype.kind not in "iu":
            raise StudyError(
                f"truth has shape {truth.shape} and type {truth.dtype} beside logits of shape "
                f"{logits.shape}; give one integer label index for each row of logits"
            )
        if not np.isfinite(logits).all():
            raise StudyError("logits contains NaN or infinity; mend the training run that diverged and predict again")
        n, c = logits.shape
        if truth.min() < 0 or truth.max() >= c:
            raise StudyError(
                f"truth holds labels from {truth.min()} to {truth.max()}, but logits has the columns 0 to "
                f"{c - 1}; use the label order that the model was trained with"
            )
        self.truth, self.n_labels = truth.astype(np.int64), c
        stays = np.arange(n)
        own = logits[stays, truth][:, None]  # (n, 1)
        ahead = (logits > own) | ((logits == own) & (np.arange(c) > truth[:, None]))  # (n, c)
        self._in_top = ahead.sum(axis=1) < np.array(TOP)[:, None]  # (3, n)
        predicted = logits.argmax(axis=1)
        self._hit = predicted == truth
        self._true = csr_array((np.ones(n), (self.truth, stays)), shape=(c, n))
        self._predicted = csr_array((np.ones(n), (predicted, stays)), shape=(c, n))
        by_label = np.ascontiguousarray(_softmax(logits).T)  # (c, n)
        positive = by_label[self.truth, stays]  # (n,)
        with ThreadPoolExecutor(2) as pool:
            within = pool.submit(_Ranking, by_label, self.truth, positive)
            overall = pool.submit(_Ranking, by_label.reshape(1, -1), np.zeros(n, np.int64), positive)
        self._within_label, self._overall = within.result(), overall.result()

    def in_top(self, k: int) -> np.ndarray:
        """Whether each stay's true label is among the k highest logits, for k of `TOP`: bool, shape (n,)."""
        return self._in_top[TOP.index(k)]

    def among(self, labels) -> np.ndarray:
        """Which stays have a true label among these label indices: a bool array of shape (n,) that serves as counts.

        All labels still compete in such a subset (top 300, 50, 30 DRGs; Table 1). Raises StudyError if it is empty.
        """
        labels = np.asarray(labels)
        if labels.dtype.kind not in "iu" or not np.isin(labels, np.arange(self.n_labels)).all():
            raise StudyError(
                f"the subset holds something that is no label index from 0 to {self.n_labels - 1}; "
                "give it as column numbers of logits"
            )
        among = np.isin(self.truth, labels)
        if not among.any():
            raise StudyError("the subset holds no stay: none has its true label in it; choose labels of the test set")
        return among

    def evaluate(self, counts: np.ndarray | None = None) -> dict:
        """Each of `METRICS` over the stays, where every stay is taken as often as `counts` says.

        Parameters
        ----------
        counts : numpy.ndarray of int or bool, shape (n,) or (resamples, n), optional
            By default each stay counts once.

        Returns
        -------
        dict of str to float, or to numpy.ndarray of float64, shape (resamples,)
            macro_f1: the predicted label has the highest logit and is the first of equal ones; mean over the labels
            present in the truth. acc_at_k: the truth is among the k highest logits; of equal ones the last come first,
            as in scikit-learn's top_k_accuracy_score. macro_auc: softmax probabilities, one label against the rest;
            mean over the labels present in the truth, without a label that all stays have, for it has no AUC.
            micro_auc: all (stay, label) pairs as one ranking. Ties count half in both. What is undefined is NaN.

        Raises
        ------
        StudyError
            If the counts do not fit the stays, or one is negative or no whole number.

        Notes
        -----
        Source: DRG-LLaMA, Table 1 and Methods, "Statistical analysis".
        """
        counts = np.ones(self.truth.size, int) if counts is None else np.asarray(counts)
        if (
            counts.ndim not in (1, 2)
            or not counts.size
            or counts.shape[-1] != self.truth.size
            or counts.dtype.kind not in "iub"
        ):
            raise StudyError(
                f"counts has shape {counts.shape} and type {counts.dtype}; give whole numbers, one for "
                f"each of the {self.truth.size} stays, or a row of them for each resample"
            )
        if counts.min() < 0:
            raise StudyError("counts holds a negative number; a stay is drawn 0 times or more")
        weight = np.ascontiguousarray(np.atleast_2d(counts).T, dtype=np.float64)  # (n, resamples)
        total = weight.sum(axis=0)
        true, predicted = self._true @ weight, self._predicted @ weight  # (c, resamples)
        with np.errstate(invalid="ignore", divide="ignore"):
            f1 = 2 * (self._true @ (weight * self._hit[:, None])) / (true + predicted)
            # Rank sums hold the positives' pairs with one another too, half their squared weight: take it off.
            wins = self._true @ (weight * self._within_label.midranks(weight)) - true**2 / 2
            pairs_won = (weight * self._overall.midranks(weight)).sum(axis=0) - total**2 / 2
            values = (
                _mean(f1, true > 0),
                *(self._in_top @ weight / total),
                _mean(wins / (true * (total - true)), (true > 0) & (true < total)),
                pairs_won / (total * total * (self.n_labels - 1)),
            )
        if counts.ndim == 1:
            values = (float(value[0]) for value in values)
        return dict(zip(METRICS, values, strict=True))


class _Ranking:
    """Ranks of every stay's true label among the entries of its row of `scores`, where stays have weights.

    The rows are laid end to end, each in ascending order, and cut before and after each score of a true label. A
    resample then needs only the weight between the cuts: a sparse matrix times the weights.

    Parameters
    ----------
    scores : numpy.ndarray of float64, shape (rows, m)
        Entry e of the flattened array belongs to stay e modulo n.
    row : numpy.ndarray of int, shape (n,)
        The row in which each stay's true label is ranked.
    positive : numpy.ndarray of float64, shape (n,)
        The score of each stay's true label.
    """

    def __init__(self, scores: np.ndarray, row: np.ndarray, positive: np.ndarray):
        n, m = row.size, scores.shape[1]
        order = np.argsort(scores, axis=1)  # (rows, m)
        low, high = np.empty((2, n), np.int64)
        for r in np.unique(row):
            mine = np.flatnonzero(row == r)
            for cut, side in (low, "left"), (high, "right"):
                cut[mine] = r * m + np.searchsorted(scores[r], positive[mine], side, sorter=order[r])
        cuts = np.unique(np.concatenate([np.arange(0, scores.size, 2**12), [scores.size], low, high]))
        self.row, self.low, self.high = row, np.searchsorted(cuts, low), np.searchsorted(cuts, high)
        index = get_index_dtype(maxval=scores.size)
        np.remainder(order, n, out=order)
        self.between = csr_array(
            (np.ones(scores.size, np.uint16), order.ravel().astype(index), cuts.astype(index)),
            shape=(cuts.size - 1, n),
        )

    def midranks(self, weight: np.ndarray) -> np.ndarray:
        """Weight of the entries below each true label plus half of its ties', itself included: (n, resamples)."""
        # uint16 is three times as fast, and exact: at most 2**12 entries between two cuts, each drawn below 2**4 times.
        exact = np.uint16 if weight.max() < 2**4 else np.float64
        below = np.zeros((self.between.shape[0] + 1, weight.shape[1]))
        np.cumsum(self.between @ weight.astype(exact), axis=0, dtype=np.float64, out=below[1:])
        # Each row before a label's own weighs as much as all stays; `_overall` has a single row.
        return (below[self.low] + below[self.high]) / 2 - self.row[:, None] * weight.sum(axis=0)


def _softmax(logits: np.ndarray) -> np.ndarray:
    """Softmax over the labels in float64, ten times faster than scipy's but equal bit for bit: its bits decide ties."""
    odds = logits - logits.max(axis=1, keepdims=True).astype(np.float64)
    np.exp(odds, out=odds)
    odds /= odds.sum(axis=1, keepdims=True)
    return odds


def _mean(values: np.ndarray, where: np.ndarray) -> np.ndarray:
    """Mean over the labels that count, from `values` and `where` of shape (c, resamples): shape (resamples,)."""
    return values.sum(axis=0, where=where) / where.sum(axis=0)


def share(hits: np.ndarray) -> dict[str, float]:
    """The share of `hits` (bool, shape (n,)) and its 95 % Wilson interval: value, lower, upper."""
    lower, upper = proportion_confint(np.sum(hits), len(hits), method="wilson")
    return {"value": float(np.mean(hits)), "lower": float(lower), "upper": float(upper)}
