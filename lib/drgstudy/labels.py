"""Single labels: the v34 DRGs that a cohort has, in ascending order of code, as positions of a model's outputs."""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np

from drgstudy import drgs
from drgstudy.study import StudyError


class LabelSpace:
    """One-to-one map between v34 codes and 0, 1, ...: ascending, as in DRG-LLaMA's published code.

    Parameters
    ----------
    codes : v34 codes ("001"), in any order, repeated or not.

    Raises
    ------
    StudyError
        For a code that v34 does not have, and in `encode` and `decode` for one that this space does not have.
    """

    def __init__(self, codes: Iterable[str]):
        self.codes = np.array(sorted(set(codes)), dtype=object)
        if unknown := sorted(set(self.codes) - set(drgs.v34().index)):
            raise StudyError(f"label space: {unknown[0]!r} is not a v34 code like '001'; harmonize the codes first")
        self._position = {code: position for position, code in enumerate(self.codes)}

    def __len__(self) -> int:
        return len(self.codes)

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
