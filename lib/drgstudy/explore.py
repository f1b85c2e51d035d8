"""The page to explore: DRGs and confidences that a reader filters, brushes and slides; one file that fetches nothing.

Altair describes the charts, and Vega-Lite draws them in the browser. Vega comes with vl-convert and lies in the page. It
computes by an interpreter and needs no eval, so that the page's policy lets these two scripts run and nothing else.
"""

from __future__ import annotations

import base64
import functools
import hashlib
import itertools
import json
from collections.abc import Iterable
from pathlib import Path

import altair as alt
import numpy as np
import pandas as pd
import vl_convert
from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup
from matplotlib.colors import to_hex

from drgstudy import disclosure, drgs
from drgstudy.plots.style import in_order, style_of
from drgstudy.study import Paths, atomic

LIMITS = range(0, 100, 5)
"""Confidences in per cent, one for each place of the slider."""
SHAPES = {"o": "circle", "s": "square", "^": "triangle-up", "v": "triangle-down", "D": "diamond", "P": "cross", "<": "triangle-left"}  # fmt: skip
"""Markers of `plots.style`, by matplotlib's names, as Vega calls them."""
TICKS = [0, 1, 3, 10, 30, 100, 300, 1000, 3000, 10_000]
ENDS = {  # Wilson's 95 % interval of datum.share, of datum.stays stays
    "middle": "(datum.share + 1.9207 / datum.stays) / (1 + 3.8415 / datum.stays)",
    "reach": "1.96 * sqrt(datum.share * (1 - datum.share) / datum.stays + pow(0.98 / datum.stays, 2)) / (1 + 3.8415 / datum.stays)",
    "lower": "datum.middle - datum.reach",
    "upper": "datum.middle + datum.reach",
}


def by_drg(
    hits: dict[str, np.ndarray],
    truth: np.ndarray,
    labels: np.ndarray,
    train_cases: pd.Series,
    sets: Iterable[np.ndarray],
    mask_below: int,
) -> pd.DataFrame:
    """How many test stays of each DRG every run names rightly.

    Parameters
    ----------
    hits : dict of run to array of bool, shape (stays,)
        Whether a run's top-1 DRG is the true one.
    truth : array of int, shape (stays,)
        Indices of `labels`.
    labels : array of str, shape (k,)
        DRG codes of v34.
    train_cases : Series of int
        Training stays by DRG.
    sets : iterable of array of int
        Indices of the labels of each set of DRGs for which the report states an accuracy; each set holds the next or is
        held by it.
    mask_below : int
        A DRG is left out if one of its counts is small, or if small counts would follow from the sums of the sets.

    Returns
    -------
    DataFrame
        drg, title, type, train and test (stays), and a column of right answers for each run; by code.
    """
    tested, test = np.unique(truth, return_counts=True)
    table = drgs.v34().loc[labels[tested], ["title", "type"]].rename_axis("drg").reset_index()
    table["title"] = table["title"].map(drgs.readable)
    right = {run: np.bincount(truth[hit], minlength=len(labels))[tested] for run, hit in hits.items()}
    table = table.assign(train=table["drg"].map(train_cases).fillna(0).astype(int), test=test, **right)
    ring = np.sum([np.isin(tested, members) for members in sets], axis=0)  # DRGs that lie in equally many sets
    # The sets, and what lies in one and not in another.
    spans = itertools.combinations_with_replacement(np.unique(ring), 2)
    sums = [(first <= ring) & (ring <= last) for first, last in spans]
    counts = [table["train"], test, *right.values(), *(test - n for n in right.values())]
    left_out = np.any([disclosure.withheld(n, mask_below, sums) for n in counts], axis=0)
    return table[~left_out].reset_index(drop=True)


def by_limit(curves: dict[str, pd.DataFrame], n: int, mask_below: int) -> pd.DataFrame:
    """How many of `n` stays each run answers, and how many rightly, if it answers from each of `LIMITS` on.

    Parameters
    ----------
    curves : dict of run to DataFrame
        As `calibration.coverage` returns them; with small counts masked, as `disclosure.coarse` leaves them. Then a limit
        stands for the next higher confidence that may be told, and is left out where there is none.
    n, mask_below : int

    Returns
    -------
    DataFrame
        run, limit (per cent), of (`n`), stays, right.
    """
    rows = []
    for run, curve in curves.items():
        stays = (curve["coverage"] * n).round()
        right = (curve["accuracy"] * stays).round()
        steps = np.vstack([[0, 0], np.stack([stays, right], axis=-1)]).astype(int)
        for limit in LIMITS:
            last = (curve["threshold"] >= limit / 100).sum()
            if last or not mask_below:
                rows.append((run, limit, n, *steps[last].tolist()))
    return pd.DataFrame(rows, columns=["run", "limit", "of", "stays", "right"])


