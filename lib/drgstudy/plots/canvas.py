"""What the figures share: panels, the dataset's name, dots, boxes and arrows, and how they are saved."""

from __future__ import annotations

import re
from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.axis import Axis
from matplotlib.figure import Figure
from matplotlib.patches import FancyBboxPatch
from matplotlib.ticker import FuncFormatter, LogLocator, MaxNLocator, NullLocator, StrMethodFormatter
from matplotlib.transforms import Bbox
from PIL import Image
from PIL.PngImagePlugin import PngInfo

from drgstudy.plots.style import FAINT, INK, OURS, SMALL, THEIRS, in_order, style_of
from drgstudy.study import atomic

MM = 1 / 25.4  # inches
WIDTHS = {"one column": 89, "two columns": 183}  # mm, of a journal's page


def save(
    figure: Figure, folder: Path, name: str, dataset: str, caption: str = "", dataset_on_face: bool = True
) -> Figure:
    """Write `name`.png, .svg and .pdf into `folder` and return the figure; equal figures give equal bytes.

    The files' metadata hold the dataset's name (``Source``; in a PDF ``Keywords``) and the caption, by default the
    figure's own (``Description``; in a PDF ``Subject``). A figure that no template of the report places is shown with its
    caption under the report's further figures. Authors whose legend names the data take `dataset_on_face` away.
    """
    stamped(figure, dataset, caption or figure.get_label())
    for name_of_data in figure.findobj(lambda artist: artist.get_gid() == "dataset"):
        name_of_data.set_visible(dataset_on_face)
    source, said = dataset or None, [figure.get_label(), f"Data: {dataset}." if dataset else ""]
    caption = " ".join(filter(None, said)) if said[0] else None
    about = {"Source": source, "Description": caption}
    metadata = {
        "png": about | {"Software": None},
        "svg": about | dict.fromkeys(["Date", "Creator"]),
        "pdf": {"Keywords": source, "Subject": caption} | dict.fromkeys(["Creator", "Producer", "CreationDate"]),
    }
    _settle(figure)
    for suffix, of in metadata.items():
        with atomic(Path(folder) / f"{name}.{suffix}") as beside:
            figure.savefig(beside, metadata=of)
            if suffix != "pdf":
                _shrink(beside) if suffix == "png" else _plain(beside)
    return figure


def _settle(figure: Figure) -> None:
    """Lay a figure out for good, places rounded: a layout's last digits vary, and a PDF would show them."""
    figure.draw_without_rendering()
    figure.set_layout_engine("none")
    for box in [part.bbox_relative for part in figure.subfigs]:
        box.set_points(box.get_points().round(6))
    for ax in figure.axes:
        ax.set_position(Bbox(ax.get_position(original=True).get_points().round(6)))


def _shrink(file: Path) -> None:
    """Reduce an image to 256 colours, in a third of the bytes. Areas keep their colours; no change of edges is seen."""
    with Image.open(file) as image:
        about, dpi = PngInfo(), image.info["dpi"]
        for key, text in image.text.items():
            about.add_text(key, text)
        image = image.convert("RGB").quantize(256, Image.Quantize.MAXCOVERAGE, kmeans=1, dither=Image.Dither.NONE)
    image.save(file, "PNG", optimize=True, pnginfo=about, dpi=dpi)


def _plain(file: Path) -> None:
    """Make an SVG the same everywhere: clip paths named by their order, and a list of fonts that every viewer has.

    Matplotlib names clip paths after the layout's last digits, which vary.
    """
    svg, order = file.read_text(encoding="utf-8"), {}
    svg = svg.replace("'Liberation Sans', 'DejaVu Sans'", "'Liberation Sans', Arial, Helvetica, sans-serif")
    named = re.sub(r"(?<=#)p[0-9a-f]{10}(?=\))", lambda found: order.setdefault(found[0], f"clip{len(order)}"), svg)
    for name, number in order.items():
        named = named.replace(f'id="{name}"', f'id="{number}"')
    file.write_text(named, encoding="utf-8")


def canvas(width: str, height: float, rows: int = 1, columns: int = 1, **options) -> tuple[Figure, Axes | np.ndarray]:
    """A figure as wide as `width` ("one column" or "two columns") and `height` mm high, and its panels.

    `options` are those of `plt.subplots`.
    """
    size = WIDTHS[width] * MM, height * MM
    figure, axes = plt.subplots(rows, columns, figsize=size, layout="constrained", **options)
    plt.close(figure)  # a notebook would show an open figure a second time
    return figure, axes


