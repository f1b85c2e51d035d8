"""What the figures share: panels, the dataset's name, dots, boxes and arrows, and how they are saved."""

from __future__ import annotations

import re
from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import FancyBboxPatch
from matplotlib.ticker import LogLocator, MaxNLocator, NullLocator, StrMethodFormatter
from PIL import Image
from PIL.PngImagePlugin import PngInfo

from drgstudy.plots.style import FAINT, INK, OURS, THEIRS, in_order, style_of
from drgstudy.study import atomic


def save(figure: Figure, folder: Path, name: str, dataset: str, caption: str = "") -> Figure:
    """Write `name`.png and `name`.svg into `folder` and return the figure; equal figures give equal bytes.

    The files' metadata hold the dataset's name as ``Source`` and the caption as ``Description``. A figure that has a
    caption, and that no template of the report places, is shown under the report's further figures.
    """
    stamped(figure, dataset)
    for suffix, without in {"png": ("Software",), "svg": ("Date", "Creator")}.items():
        metadata = {"Source": dataset or None, "Description": caption or None} | dict.fromkeys(without)
        with atomic(Path(folder) / f"{name}.{suffix}") as beside:
            figure.savefig(beside, metadata=metadata)
            _shrink(beside) if suffix == "png" else _renumber(beside)
    return figure


def _shrink(file: Path) -> None:
    """Reduce an image to 256 colours, in a third of the bytes. Areas keep their colours; no change of edges is seen."""
    with Image.open(file) as image:
        about, dpi = PngInfo(), image.info["dpi"]
        for key, text in image.text.items():
            about.add_text(key, text)
        image = image.convert("RGB").quantize(256, Image.Quantize.MAXCOVERAGE, kmeans=1, dither=Image.Dither.NONE)
    image.save(file, "PNG", optimize=True, pnginfo=about, dpi=dpi)


def _renumber(file: Path) -> None:
    """Name an SVG's clip paths by their order: matplotlib's names depend on the layout's last digits, which vary."""
    svg, order = file.read_text(encoding="utf-8"), {}
    named = re.sub(r"(?<=#)p[0-9a-f]{10}(?=\))", lambda found: order.setdefault(found[0], f"clip{len(order)}"), svg)
    for name, number in order.items():
        named = named.replace(f'id="{name}"', f'id="{number}"')
    file.write_text(named, encoding="utf-8")


def canvas(width: float, height: float, rows: int = 1, columns: int = 1, **options) -> tuple[Figure, Axes | np.ndarray]:
    """A figure of `width` by `height` inches, and its panels; `options` are those of `plt.subplots`."""
    figure, axes = plt.subplots(rows, columns, figsize=(width, height), layout="constrained", **options)
    plt.close(figure)  # a notebook would show an open figure a second time
    return figure, axes


def bands(width: float, heights: list[float], titles: list[str]) -> tuple[Figure, list]:
    """A figure of two bands, each on its own background: above what is published, below this run's; sizes in inches."""
    figure = plt.figure(figsize=(width, sum(heights)), layout="constrained")
    plt.close(figure)
    parts = figure.subfigures(2, 1, height_ratios=heights)
    for band, title, fill in zip(parts, titles, (THEIRS, OURS), strict=True):
        band.set_facecolor(fill)
        band.suptitle(title, fontweight="bold", fontsize=10, x=0.01, ha="left")
    return figure, list(parts)


def stamped(figure: Figure, dataset: str) -> Figure:
    """Write the dataset's name, unless it is there, into the lower right corner, on a strip that is kept free."""
    if not any(text.get_gid() == "dataset" for text in figure.texts):
        inch = 1 / figure.get_figheight()
        figure.get_layout_engine().set(rect=(0, 0.22 * inch, 1, 1 - 0.22 * inch))
        place = {"ha": "right", "va": "bottom", "fontsize": 8, "color": FAINT, "gid": "dataset"}
        figure.text(0.99, 0.06 * inch, dataset, **place)
    return figure


def log_counts(ax: Axes) -> None:
    """Make the y axis logarithmic, with counts written out at its ticks."""
    ax.set_yscale("log")
    ax.yaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
    ax.yaxis.set_major_formatter(StrMethodFormatter("{x:,.0f}"))
    ax.yaxis.set_minor_locator(NullLocator())


def dots(ax: Axes, rows: pd.DataFrame, column: str, form: str, order: list[str] | None = None) -> None:
    """Draw for each run a marker at `column`, its interval from lower to upper, and its number in the format `form`.

    `rows` has run, model, `column`, lower and upper; the first run in `order` is on top.
    """
    rows = rows.set_index("run").loc[order or in_order(rows["run"])]
    for y, (run, row) in enumerate(rows.iterrows()):
        if pd.isna(row[column]):  # masked
            continue
        _, colour, marker = style_of(run)
        ax.plot([row["lower"], row["upper"]], [y, y], color=colour, lw=1.8)
        ax.plot(row[column], y, marker, color=colour, ms=6.5)
        ax.text(row[column], y - 0.2, form.format(row[column]), ha="center", va="bottom", fontsize=8, color=INK)
    ax.set_yticks(range(len(rows)), rows["model"])
    ax.set_ylim(len(rows) - 0.5, -0.85)
    ax.margins(x=0.12)
    ax.xaxis.set_major_locator(MaxNLocator(4))


def text_box(ax: Axes, x: float, y: float, text: str, fill: str, width: float, height: float = 0.56) -> None:
    """A rounded box with its text in the middle."""
    style = "round,pad=0,rounding_size=0.05"
    ax.add_patch(FancyBboxPatch((x - width / 2, y - height / 2), width, height, style, fc=fill, ec=FAINT))
    ax.text(x, y, text, ha="center", va="center", color=INK, fontsize=9, linespacing=1.4)


def arrow(ax: Axes, start: tuple[float, float], end: tuple[float, float]) -> None:
    """An arrow between two points."""
    ax.annotate("", end, start, arrowprops={"arrowstyle": "-|>", "color": FAINT, "shrinkA": 0, "shrinkB": 0})
