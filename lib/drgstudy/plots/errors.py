"""Which errors the models make."""

from __future__ import annotations

import numpy as np
import pandas as pd
import seaborn as sns
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle
from matplotlib.ticker import MaxNLocator, PercentFormatter

from drgstudy.disclosure import masked_matrix
from drgstudy.plots.canvas import canvas, stamped
from drgstudy.plots.style import INK, OURS, PALETTE, THEIRS


def error_classes(table: pd.DataFrame, dataset: str) -> Figure:
    """How far off the wrong predictions are. `table` is as `errors.tally` returns it for `errors.CLASSES`.

    Bars share a colour within the base DRG, within the MDC, and beyond it. A count that is masked as "< 11" has no bar.
    """
    figure, ax = canvas(8.5, 3.2)
    _counted(ax, table, [PALETTE[0], *[PALETTE[1]] * 3, *["0.25"] * 3])
    ax.set(xlabel="wrong predictions, and their share")
    return stamped(figure, dataset)


def error_categories(published: pd.DataFrame, ours: dict[str, pd.DataFrame], dataset: str) -> Figure:
    """The categories of Table 4, for the paper's ten errors and for sets of ours by name; each is an `errors.tally`."""
    figure, panels = canvas(3.4 + 2.5 * (1 + len(ours)), 2.9, columns=1 + len(ours), sharey=True)
    shown = {"MIMIC-IV (published)": published} | ours
    for ax, (title, table) in zip(panels, shown.items(), strict=True):
        theirs = table is published
        _counted(ax, table, PALETTE[7] if theirs else PALETTE[0])
        known = pd.to_numeric(table["errors"], errors="coerce")  # a text where nobody has looked yet
        ax.set(
            title=f"{title}\n{f'{known.sum():,g} errors' if known.notna().all() else 'not reviewed'}",
            xlabel="errors, and their share",
        )
        ax.set_facecolor(THEIRS if theirs else OURS)
    return stamped(figure, f"two datasets: MIMIC-IV and {dataset}")


def mdc_confusion(counts: pd.DataFrame, dataset: str, mask_below: int = 0) -> Figure:
    """Stays by true (rows) and predicted MDC (columns), as `errors.by_mdc` returns them; shaded by share of the row.

    Counts below `mask_below` have no number, as those of 0 have none.
    """
    n = len(counts)
    figure, ax = canvas(3.2 + 0.34 * n, 2.3 + 0.3 * n)
    shown, share = masked_matrix(counts, mask_below)
    numbers = shown.fillna("").replace(0, "")
    bar = {"label": "share of the row (%)", "format": PercentFormatter(1, symbol=""), "shrink": 0.7}
    style = {"cmap": "Blues", "vmin": 0, "vmax": 1, "linewidths": 0.5, "linecolor": "0.9"}
    sns.heatmap(share, annot=numbers, fmt="", annot_kws={"fontsize": 7.5}, cbar_kws=bar, ax=ax, **style)
    for i in range(n):
        ax.add_patch(Rectangle((i, i), 1, 1, fill=False, ec=INK, lw=0.9))
    ax.set_xticks(np.arange(n) + 0.5, counts.columns, rotation=50, ha="right", rotation_mode="anchor")
    ax.set_yticks(np.arange(n) + 0.5, counts.index, rotation=0)
    ax.tick_params(length=0)
    if shown.isna().any(axis=None):
        ax.set_xlabel(f"{counts.columns.name} (no number: 0 to {mask_below - 1} stays, or one that tells of such)")
    return stamped(figure, dataset)


def _counted(ax: Axes, table: pd.DataFrame, colour) -> None:
    """Draw a bar for each row of a table from `errors.tally`, the first on top, with its number and share."""
    long = pd.to_numeric(table["errors"], errors="coerce").fillna(0)
    ax.barh(table["name"], long, color=colour, height=0.7)
    for y, row in enumerate(table.itertuples()):
        said = row.errors if isinstance(row.errors, str) else f"{row.errors:,} ({100 * row.share:.0f} %)"
        ax.text(long[y], y, f" {said}", va="center", fontsize=9, color=INK)
    ax.set_ylim(len(table) - 0.5, -0.5)
    ax.set_xlim(0, 1.35 * max(long.max(), 1))
    ax.xaxis.set_major_locator(MaxNLocator(4, integer=True))