def bands(heights: list[float], titles: list[str]) -> tuple[Figure, list]:
    """A figure of two bands: above, in a dashed frame, what is published; below, in a solid one, this run's.

    It is two columns wide; `heights` are in mm. Both frames have a background of their own, too.
    """
    figure = plt.figure(figsize=(WIDTHS["two columns"] * MM, sum(heights) * MM), layout="constrained")
    plt.close(figure)
    parts = figure.subfigures(2, 1, height_ratios=heights)
    for band, title, fill, line in zip(parts, titles, (THEIRS, OURS), ("--", "-"), strict=True):
        band.set_facecolor(fill)
        band.patch.set(edgecolor=FAINT, linewidth=1, linestyle=line)
        band.suptitle(title, fontweight="bold", x=0.01, ha="left")
    return figure, list(parts)


def stamped(figure: Figure, dataset: str, caption: str) -> Figure:
    """Give a figure its caption, and write the dataset's name, unless it is there, on a strip at its lower end."""
    figure.set_label(caption)
    if not any(text.get_gid() == "dataset" for text in figure.texts):
        mm = MM / figure.get_figheight()
        figure.get_layout_engine().set(rect=(0, 3.5 * mm, 1, 1 - 3.5 * mm))
        place = {"ha": "right", "va": "bottom", "fontsize": SMALL, "color": FAINT, "gid": "dataset"}
        figure.text(0.995, 0.6 * mm, dataset, **place)
    return figure


def minus(text: str) -> str:
    """A printed number with a typographic minus."""
    return text.replace("-", "−")


def percent(*axes: Axis) -> None:
    """Print the shares at the ticks of these axes as per cent, without the sign."""
    for axis in axes:
        axis.set_major_formatter(FuncFormatter(lambda share, _: minus(f"{100 * share:.6g}")))


def log_counts(ax: Axes) -> None:
    """Make the y axis logarithmic, with counts written out at its ticks."""
    ax.set_yscale("log")
    ax.yaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
    ax.yaxis.set_major_formatter(StrMethodFormatter("{x:,.0f}"))
    ax.yaxis.set_minor_locator(NullLocator())


def dots(ax: Axes, rows: pd.DataFrame, column: str, form: str, order: list[str] | None = None) -> None:
    """Draw for each run a marker at `column`, its interval from lower to upper, and its number right of the panel.

    `rows` has run, model, `column`, lower and upper; the first run in `order` is on top. `form` is the numbers' format.
    """
    rows = rows.set_index("run").loc[order or in_order(rows["run"])]
    for y, (run, row) in enumerate(rows.iterrows()):
        if pd.isna(row[column]):  # masked
            continue
        _, colour, marker = style_of(run)
        ax.plot([row["lower"], row["upper"]], [y, y], color=colour)
        ax.plot(row[column], y, marker, color=colour, ms=4.5)
        said = minus(form.format(row[column]))
        ax.text(1.02, y, said, transform=ax.get_yaxis_transform(), va="center", fontsize=SMALL, color=INK)
    ax.set_yticks(range(len(rows)), rows["model"])
    ax.set_ylim(len(rows) - 0.5, -0.5)
    ax.margins(x=0.08)
    ax.xaxis.set_major_locator(MaxNLocator(4))


def text_box(ax: Axes, x: float, y: float, text: str, fill: str, width: float, height: float = 0.56) -> None:
    """A rounded box with its text in the middle."""
    style = "round,pad=0,rounding_size=0.05"
    ax.add_patch(FancyBboxPatch((x - width / 2, y - height / 2), width, height, style, fc=fill, ec=FAINT))
    ax.text(x, y, text, ha="center", va="center", color=INK, linespacing=1.3)


def arrow(ax: Axes, start: tuple[float, float], end: tuple[float, float]) -> None:
    """An arrow between two points."""
    style = {"arrowstyle": "-|>", "color": FAINT, "shrinkA": 0, "shrinkB": 0, "lw": 0.7, "mutation_scale": 7}
    ax.annotate("", end, start, arrowprops=style)
