"""What a model takes off a coder, and at what price."""

from __future__ import annotations

import numpy as np
import pandas as pd
from matplotlib.figure import Figure
from matplotlib.ticker import NullFormatter, PercentFormatter, StrMethodFormatter

from drgstudy.plots.canvas import canvas, stamped
from drgstudy.plots.style import FAINT, PALETTE, in_order, style_of

LINES = ("-", "--", "-.", (0, (4, 1, 1, 1, 1, 1)), ":")


def sets_by_size(table: pd.DataFrame, level: float, dataset: str) -> Figure:
    """Coverage and size of sets by the training stays of a stay's DRG, with each way to set limits (`coder.by_size`)."""
    figure, (left, right) = canvas(8.6, 3.6, columns=2)
    left.axhline(level, color=FAINT, lw=1, ls="--")
    groups = {group: x for x, group in enumerate(table["group"].unique())}
    for way, (name, part) in enumerate(table.groupby("way", sort=False)):
        x = part["group"].map(groups) + 0.16 * (2 * way - 1)
        line = {"color": PALETTE[(0, 3)[way]], "marker": "oD"[way], "ls": "", "ms": 6, "capsize": 0, "label": name}
        for ax, value, ends in ((left, "coverage", ("lower", "upper")), (right, "size", ("size_lower", "size_upper"))):
            reach = [part[value] - part[ends[0]], part[ends[1]] - part[value]]
            ax.errorbar(x, part[value], np.clip(reach, 0, None), **line)  # the interval of 100 % may end a bit below it
    for ax in (left, right):
        ax.set_xticks(range(len(groups)), groups)
        ax.set(xlabel="training stays of the DRG", xlim=(-0.5, len(groups) - 0.5))
    left.set(ylabel="stays whose DRG is in the set (%)", ylim=(None, 1.01))
    left.yaxis.set_major_formatter(PercentFormatter(1, decimals=0, symbol=""))
    right.set(ylabel="DRGs in the set, mean", ylim=(0, None))
    figure.legend(*left.get_legend_handles_labels(), frameon=False, loc="outside upper center", ncols=2)
    return stamped(figure, dataset)


def coding_costs(curves: dict[str, pd.DataFrame], price: float, dataset: str) -> Figure:
    """Dollars misbilled by minutes of coding saved, a line for each run (`coder.costs`).

    The dashed line is what the minutes cost at `price` dollars a minute: below it, a model saves more than it misbills.
    """
    figure, ax = canvas(7.5, 4.4)
    minutes = pd.concat(curves.values())["minutes"]
    ends = np.array([max(minutes.min(), minutes.max() / 100), minutes.max()])
    ax.plot(ends, price * ends, color=FAINT, lw=1, ls="--")
    label = {"ha": "right", "va": "top", "fontsize": 8.5, "color": FAINT}
    ax.text(ends[1], price * ends[1] * 0.22, f"coding at ${price:g} a minute", **label)
    for style, run in enumerate(in_order(curves)):
        name, colour, _ = style_of(run)
        curve = curves[run][curves[run]["dollars"] > 0]
        ax.plot(curve["minutes"], curve["dollars"], color=colour, ls=LINES[style % 5], lw=1.8, label=name)
    ax.set(xlabel="minutes of coding saved, of 100 stays", ylabel="dollars misbilled, of 100 stays")
    ax.set(xscale="log", yscale="log", xlim=(ends[0] * 0.9, None))
    for axis in (ax.xaxis, ax.yaxis):
        axis.set_minor_formatter(NullFormatter())
        axis.set_major_formatter(StrMethodFormatter("{x:,.0f}"))
    figure.legend(frameon=False, loc="outside upper center", ncols=5)
    return stamped(figure, dataset)
