"""Masking: small counts of credentialed data are not published, nor anything from which they could be computed.

The threshold is that of the CMS cell size suppression policy: no count from 1 to 10. It is a parameter, `mask_below`,
of every notebook that counts stays, patients or notes, and acts on credentialed data alone. Counts of DRGs, runs or
settings are not counts of patients. A threshold of 0 masks nothing.

Counts of one whole follow from each other in two ways, and one function is for each. Parts that make up a known sum: a
part alone is the sum less the others (`hidden`). Counts of which one holds the other, such as stays, those answered
rightly, and those of the frequent DRGs: what is not in the smaller one is their difference (`told`).
"""

from __future__ import annotations

import numpy as np
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


def tells_of_few(n, whole, mask_below: int):
    """Whether a number `n` of a `whole` that is known tells that few are among them, or few are not; arrays too."""
    return is_small(n, mask_below) | is_small(whole - n, mask_below)


def part(n: int, whole: int, mask_below: int) -> str:
    """How many of a `whole` that is known, as text shows it: "1,234", or "few, or all but few,"."""
    return "few, or all but few," if tells_of_few(n, whole, mask_below) else f"{n:,}"


def unless_rare(shown: pd.Series, codes: pd.Series, stays: pd.Series, mask_below: int) -> pd.Series:
    """What is shown of single stays by the DRGs `codes`, but not of DRGs that have few `stays` (by DRG)."""
    return shown.mask(is_small(codes.map(stays).fillna(0), mask_below).to_numpy(), f"a DRG of < {mask_below} stays")


def hidden(counts, mask_below: int, sums=()) -> np.ndarray:
    """Which of some counts are not shown: the small ones, and larger ones as long as a small one would follow from a sum.

    Parameters
    ----------
    counts : array of int, of any shape
    mask_below : int
    sums : list of arrays of bool, each of the shape of `counts`
        The counts that make up each sum that is known.

    Returns
    -------
    array of bool

    Notes
    -----
    A reader knows of a small count that it is 1 to `mask_below` - 1, and of a larger one that is hidden that it lies
    between `mask_below` and the smallest one shown. If sum and limits leave one value for a small count, the next larger
    count is hidden too.
    """
    counts = np.asarray(counts)
    small = np.asarray(is_small(counts, mask_below))
    hide, waiting = small.copy(), [np.asarray(each, bool) for each in sums]
    while waiting:
        among = waiting.pop()
        few, more, shown = small & among, hide & ~small & among, ~hide & among & (counts > 0)
        if not few.any() or not shown.any():
            continue
        total, others = counts[few | more].sum(), few.sum() - 1
        low = total - more.sum() * counts[shown].min() - others * (mask_below - 1)
        high = total - more.sum() * mask_below - others
        if max(1, low) >= min(mask_below - 1, high):
            at = np.where(shown, counts, counts.max() + 1).argmin()
            hide.flat[at], waiting = True, [np.asarray(each, bool) for each in sums]
    return hide


def withheld(counts, mask_below: int, sums=()) -> np.ndarray:
    """As `hidden`, and further counts until those that are hidden of each sum are not few together."""
    counts, hide = np.asarray(counts), hidden(counts, mask_below, sums)
    for among in sums:
        while is_small(counts[hide & among].sum(), mask_below) and (shown := ~hide & among & (counts > 0)).any():
            hide.flat[np.where(shown, counts, counts.max() + 1).argmin()] = True
    return hide


def told(counts, mask_below: int, known=()) -> np.ndarray:
    """Which of some counts, each within the next or around it, may be told: no difference of two that are told is small.

    Parameters
    ----------
    counts : array of int, shape (n,) or (n, parts)
        Those that matter most come first. A count may have parts that grow together, such as right and wrong answers.
    mask_below : int
    known : array of int, shape (m,) or (m, parts)
        What is told anyhow, such as 0 and the number of all stays.

    Returns
    -------
    array of bool, shape (n,)
    """
    if not mask_below:
        return np.ones(len(counts), bool)
    shown, fine = [np.atleast_1d(each) for each in known], []
    for count in map(np.atleast_1d, counts):
        fine.append(
            not any(is_small(abs(count - other), mask_below).any() for other in reversed(shown))
        )  # the last are the nearest
        if fine[-1]:
            shown.append(count)
    return np.array(fine, bool)


def shares(of: pd.Series, n: int, mask_below: int, known=()) -> pd.Series:
    """Shares of `n` stays, such as accuracies; NaN for those that tell that few are right, or few wrong.

    `known` has pairs (right, wrong) of numbers that are told of other sets of stays: none may differ from them by few.
    """
    right = (of * n).round()
    others = [(0, 0), (n, 0), (0, n), *(np.round(each) for each in known)]
    return of.where(told(np.stack([right, n - right], axis=-1), mask_below, others))


