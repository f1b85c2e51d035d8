"""DRGs as outputs of a model: one label for each DRG, or two, its base DRG and its CC/MCC label.

Both kinds of labels have ``outputs`` (what each output of a model stands for), ``encode`` codes for training, and turn
a model's outputs into scores of the same DRGs, ``codes``, by ``drg_logits``.
"""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np
import pandas as pd
from scipy.special import log_softmax, logsumexp

from drgstudy import drgs
from drgstudy.study import StudyError


class LabelSpace:
    """One-to-one map between DRG codes and 0, 1, ...: ascending, as in DRG-LLaMA's published code.

    Parameters
    ----------
    codes : iterable of str
        DRG codes ("001"), in any order, repeated or not.
    known : iterable of str, optional
        All codes of the DRG system; those of v34 by default.

    Raises
    ------
    StudyError
        For a code that is not known, and in `encode` and `decode` for one that this space does not have.
    """

    def __init__(self, codes: Iterable[str], known: Iterable[str] | None = None):
        self.codes = np.array(sorted(set(codes)), dtype=object)
        if unknown := sorted(set(self.codes) - set(drgs.v34().index if known is None else known)):
            system = "a v34 code like '001'; harmonize the codes first" if known is None else "a code of this system"
            raise StudyError(f"label space: {unknown[0]!r} is not {system}")
        self._position = {code: position for position, code in enumerate(self.codes)}

    def __len__(self) -> int:
        return len(self.codes)

    @property
    def outputs(self) -> np.ndarray:
        """What each output of a model stands for: the codes themselves."""
        return self.codes

    def encode(self, codes: Iterable[str]) -> np.ndarray:
        """Label indices of these codes: int64, shape (codes,)."""
        try:
            return np.array([self._position[code] for code in codes], dtype=np.int64)
        except KeyError as error:
            raise StudyError(
                f"label space: {error} is not one of its {len(self)} codes; "
                "drop the stay or build the labels from the whole cohort"
            ) from None

    def decode(self, positions: Iterable[int]) -> np.ndarray:
        """DRG codes of these label indices: array of str, shape (positions,)."""
        positions = np.asarray(positions, dtype=np.int64)
        if ((positions < 0) | (positions >= len(self))).any():
            raise StudyError(f"label space: positions must lie between 0 and {len(self) - 1}")
        return self.codes[positions]

    def drg_logits(self, outputs: np.ndarray) -> np.ndarray:
        """The outputs themselves, of shape (stays, codes): here a model has one logit for each DRG."""
        return outputs