def write(paths: Paths, flow: dict, cases: pd.DataFrame, limits: pd.DataFrame, names: dict[str, str], run: str) -> Path:
    """Write ``explore.html`` into the report of a profile; equal arguments give equal bytes.

    Parameters
    ----------
    paths : Paths
    flow : dict
        As `flow.read_flow` returns it: the page names its source.
    cases, limits : DataFrame
        As `by_drg` and `by_limit` return them.
    names : dict of run to str
        What each run is called; no two alike.
    run : str
        The run whose accuracies are shown first.

    Returns
    -------
    Path
    """
    names = {key: names[key] for key in in_order(names)}
    charts = {"drgs": drg_chart(cases, names, run).to_dict(), "limits": limit_chart(limits, names).to_dict()}
    for chart in charts.values():
        chart.pop("$schema")  # an address that nobody fetches, with a version in it
    pages = Environment(loader=PackageLoader("drgstudy"), autoescape=True, undefined=StrictUndefined, trim_blocks=True)
    scripts = [bundle(), pages.loader.get_source(pages, "explore.js")[0]]
    hashes = [base64.b64encode(hashlib.sha256(script.encode()).digest()).decode() for script in scripts]
    page = pages.get_template("explore.html").render(
        scripts=[Markup(script) for script in scripts],
        policy=Markup(" ".join(f"'sha256-{each}'" for each in hashes)),
        charts=charts,
        studies=[{"dataset": flow["source"], "stays_fingerprint": flow["stays_fingerprint"]}],
        profile=paths.profile,
    )
    with atomic(paths.report / "explore.html") as beside:
        beside.write_text(page, encoding="utf-8")
    return paths.report / "explore.html"


@functools.cache
def bundle() -> str:
    """Vega, Vega-Lite and Vega-Embed as one script, as vl-convert brings them."""
    return vl_convert.javascript_bundle(vl_version=alt.SCHEMA_VERSION.rpartition(".")[0])


def drg_chart(cases: pd.DataFrame, names: dict[str, str], run: str) -> alt.ConcatChart:
    """A dot for each DRG, which are searched, filtered and brushed; bars of all runs' accuracy on those that are left."""
    # A run's own name may have a dot, which Vega would take for a path.
    fields = {key: f"run{i}" for i, key in enumerate(names)}
    name_of = json.dumps({field: names[key] for key, field in fields.items()})
    # No axis shall move when dots are filtered.
    most = cases[["train", "test"]].max().fillna(1).astype(int).to_dict()
    runs = alt.binding_select(options=[*fields.values()], labels=[*names.values()], name="Accuracy of")
    kinds = alt.binding_radio(options=["all", "medical", "surgical"], name="DRGs")
    words = alt.binding(input="search", placeholder="title or code", name="Search")
    brush = alt.selection_interval(name="brush", zoom=False)
    controls = [
        alt.param("search", value="", bind=words),
        alt.param("kind", value="all", bind=kinds),
        alt.param("run", value=fields[run], bind=runs),
    ]
    found = (
        alt.Chart(alt.Data(values=cases.rename(columns=fields).to_dict("records")))
        .transform_filter("indexof(lower(datum.drg + ' ' + datum.title), lower(trim(search))) >= 0")
        .transform_filter("kind == 'all' || datum.type == kind")
        .transform_calculate(name=f"({name_of})[run]", share="datum[run] / datum.test")
    )
    told = {"drg": "DRG", "title": "title", "type": "type", "train": "training stays", "test": "test stays"}
    shares = {f"share_of_{field}": _percent(f"datum.{field} / datum.test") for field in fields.values()}
    told |= dict(zip(shares, names.values(), strict=True))
    dots = (
        found.transform_calculate(**shares, said=f"datum.drg + ' ' + datum.title + ': ' + {_percent('datum.share')}")
        .mark_point(filled=True)
        .encode(
            alt.X(
                "train:Q",
                title="training stays",
                scale=alt.Scale(type="symlog", domain=[0, most["train"]]),
                axis=alt.Axis(values=TICKS),
            ),
            _share(alt.Y, "top-1 accuracy (%)"),
            _colour(names),
            size=alt.Size("test:Q", scale=alt.Scale(range=[25, 400], domain=[0, most["test"]]), legend=None),
            opacity=alt.condition(brush, alt.value(0.7), alt.value(0.15)),
            description="said:N",
            tooltip=[alt.Tooltip(field=field, type="nominal", title=title) for field, title in told.items()],
        )
        .add_params(*controls, brush)
    )
    sums = (
        found.transform_filter(brush)
        .transform_fold([*fields.values()], as_=["key", "right"])
        .transform_aggregate(right="sum(right)", stays="sum(test)", groupby=["key"])
        .transform_calculate(name=f"({name_of})[datum.key]", share="datum.right / datum.stays")
    )
    return _beside(
        dots.properties(name="dots", title="DRGs, larger with more test stays"),
        _bars(sums, names, "accuracy (%), 95 % interval").properties(name="bars", title="All models on these DRGs"),
        "Accuracy by training stays of each DRG, and of all models on the DRGs that are chosen",
    )