def masked(
    table: pd.DataFrame, mask_below: int, columns: dict[str, list[str]], *, printed: bool = False, total=False
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
    total : bool, or list of arrays of bool
        Whether the rows are parts of a known total, or the rows that make up each known total: see `hidden`.
    """
    sums = [np.ones(len(table), bool)] if total is True else total or []
    for column, beside in columns.items():
        small, hide = is_small(table[column], mask_below), hidden(table[column], mask_below, sums)
        if hide.any():
            names, instead = [column, *beside], "–" if printed else None
            table = table.assign(**{name: table[name].astype(object).mask(hide, instead) for name in names})
        if small.any() and printed:
            table[column] = table[column].mask(small, f"< {mask_below}")
    return table


def masked_bins(table: pd.DataFrame, mask_below: int) -> pd.DataFrame:
    """Bins with an accuracy, its lower and upper, and stays: without the bins of which few stays are right, or wrong."""
    right = (table["accuracy"] * table["stays"]).round().astype(int)
    everyone = [np.ones(len(table), bool)]
    hide = hidden(right, mask_below, everyone) | hidden(table["stays"] - right, mask_below, everyone)
    return table.assign(**{name: table[name].mask(hide) for name in ("accuracy", "lower", "upper")})


def coarse(curve: pd.DataFrame, n: int, mask_below: int) -> pd.DataFrame:
    """A curve of accuracy by coverage of `n` stays, without the steps from one to the next of which few are right, or wrong."""
    stays = (curve["coverage"] * n).round().astype(int)
    right = (curve["accuracy"] * stays).round().astype(int)
    points = np.stack([right, stays - right], axis=-1)[::-1]
    return curve[told(points, mask_below, [(0, 0)])[::-1]]


def tail_in_one(counts: pd.Series, mask_below: int) -> pd.Series:
    """Counts by ascending numbers, of which all from the first small one on are put together ("5 or more")."""
    small = np.flatnonzero(is_small(counts, mask_below))
    first = small[0] if small.size else len(counts)
    while 0 < first < len(counts) and is_small(counts.iloc[first:].sum(), mask_below):
        first -= 1
    if first == len(counts):
        return counts
    return pd.concat([counts.iloc[:first], pd.Series({f"{counts.index[first]} or more": counts.iloc[first:].sum()})])


def by_group(values: dict, groups: pd.Series, mask_below: int) -> dict[str, np.ndarray]:
    """Each array of numbers of stays, as a figure of single stays draws them: where small counts are masked, the means.

    They are means over the stays of each of `groups`, such as DRGs, that has enough of them; a dot a stay would tell how
    many stays of one DRG were taken for another. `mask_below` of 0 leaves the numbers as they are.
    """
    if not mask_below:
        return values
    table = pd.DataFrame(values).groupby(np.asarray(groups))
    means = table.mean()[table.size() >= mask_below]
    return {name: means[name].to_numpy() for name in values}


def masked_matrix(counts: pd.DataFrame, mask_below: int) -> tuple[pd.DataFrame, pd.DataFrame]:
    """True by predicted labels: the counts that may be shown, NaN elsewhere, and their share of what is shown of a row.

    The accuracy tells how many are right and wrong, and another table may tell a row's sum. If any count is small, all
    below `mask_below` look alike, those of 0 too, and no other is hidden alone in its row, or among the right or wrong.
    """
    counts, right = counts.astype("int64"), np.eye(len(counts), dtype=bool)
    values, rows = counts.to_numpy(), [np.arange(len(counts))[:, None] == i for i in range(len(counts))]
    hide = (values < mask_below) & is_small(values, mask_below).any()
    for _ in range(values.size):
        lone = [among for group in (right, ~right, *rows) if (hide & (among := group & np.ones_like(hide))).sum() == 1]
        if not (shown := [among & ~hide for among in lone if (among & ~hide).any()]):
            break
        hide.flat[np.where(shown[0], values, values.max() + 1).argmin()] = True
    shown = counts.astype(object).mask(hide)
    filled = shown.astype(float).fillna(0)
    return shown, filled.div(filled.sum(axis=1).clip(lower=1), axis=0)


def in_all(counts, mask_below: int) -> np.ndarray:
    """Counts that make up a known sum, as a figure draws them: 0 for those that are `hidden`."""
    counts = np.asarray(counts)
    return np.where(hidden(counts, mask_below, [np.ones(counts.shape, bool)]), 0, counts)


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
