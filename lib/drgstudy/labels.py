"""DRGs as outputs of a model: one label a DRG, or two, its base DRG and its CC/MCC label.

Both kinds of labels know their ``outputs`` (what each output stands for), ``encode`` codes for training, and turn a
model's outputs into scores for the same columns, ``codes``, by ``drg_logits``.
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
    codes : DRG codes ("001"), in any order, repeated or not.
    known : the codes that there are, v34's by default.

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
        """Positions (int64, one per code)."""
        try:
            return np.array([self._position[code] for code in codes], dtype=np.int64)
        except KeyError as error:
            raise StudyError(
                f"label space: {error} is not one of its {len(self)} codes; "
                "drop the stay or build the labels from the whole cohort"
            ) from None

    def decode(self, positions: Iterable[int]) -> np.ndarray:
        """Codes (str objects, one per position)."""
        positions = np.asarray(positions, dtype=np.int64)
        if ((positions < 0) | (positions >= len(self))).any():
            raise StudyError(f"label space: positions must lie between 0 and {len(self) - 1}")
        return self.codes[positions]

    def drg_logits(self, outputs: np.ndarray) -> np.ndarray:
        """The outputs themselves."""
        return outputs


class TwoLabels:
    """A DRG as two labels, its base DRG and its CC/MCC label, and the ways back to one DRG.

    A model has one output for each of v34's 340 base DRGs, in order of their lowest code, then one for each of the five
    CC/MCC labels, whichever of them a cohort has. Source: DRG-LLaMA, Methods and Supplementary Method 2.

    Parameters
    ----------
    codes : v34 codes of the whole cohort, in any order, repeated or not.
    trained : v34 codes of the training stays.

    Attributes
    ----------
    codes : array of str, ascending
    outputs : array of str, shape (345,)
        What each output stands for.
    n_bases : int
        340.
    seen : array of bool, shape (340, 5)
        The CC/MCC labels that each base DRG has in the training stays.
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
        """Base DRG and CC/MCC label of each code: int64, shape (codes, 2)."""
        return self._pair.loc[list(codes)].to_numpy()

    def infer(self, outputs: np.ndarray, rule: str) -> np.ndarray:
        """The DRG that a rule reads from a model's two answers.

        Parameters
        ----------
        outputs : array of shape (stays, 345)
        rule : {"seen", "mapped"}
            Both take the base DRG with the highest output. "seen" (Methods): of the CC/MCC labels that this base has in
            the training stays, the one with the highest output; a base that no training stay has keeps all its own.
            "mapped" (Supplementary Method 2): the CC/MCC label with the highest output, mapped into the base's own
            labels if it is none of them: to the only one; of three to "without CC/MCC"; of "with MCC" and "without MCC"
            to the latter; of "with CC" and "without CC/MCC", "with MCC" to the former and the rest to the latter.

        Returns
        -------
        array of str, shape (stays,)
            v34 codes. Under "mapped" a stay is right exactly when the supplement's rule scores it as right: given the
            right base, that rule maps within the same labels.
        """
        base, severity = outputs[:, : self.n_bases].argmax(1), outputs[:, self.n_bases :]
        own = self._code != ""
        if rule == "seen":
            among = np.where(self.seen.any(1, keepdims=True), self.seen, own)[base]
            return self._code[base, np.where(among, severity, -np.inf).argmax(1)]
        if rule != "mapped":
            raise StudyError(f"rule: expected 'seen' or 'mapped', got {rule!r}")
        return self._code[base, _landing(own)[base, severity.argmax(1)]]

    def drg_logits(self, outputs: np.ndarray) -> np.ndarray:
        """Log-probability of each of `codes`, float32, shape (stays, codes): as if the two answers were independent.

        The probability of the base DRG times that of the CC/MCC label among those it has in the training stays. A code
        without a training stay gets the row's least minus one. This is ours: the paper names a DRG by rule alone.
        """
        base, cc = self.encode(self.codes).T
        severity = np.where(self.seen, outputs[:, None, self.n_bases :], -np.inf)  # stays x bases x labels
        with np.errstate(invalid="ignore"):
            severity -= logsumexp(severity, axis=2, keepdims=True)
            logits = log_softmax(outputs[:, : self.n_bases], axis=1)[:, base] + severity[:, base, cc]
        known = self.seen[base, cc]
        logits[:, ~known] = logits[:, known].min(1, keepdims=True) - 1
        return logits.astype(np.float32)


def _landing(own: np.ndarray) -> np.ndarray:
    """The CC/MCC label at which a prediction ends under the rule "mapped", by base and label: shape (340, 5)."""
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
    """The labels of a run: "one" or "two" a stay; `codes` are those of the cohort, `trained` of the training stays."""
    if labels not in ("one", "two"):
        raise StudyError(f"parameter labels: expected 'one' or 'two', got {labels!r}")
    return LabelSpace(codes) if labels == "one" else TwoLabels(codes, trained)
