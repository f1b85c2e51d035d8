"""How stays of other years and of other people fare."""

from __future__ import annotations

import numpy as np
import pandas as pd
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator, PercentFormatter

from drgstudy.plots.canvas import canvas, stamped
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
    figure, (top, middle, bottom) = canvas(8, 7, rows=3, sharex=True)
    for i, (name, table) in enumerate(right.items()):
        _points(top, table, PALETTE[i], "os"[i], 0.16 * (i - (len(right) - 1) / 2), name)
    top.set(ylabel="top-1 accuracy (%)")
    figure.legend(
        *top.get_legend_handles_labels(), frameon=False, loc="outside upper center", ncols=2, title="trained on"
    )
    middle.fill_between(mix.index, 0, mix["by_chance"], color="0.88", lw=0, label="by chance, in 95 of 100 draws")
    middle.plot(mix.index, mix["distance"], "D", color=INK, ms=5, label="this year")
    middle.set(ylabel="distance of the case\nmix from all years’ (%)", ylim=(0, None))
    middle.legend(loc="lower right", ncols=2)
    _points(bottom, left_out, PALETTE[3], "^", 0, None)
    bottom.set(ylabel="billed MS-DRGs without\nDRG of version 34 (%)", xlabel="year", ylim=(0, None))
    for ax in (top, middle, bottom):
        ax.axvline(until + 0.5, color=FAINT, lw=1, ls="--")
        ax.yaxis.set_major_formatter(PercentFormatter(1, decimals=0, symbol=""))
        ax.xaxis.set_major_locator(MaxNLocator(integer=True))
    return stamped(figure, dataset)


def _points(ax, table: pd.DataFrame, colour: str, marker: str, aside: float, name: str | None) -> None:
    low, high = table["value"] - table["lower"], table["upper"] - table["value"]
    reach = [low.clip(lower=0), high.clip(lower=0)]  # at 0 and 1 an end may miss the value by a rounding error
    ax.errorbar(
        table.index + aside, table["value"], reach, fmt=marker, color=colour, ms=5, lw=1.4, label=name, clip_on=False
    )


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
    figure, axes = canvas(11, 1.5 + 0.36 * len(groups), columns=len(names), sharey=True, squeeze=False)
    for ax, (outcome, label) in zip(axes[0], names.items(), strict=True):
        rows = table[table["outcome"] == outcome]
        ax.axvline(0, color=FAINT, lw=1, ls="--")
        y = np.arange(len(rows))
        ax.plot(rows["raw"].astype(float), y, "o", color=PALETTE[0], mfc="white", ms=6)
        reach = [rows["within"] - rows["lower"], rows["upper"] - rows["within"]]
        ax.errorbar(
            rows["within"].astype(float), y, xerr=np.array(reach, float), fmt="o", color=PALETTE[0], ms=5, lw=1.6
        )
        ax.set(xlabel=label)
        ax.xaxis.set_major_locator(MaxNLocator(5))
    said = [f"{row.group} (against {row.reference})" for row in groups.itertuples()]
    axes[0, 0].set_yticks(range(len(said)), said)
    axes[0, 0].set_ylim(len(said) - 0.5, -0.5)
    figure.suptitle("open: as it is; filled: within DRGs, 95 % interval", fontsize=10)
    return stamped(figure, dataset)
