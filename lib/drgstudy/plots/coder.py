"""What a model takes off a coder, and at what price."""

from __future__ import annotations

import numpy as np
import pandas as pd
from matplotlib.figure import Figure
from matplotlib.ticker import LogLocator, NullLocator, StrMethodFormatter

from drgstudy.plots.canvas import canvas, percent, stamped
from drgstudy.plots.style import FAINT, LINES, PALETTE, SMALL, in_order, style_of


def sets_by_size(table: pd.DataFrame, level: float, dataset: str) -> Figure:
    """Coverage and size of sets by the training stays of a stay's DRG, with each way to set limits (`coder.by_size`)."""
    figure, (left, right) = canvas("two columns", 66, columns=2)
    left.axhline(level, color=FAINT, lw=0.8, ls="--")
    groups = {group: x for x, group in enumerate(table["group"].unique())}
    for way, (name, part) in enumerate(table.groupby("way", sort=False)):
        x = part["group"].map(groups) + 0.16 * (2 * way - 1)
        line = {"color": PALETTE[(0, 3)[way]], "marker": "oD"[way], "ls": "", "label": name}
        for ax, value, ends in ((left, "coverage", ("lower", "upper")), (right, "size", ("size_lower", "size_upper"))):
            reach = [part[value] - part[ends[0]], part[ends[1]] - part[value]]
            ax.errorbar(x, part[value], np.clip(reach, 0, None), **line)  # the interval of 100 % may end a bit below it
    for ax in (left, right):
        ax.set_xticks(range(len(groups)), groups)
        ax.set(xlabel="training stays of the DRG", xlim=(-0.5, len(groups) - 0.5))
    left.set(ylabel="stays whose DRG is in the set (%)", ylim=(None, 1.03))
    percent(left.yaxis)
    right.margins(y=0.1)
    right.set(ylabel="DRGs in the set, mean", ylim=(0, None))
    figure.legend(*left.get_legend_handles_labels(), loc="outside upper center", ncols=2)
    wide = table.groupby("way", sort=False)["size"].agg(["min", "max"]).round(1)
    said = [f"{way} {row['min']:g} to {row['max']:g}" for way, row in wide.dropna().iterrows()]
    caption = f"Sets that are to hold the DRG of {100 * level:g} % of the stays, by its training stays. "
    caption += f"DRGs in a set: {'; '.join(said)}."
    return stamped(figure, dataset, caption)


def coding_costs(curves: dict[str, pd.DataFrame], price: float, dataset: str, names: dict | None = None) -> Figure:
    """Dollars misbilled by minutes of coding saved, a line for each run (`coder.costs`).

    The dashed line is what the minutes cost at `price` dollars a minute: below it, a model saves more than it misbills.
    """
    figure, ax = canvas("two columns", 80)
    minutes = pd.concat(curves.values())["minutes"]
    ends = np.array([max(minutes.min(), minutes.max() / 100), minutes.max()])
    ax.plot(ends, price * ends, color=FAINT, lw=1, ls="--")
    label = {"ha": "right", "va": "top", "fontsize": SMALL, "color": FAINT}
    ax.text(ends[1], price * ends[1] * 0.22, f"coding at \\${price:g} a minute", **label)
    for style, run in enumerate(in_order(curves)):
        name, colour, _ = style_of(run, names)
        curve = curves[run][curves[run]["dollars"] > 0]
        ax.plot(curve["minutes"], curve["dollars"], color=colour, ls=LINES[style % 5], lw=1.4, label=name)
    ax.set(xlabel="minutes of coding saved, of 100 stays", ylabel="dollars misbilled, of 100 stays")
    ax.set(xscale="log", yscale="log", xlim=(ends[0] * 0.9, None))
    ax.xaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
    for axis in (ax.xaxis, ax.yaxis):
        axis.set_minor_locator(NullLocator())
        axis.set_major_formatter(StrMethodFormatter("{x:,.0f}"))
    figure.legend(loc="outside upper center", ncols=5)
    caption = "Dollars misbilled by minutes of coding saved, of 100 stays. "
    caption += f"Below the dashed line the minutes, at ${price:g} each, are worth more."
    return stamped(figure, dataset, caption)
