"""How stays of other years and of other people fare."""

from __future__ import annotations

import numpy as np
import pandas as pd
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from drgstudy.plots.canvas import canvas, percent, stamped
from drgstudy.plots.style import FAINT, INK, PALETTE


def drift(
    right: dict[str, pd.DataFrame], mix: pd.DataFrame, left_out: pd.DataFrame, until: int, dataset: str
) -> Figure:
    """Three panels by year: accuracy by what was trained on, distance of the case mix, and what harmonization left out.

    Parameters
    ----------
    right : dict of str to DataFrame
        For each set of training stays, `drift.by_year` of the stays that are named right.
    mix : DataFrame
        As `drift.mix_by_year` returns it.
    left_out : DataFrame
        As `drift.left_out_by_year` returns it.
    until : int
        The last of the early years; a dashed line follows it.
    """
    figure, (top, middle, bottom) = canvas("two columns", 120, rows=3, sharex=True)
    for i, (name, table) in enumerate(right.items()):
        _points(top, table, PALETTE[i], "os"[i], 0.16 * (i - (len(right) - 1) / 2), name)
    top.set(ylabel="top-1 accuracy (%)")
    figure.legend(*top.get_legend_handles_labels(), loc="outside upper center", ncols=2, title="trained on")
    middle.fill_between(mix.index, 0, mix["by_chance"], color="0.88", lw=0, label="by chance, in 95 of 100 draws")
    middle.plot(mix.index, mix["distance"], "D", color=INK, ms=3.5, label="this year")
    middle.set(ylabel="distance of the case\nmix from all years’ (%)", ylim=(0, None))
    middle.legend(loc="lower right", ncols=2)
    _points(bottom, left_out, PALETTE[3], "^", 0, None)
    bottom.set(ylabel="billed MS-DRGs without\nDRG of version 34 (%)", xlabel="year", ylim=(0, None))
    for ax in (top, middle, bottom):
        ax.axvline(until + 0.5, color=FAINT, lw=0.8, ls="--")
        percent(ax.yaxis)
        ax.xaxis.set_major_locator(MaxNLocator(integer=True))
    caption = (
        f"By year: top-1 accuracy of models of all years and of those until {until}; the case mix, farther off than by chance "
        f"in {(mix['distance'] > mix['by_chance']).sum()} of {len(mix)} years; and billed DRGs that version 34 lacks."
    )
    return stamped(figure, dataset, caption)


def _points(ax, table: pd.DataFrame, colour: str, marker: str, aside: float, name: str | None) -> None:
    low, high = table["value"] - table["lower"], table["upper"] - table["value"]
    reach = [low.clip(lower=0), high.clip(lower=0)]  # at 0 and 1 an end may miss the value by a rounding error
    ax.errorbar(table.index + aside, table["value"], reach, fmt=marker, color=colour, label=name, clip_on=False)


def served(table: pd.DataFrame, names: dict[str, str], dataset: str) -> Figure:
    """How much worse or better each group fares than its largest one: open as it is, filled within DRGs, 95 % intervals.

    Parameters
    ----------
    table : DataFrame
        As `served.compared` returns it; an outcome is in units of its panel.
    names : dict of str to str
        The outcomes that are shown, one panel for each, and the names of their axes.
    """
    groups = table[["characteristic", "group", "reference"]].drop_duplicates()
    figure, axes = canvas("two columns", 18 + 4.6 * len(groups), columns=len(names), sharey=True, squeeze=False)
    for ax, (outcome, label) in zip(axes[0], names.items(), strict=True):
        rows = table[table["outcome"] == outcome]
        ax.axvline(0, color=FAINT, lw=0.8, ls="--")
        y = np.arange(len(rows))
        ax.plot(rows["raw"].astype(float), y, "o", color=PALETTE[0], mfc="white", ms=4.5)
        reach = [rows["within"] - rows["lower"], rows["upper"] - rows["within"]]
        ax.errorbar(rows["within"].astype(float), y, xerr=np.array(reach, float), fmt="o", color=PALETTE[0], ms=3.5)
        ax.set(xlabel=label)
        ax.xaxis.set_major_locator(MaxNLocator(5))
    said = [f"{row.group} (against {row.reference})" for row in groups.itertuples()]
    axes[0, 0].set_yticks(range(len(said)), said)
    axes[0, 0].set_ylim(len(said) - 0.5, -0.5)
    figure.suptitle("open: as it is; filled: within DRGs, 95 % interval")
    apart = table[(table["lower"] > 0) | (table["upper"] < 0)]
    shown = table["lower"].notna().sum()
    caption = (
        f"How much worse or better each group fares than the largest one, as it is and within DRGs. Of {shown} intervals "
        f"within DRGs, uncorrected for their number, {len(apart)} exclude 0."
    )
    return stamped(figure, dataset, caption)
