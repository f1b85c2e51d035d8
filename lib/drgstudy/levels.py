"""Right in what? The answers of several runs, judged at each level of the DRG system and compared on the same stays."""

from __future__ import annotations

import numpy as np
import pandas as pd

from drgstudy import disclosure, drgs
from drgstudy.bootstrap import resample_counts, summary
from drgstudy.predictions import Predictions
from drgstudy.study import StudyError
from drgstudy.tables import signed

HELPS, HARMS, SAME = "knowing the system helps", "knowing the system does harm", "the two can’t be told apart"
LEVELS = {"DRG": "drg", "base DRG": "base", "MDC": "mdc"}
"""The levels by name, from the leaves to the root, and their columns in `drgs.v34`."""


def right(made: Predictions) -> pd.DataFrame:
    """Whether the likeliest DRG is the true one, or shares its base DRG or its MDC: bool, by stay id and `LEVELS`."""
    facts = drgs.v34().loc[made.labels].reset_index()
    true, named = facts.iloc[made.truth], facts.iloc[made.logits.argmax(1)]
    columns = {name: true[of].to_numpy() == named[of].to_numpy() for name, of in LEVELS.items()}
    return pd.DataFrame(columns, made.stay_ids)


def compared(
    found: dict[str, pd.DataFrame],
    groups: dict[str, np.ndarray],
    resamples: int,
    seed: int,
    mask_below: int = 0,
    elsewhere: tuple[np.ndarray, ...] = (),
) -> pd.DataFrame:
    """The accuracy of each run at each level, and how much better than the first run each other one is.

    All test stays are resampled, the same for all runs; then those of the group count.

    Parameters
    ----------
    found : dict of run to DataFrame
        What `right` says of each run, on the same stays.
    groups : dict of str to numpy.ndarray of bool, shape (stays,)
        Those that are empty are left out. Where small counts are masked, a number is left out if one before it would give
        a small count away, and a group if its size would.
    resamples, seed, mask_below : int
    elsewhere : tuple of numpy.ndarray of bool, shape (stays,)
        Further groups, of which the size and the number of right DRGs follow from what is told elsewhere, as all stays'
        do. No other group may differ from them by few.

    Returns
    -------
    DataFrame, as `plots.strata` takes it
        run, group, level, stratum (level and group), stays, value, lower, upper (95 % percentile intervals), and
        difference, difference_lower, difference_upper (paired; NaN for the first run). What is left out is NaN.

    Raises
    ------
    StudyError
        If no group is left.
    """
    reference, n = next(iter(found)), len(next(iter(found.values())))
    sizes = {name: int(among.sum()) for name, among in groups.items()}
    fine = disclosure.told(list(sizes.values()), mask_below, [0, n, *(among.sum() for among in elsewhere)])
    shown = [name for name, is_told in zip(groups, fine, strict=True) if is_told and sizes[name]]
    if not shown:
        raise StudyError(f"groups: none of {', '.join(groups)} has test stays that can be shown; give another group")
    counts, values, samples = resample_counts(n, resamples, seed), {}, {}
    for run, of in found.items():
        hits, known = of["DRG"].to_numpy(), []
        others = [((hits & among).sum(), (~hits & among).sum()) for among in elsewhere]
        for group in shown:
            among, size = groups[group], sizes[group]
            told = disclosure.shares(of[among].mean(), size, mask_below, known + others * (size < n))
            known += [(share * size, (1 - share) * size) for share in told.dropna()]
            with np.errstate(invalid="ignore"):  # a resample without a stay of the group counts for nothing
                drawn = counts @ of.mul(among, axis=0).astype(float) / (counts @ among)[:, None]  # (resamples, levels)
            values[run, group], samples[run, group] = told, drawn.set_axis(of.columns, axis=1).mask(told.isna(), axis=1)
    value, drawn = pd.concat(values), pd.concat(samples, axis=1)
    tables = []
    for run in found:
        gain = summary(drawn[run] - drawn[reference]).assign(difference=value[run] - value[reference])
        gain = gain.drop(columns="sd").rename(columns={"lower": "difference_lower", "upper": "difference_upper"})
        gain = gain if run != reference else gain * np.nan
        tables.append(summary(drawn[run]).drop(columns="sd").assign(run=run, value=value[run]).join(gain))
    table = pd.concat(tables).rename_axis(["group", "level"]).reset_index()
    table = table.assign(stays=table["group"].map(sizes), stratum=table["level"] + ", " + table["group"])
    numbers = ["value", "lower", "upper", "difference", "difference_lower", "difference_upper"]
    return table[["run", "group", "level", "stratum", "stays", *numbers]]


def sentence(table: pd.DataFrame, run: str, group: str, level: str, names: dict[str, str]) -> str:
    """What a table of `compared` says of a run that knows the system, against the first one, in a group, at a level.

    `names` has what the runs are called, by their keys.
    """
    rows = table[(table["group"] == group) & (table["level"] == level)].set_index("run")
    if rows.empty or np.isnan(rows.loc[run, "difference"]):
        return f"Right {level} ({group}): not shown, for there are no such stays, or small counts would follow."
    ours, other = rows.loc[run], rows.iloc[0]
    lower, upper = ours[["difference_lower", "difference_upper"]]
    verdict = HELPS if lower > 0 else HARMS if upper < 0 else SAME
    gain, lower, upper = (signed(100 * points, 1) for points in (ours["difference"], lower, upper))
    return (
        f"Right {level} in {ours['stays']:,} stays ({group}): {names[run]} {100 * ours['value']:.1f} %, "
        f"{names[rows.index[0]]} {100 * other['value']:.1f} %; {verdict} ({gain} points, 95 % interval {lower} to {upper})."
    )
