"""Which errors the models make."""

from __future__ import annotations

import numpy as np
import pandas as pd
import seaborn as sns
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle
from matplotlib.ticker import MaxNLocator

from drgstudy.disclosure import masked_matrix
from drgstudy.plots.canvas import canvas, percent, stamped
from drgstudy.plots.style import FAINT, INK, OURS, PALETTE, SMALL, THEIRS


def error_classes(table: pd.DataFrame, dataset: str) -> Figure:
    """How far off the wrong predictions are. `table` is as `errors.tally` returns it for `errors.CLASSES`.

    Bars share a colour within the base DRG, within the MDC, and beyond it. A count that is masked as "< 11" has no bar.
    """
    figure, ax = canvas("two columns", 56)
    _counted(ax, table, [PALETTE[0], *[PALETTE[1]] * 3, *["0.25"] * 3])
    ax.set(xlabel="wrong predictions, and their share")
    return stamped(figure, dataset, f"How far off the wrong predictions are. {_commonest(table)}")


def error_categories(published: pd.DataFrame, ours: dict[str, pd.DataFrame], dataset: str) -> Figure:
    """The categories of Table 4, for the paper's ten errors and for sets of ours by name; each is an `errors.tally`."""
    figure, panels = canvas("two columns", 54, columns=1 + len(ours), sharex=True, sharey=True)
    shown = {"MIMIC-IV (published)": published} | ours
    for ax, (title, table) in zip(panels, shown.items(), strict=True):
        theirs = table is published
        _counted(ax, table, PALETTE[7] if theirs else PALETTE[0], of_share=True)
        known = pd.to_numeric(table["errors"], errors="coerce")  # a text where nobody has looked yet
        total = f"{known.sum():,g} errors" if known.notna().all() else "not reviewed"
        ax.set(title=f"{title}\n{total}", xlabel="share of the errors (%)", facecolor=THEIRS if theirs else OURS)
        ax.spines[:].set(visible=True, color=FAINT, linestyle="--" if theirs else "-")
    name, last = list(ours.items())[-1]
    caption = f"The paper’s categories of errors. Published: {_commonest(published)} {name}: {_commonest(last)}"
    return stamped(figure, f"two datasets: MIMIC-IV and {dataset}", caption)


def mdc_confusion(counts: pd.DataFrame, dataset: str, mask_below: int = 0) -> Figure:
    """Stays by true (rows) and predicted MDC (columns), as `errors.by_mdc` returns them; shaded by share of the row.

    Counts below `mask_below` have no number, as those of 0 have none.
    """
    n = len(counts)
    figure, ax = canvas("two columns" if n > 10 else "one column", 34 + 5.2 * n)
    shown, share = masked_matrix(counts, mask_below)
    numbers = shown.fillna("").replace(0, "")
    bar = {"label": "share of the row (%)", "shrink": 0.7}
    style = {"cmap": "Blues", "vmin": 0, "vmax": 1, "linewidths": 0.4, "linecolor": "0.9"}
    sns.heatmap(share, annot=numbers, fmt="", annot_kws={"fontsize": SMALL}, cbar_kws=bar, ax=ax, **style)
    percent(ax.collections[0].colorbar.ax.yaxis)
    for i in range(n):
        ax.add_patch(Rectangle((i, i), 1, 1, fill=False, ec=INK, lw=0.8))
    ax.set_xticks(np.arange(n) + 0.5, counts.columns, rotation=50, ha="right", rotation_mode="anchor")
    ax.set_yticks(np.arange(n) + 0.5, counts.index, rotation=0)
    ax.tick_params(length=0)
    if shown.isna().any(axis=None):
        ax.set_xlabel(f"{counts.columns.name} (no number: 0 to {mask_below - 1} stays, or one that tells of such)")
    caption = "Test stays by true (rows) and predicted (columns) major diagnostic category; framed: the right one."
    return stamped(figure, dataset, caption)


def _counted(ax: Axes, table: pd.DataFrame, colour, of_share: bool = False) -> None:
    """Draw a bar for each row of a table from `errors.tally`, the first on top, with its number and share.

    A bar is as long as the number, or `of_share`, on an axis that ends at 100 %, as the share.
    """
    long = pd.to_numeric(table["share" if of_share else "errors"], errors="coerce").fillna(0)
    ax.barh(table["name"], long, color=colour, height=0.7)
    for y, row in enumerate(table.itertuples()):
        said = row.errors if isinstance(row.errors, str) else f"{row.errors:,} ({100 * row.share:.0f} %)"
        ax.text(long[y], y, f" {said}", va="center", fontsize=SMALL, color=INK)
    ax.set_ylim(len(table) - 0.5, -0.5)
    ax.set_xlim(0, 1.35 * (1 if of_share else max(long.max(), 1)))
    if of_share:
        ax.set_xticks([0, 0.25, 0.5, 0.75, 1])
        percent(ax.xaxis)
    else:
        ax.xaxis.set_major_locator(MaxNLocator(4, integer=True))


def _commonest(table: pd.DataFrame) -> str:
    """A sentence that names the commonest row of a table from `errors.tally`."""
    share = pd.to_numeric(table["share"], errors="coerce")
    if not share.max() > 0:
        return "No share is shown."
    return f"Commonest: {table.loc[share.idxmax(), 'name']}, {100 * share.max():.0f} %."
