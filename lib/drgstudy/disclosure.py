"""Masking: small counts of credentialed data are not published, nor anything from which they could be computed.

The threshold is that of the CMS cell size suppression policy: no count from 1 to 10. It is a parameter, `mask_below`,
of every notebook that counts stays, patients or notes, and acts on credentialed data alone. Counts of DRGs, runs or
settings are not counts of patients. A threshold of 0 masks nothing.
"""

from __future__ import annotations

import pandas as pd

from drgstudy.study import Paths, source_of


def threshold(paths: Paths, mask_below: int) -> int:
    """The number below which counts are masked: `mask_below`, or 0 if the data are known to be open."""
    return mask_below if source_of(paths)["kind"] == "credentialed" else 0


def is_small(counts, mask_below: int):
    """Whether a count, or each count of an array or Series, is above 0 and below `mask_below`."""
    return (counts > 0) & (counts < mask_below)


def count(n: int, mask_below: int) -> str:
    """A count as text shows it: "1,234", or "< 11"."""
    return f"< {mask_below}" if is_small(n, mask_below) else f"{n:,}"


def unless_small(value, n: int, mask_below: int):
    """`value`, which describes `n` stays, for numbers.json; None if `n` is small."""
    return None if is_small(n, mask_below) else value


def masked(
    table: pd.DataFrame, mask_below: int, columns: dict[str, list[str]], *, printed: bool = False, total: bool = False
) -> pd.DataFrame:
    """The table without its small counts, and without values from which they could be computed.

    Parameters
    ----------
    table : DataFrame
    mask_below : int
    columns : dict of str to list of str
        For each column of counts, the columns that would give its counts away, such as accuracies and shares.
    printed : bool
        Whether to show "< 11" for a small count, and a dash for what else is masked, instead of None.
    total : bool
        Whether the rows are parts of a known total. A single small count would then follow from the others, so the next
        larger count is masked too.
    """
    for column, beside in columns.items():
        counts = table[column]
        small = is_small(counts, mask_below)
        larger = counts.where((counts > 0) & ~small)
        hidden = small | (larger == larger.min()) if total and small.sum() == 1 else small
        if hidden.any():
            names, instead = [column, *beside], "–" if printed else None
            table = table.assign(**{name: table[name].astype(object).mask(hidden, instead) for name in names})
        if small.any() and printed:
            table[column] = table[column].mask(small, f"< {mask_below}")
    return table


def merge_small_steps(flow: dict, mask_below: int) -> dict:
    """A flow in which each step that removes a small number is merged with a neighbour.

    Then no small count follows by subtraction. A step that adds rows removes fewer than none. Only the lists of {step,
    kept, removed} are changed.
    """
    return {
        key: _merge_small_steps(steps, mask_below) if isinstance(steps, list) else steps for key, steps in flow.items()
    }


def _merge_small_steps(steps: list[dict], mask_below: int) -> list[dict]:
    first, *rest = steps
    done: list[dict] = []
    for step in rest:
        done.append(step)
        while len(done) > 1 and any(is_small(abs(last["removed"]), mask_below) for last in done[-2:]):
            step, before = done.pop(), done.pop()
            removed = before["removed"] + step["removed"]
            done.append({"step": f"{before['step']}, {step['step']}", "kept": step["kept"], "removed": removed})
    return [first, *done]