def limit_chart(limits: pd.DataFrame, names: dict[str, str]) -> alt.ConcatChart:
    """Accuracy by the share of stays that are answered, with a mark at the limit of the slider; and bars at that limit."""
    table = limits.assign(name=limits["run"].map(names)).drop(columns="run")
    least = np.nan_to_num(np.floor(10 * (limits["right"] / limits["stays"]).min()) / 10).item()
    steps = {"min": LIMITS[0], "max": LIMITS[-1], "step": LIMITS.step}
    slider = alt.binding_range(**steps, name="Answer only above this confidence (%)")
    every = alt.Chart(alt.Data(values=table.to_dict("records"))).transform_calculate(
        answered="datum.stays / datum.of", share="datum.right / datum.stays"
    )
    answers, chosen = every.transform_filter("datum.stays > 0"), every.transform_filter("datum.limit == limit")
    x, y = _share(alt.X, "stays that are answered (%)", "answered"), _share(alt.Y, "right among them (%)", least=least)
    lines = answers.mark_line(strokeWidth=1.5, opacity=0.6).encode(x, y, _colour(names), order="limit:Q")
    marks = answers.transform_filter("datum.limit == limit").mark_point(filled=True, size=110, opacity=1)
    curves = alt.layer(lines, marks.encode(x, y, _colour(names), _shape(names)))
    return _beside(
        curves.add_params(alt.param("limit", value=50, bind=slider)).properties(
            name="curves", title="Marks: this confidence"
        ),
        _bars(chosen, names, "right (%), 95 % interval").properties(name="answers", title="The stays that it answers"),
        "Accuracy by the share of stays that a model answers, and at the confidence that is chosen",
    )


def _percent(share: str) -> str:
    return f"format(100 * {share}, '.0f') + ' %'"


def _share(axis: type, title: str, field: str = "share", least: float = 0.0):
    ticks = alt.Axis(labelExpr="format(100 * datum.value, '.0f')", tickCount=6)
    return axis(f"{field}:Q", title=title, axis=ticks, scale=alt.Scale(domain=[least, 1]))


def _colour(names: dict[str, str]) -> alt.Color:
    colours = [to_hex(style_of(run)[1]) for run in names]
    return alt.Color("name:N", scale=alt.Scale(domain=[*names.values()], range=colours), legend=None)


def _shape(names: dict[str, str]) -> alt.Shape:
    shapes = [SHAPES.get(style_of(run)[2], "circle") for run in names]
    return alt.Shape("name:N", scale=alt.Scale(domain=[*names.values()], range=shapes), legend=None)


def _bars(rows: alt.Chart, names: dict[str, str], title: str) -> alt.LayerChart:
    """A bar for each run with what is written into it: datum.share of datum.stays stays, and the share's interval."""
    for name, formula in ENDS.items():
        rows = rows.transform_calculate(**{name: formula})
    said = f"datum.name + ': ' + (datum.stays ? {_percent('datum.share')} + ' of ' : '') + format(datum.stays, ',') + ' stays'"
    y = alt.Y("name:N", axis=None, sort=[*names.values()], scale=alt.Scale(domain=[*names.values()]))
    some, x = rows.transform_filter("datum.stays > 0"), _share(alt.X, title)
    return alt.layer(
        some.mark_bar(opacity=0.35).encode(x.stack(False), y, _colour(names)),
        some.mark_rule(opacity=0.6).encode(alt.X("lower:Q", title=title), alt.X2("upper:Q"), y),
        some.mark_point(filled=True, size=80, opacity=1).encode(x, y, _colour(names), _shape(names)),
        rows.transform_calculate(said=said)
        .mark_text(align="left", dx=6, dy=-15)
        .encode(alt.XDatum(0), y, text="said:N"),
    )


def _beside(left, right, description: str) -> alt.ConcatChart:
    """Two charts side by side; explore.js gives them their width, and puts one below the other where there is no room."""
    axis, text = {"labelFontSize": 11, "titleFontSize": 11}, {"fontSize": 12}
    charts = [chart.properties(height=330) for chart in (left, right)]
    return alt.concat(*charts, description=description).configure(
        background="transparent",
        font="system-ui, sans-serif",
        axis=axis,
        text=text,
        title={"anchor": "start"},
        view={"stroke": None},
    )
