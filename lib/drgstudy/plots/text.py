"""Which words moved a prediction."""

from __future__ import annotations

import textwrap

import pandas as pd
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from drgstudy.plots.canvas import canvas, stamped
from drgstudy.plots.style import FAINT, PALETTE, SMALL, in_order, style_of


def strongest_words(
    panels: dict[str, tuple[str, str, pd.Series]], billed: str, dataset: str, names: dict | None = None
) -> Figure:
    """The phrases that moved one stay's prediction, a panel for each run: blue for the DRG, hatched orange against it.

    `billed` names the DRG under which the stay was billed.
    `panels` holds for each run the panel's subtitle, the unit of the scores, and the scores by phrase, which are as
    `attribution.strongest` returns them.
    """
    rows = -(-len(panels) // 2)
    figure, grid = canvas("two columns", 8 + 46 * rows, rows=rows, columns=min(2, len(panels)), squeeze=False)
    for ax in grid.flat[len(panels) :]:
        ax.remove()
    for ax, run in zip(grid.flat, in_order(panels), strict=False):
        subtitle, unit, scores = panels[run]
        for y, score in enumerate(scores):
            style = (
                {"color": PALETTE[0]} if score > 0 else {"facecolor": "white", "edgecolor": PALETTE[3], "hatch": "////"}
            )
            ax.barh(y, score, height=0.65, **style)
        ax.axvline(0, color=FAINT, lw=0.8)
        ax.set_yticks(range(len(scores)), [_plain(phrase, 32) for phrase in scores.index])
        ax.set(ylim=(len(scores) - 0.4, -0.6), xlabel=unit)
        title = _plain(f"{style_of(run, names)[0]}: {subtitle}", 68)
        ax.set_title(textwrap.fill(title, 52), loc="left", fontsize=SMALL)
        ax.xaxis.set_major_locator(MaxNLocator(4))
    figure.suptitle(f"One stay, billed as {_plain(billed, 90)}")
    said = ", ".join(f"{style_of(run, names)[0]} {panels[run][0].split()[0]}" for run in in_order(panels))
    caption = f"The phrases that moved the answers for one stay, billed as {billed}. The models say: {said}."
    return stamped(figure, dataset, caption)


def _plain(text: str, width: int) -> str:
    """The text, cut to `width` characters, and with dollar signs escaped, for matplotlib sets a formula between two."""
    return textwrap.shorten(text, width, placeholder=" …").replace("$", r"\$")