class TwoLabels:
    """A DRG as two labels, its base DRG and its CC/MCC label, and the ways back from these to one DRG.

    A model has one output for each of v34's 340 base DRGs, in order of their lowest code, then one for each of the five
    CC/MCC labels, no matter which of them a cohort has.

    Parameters
    ----------
    codes : iterable of str
        v34 codes of the whole cohort, in any order, repeated or not.
    trained : iterable of str
        v34 codes of the training stays.

    Attributes
    ----------
    codes : numpy.ndarray of str, ascending
    outputs : numpy.ndarray of str, shape (345,)
        What each output stands for.
    n_bases : int
        340.
    seen : numpy.ndarray of bool, shape (340, 5)
        The CC/MCC labels that each base DRG has in the training stays.

    Notes
    -----
    Source: DRG-LLaMA, Methods and Supplementary Method 2.
    """

    def __init__(self, codes: Iterable[str], trained: Iterable[str]):
        v34 = drgs.v34()
        self.codes = LabelSpace(codes).codes
        base, titles = pd.factorize(v34["base"])  # in order of appearance, that is of the lowest code
        self.n_bases, self.outputs = len(titles), np.array([*titles, *drgs.CC_LABELS], dtype=object)
        self._pair = pd.DataFrame({"base": base, "cc": v34["cc_label"]})
        self._code = np.full((len(titles), len(drgs.CC_LABELS)), "", dtype=object)
        self._code[base, v34["cc_label"]] = v34.index
        self.seen = np.zeros(self._code.shape, bool)
        self.seen[tuple(self.encode(LabelSpace(trained).codes).T)] = True

    def encode(self, codes: Iterable[str]) -> np.ndarray:
        """Indices of each code's base DRG and CC/MCC label: int64, shape (codes, 2)."""
        return self._pair.loc[list(codes)].to_numpy()

    def infer(self, outputs: np.ndarray, rule: str) -> np.ndarray:
        """The DRG that a rule reads from a model's two answers.

        Parameters
        ----------
        outputs : numpy.ndarray of float, shape (stays, 345)
        rule : {"seen", "mapped"}
            Both take the base DRG with the highest output. "seen": of the CC/MCC labels that this base has in the
            training stays, the one with the highest output; all its own compete if no training stay has this base.
            "mapped": the CC/MCC label with the highest output of all five. A label that the base does not have is
            mapped to the only one of a base that has one, and to "without CC/MCC" of a base that has three. Of "with
            MCC" and "without MCC" it becomes the latter. Of "with CC" and "without CC/MCC", "with MCC" becomes the
            former, and any other label the latter.

        Returns
        -------
        numpy.ndarray of str, shape (stays,)
            v34 codes. Under "mapped" a stay is right exactly when the supplement's rule scores it as right: given the
            right base, that rule maps within the same labels.

        Notes
        -----
        Source: DRG-LLaMA, Methods ("seen") and Supplementary Method 2 ("mapped").
        """
        base, severity = outputs[:, : self.n_bases].argmax(1), outputs[:, self.n_bases :]  # (stays,), (stays, 5)
        own = self._code != ""  # (340, 5)
        if rule == "seen":
            among = np.where(self.seen.any(1, keepdims=True), self.seen, own)[base]  # (stays, 5)
            return self._code[base, np.where(among, severity, -np.inf).argmax(1)]
        if rule != "mapped":
            raise StudyError(f"rule: expected 'seen' or 'mapped', got {rule!r}")
        return self._code[base, _landing(own)[base, severity.argmax(1)]]

    def drg_logits(self, outputs: np.ndarray) -> np.ndarray:
        """Log-probability of each of `codes`, float32, shape (stays, codes), as if the two answers were independent.

        It is that of the base DRG plus that of the CC/MCC label among those that the base has in the training stays. A
        code without a training stay gets the row's least minus one. This is ours: the paper names a DRG by rule alone.
        """
        base, cc = self.encode(self.codes).T  # (codes,) each
        severity = np.where(self.seen, outputs[:, None, self.n_bases :], -np.inf)  # (stays, bases, 5)
        with np.errstate(invalid="ignore"):
            severity -= logsumexp(severity, axis=2, keepdims=True)
            logits = log_softmax(outputs[:, : self.n_bases], axis=1)[:, base] + severity[:, base, cc]
        known = self.seen[base, cc]
        logits[:, ~known] = logits[:, known].min(1, keepdims=True) - 1
        return logits.astype(np.float32)


def _landing(own: np.ndarray) -> np.ndarray:
    """The CC/MCC label to which the rule "mapped" takes each label of each base: int, shape (340, 5), like `own`."""
    without_any, cc, mcc, without_mcc = range(4)
    landing = np.tile(np.arange(own.shape[1]), (len(own), 1))
    for base, has in enumerate(own):
        alone = np.flatnonzero(has)
        rest = without_mcc if has[without_mcc] else without_any
        landing[base, ~has] = alone[0] if len(alone) == 1 else rest
        if has[cc] and not has[mcc]:
            landing[base, mcc] = cc
    return landing


def label_space(labels: str, codes: Iterable[str], trained: Iterable[str]) -> LabelSpace | TwoLabels:
    """The labels of a run, "one" or "two" for each stay, from the codes of the cohort and of its training stays."""
    if labels not in ("one", "two"):
        raise StudyError(f"parameter labels: expected 'one' or 'two', got {labels!r}")
    return LabelSpace(codes) if labels == "one" else TwoLabels(codes, trained)


def target_space(system: str, codes: pd.Series, space: str) -> LabelSpace:
    """A model's labels: all targets of the DRG system (738 or 1,136) if `space` is "official", `codes` if "cohort"."""
    facts = drgs.fiscal_2013(system)
    targets = facts.index[facts["target"]]
    return LabelSpace(targets if space == "official" else codes, targets)
