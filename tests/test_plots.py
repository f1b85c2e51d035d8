"""The figures: what stands on their face, and that equal figures are equal bytes."""

import html
import re
from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import pytest
from matplotlib import font_manager
from PIL import Image

from drgstudy import calibration, drgs, errors, guard, metrics, plots
from drgstudy.plots.style import FONTS
from drgstudy.spline import binomial_curve, smoothing_spline

DATASET = "synthetic hospital, seed 3"
STAYS = pd.DataFrame(
    {"drg_v34": ["001", "002", "002", "003"] * 10, "split": ["train", "test"] * 20, "words": range(40, 80)}
)
FLOW = {
    "notes": [
        {"step": "discharge summaries", "kept": 1234, "removed": 0},
        {"step": "at least 40 words", "kept": 1000, "removed": 234},
    ],
    "drg_rows": [
        {"step": "DRG rows", "kept": 3333, "removed": 0},
        {"step": "MS-DRG", "kept": 1500, "removed": 1833},
        {"step": "stay has such a note", "kept": 1000, "removed": 500},
    ],
    "stays": 1000,
    "labels": 77,
    "splits": {"split": {"train_stays": 900, "test_stays": 100, "train_labels": 76, "test_labels": 66}},
}


def scores_table(runs, models, value):
    """Rows as `results.table1` and `published.table` have them; `value` gives the number of a run and a metric."""
    rows = [
        {"run": run, "model": model, "drg_set": "All DRGs", "metric": metric, "value": value(i, m), "sd": 0.01}
        for i, (run, model) in enumerate(zip(runs, models, strict=True))
        for m, metric in enumerate(metrics.METRICS)
    ]
    table = pd.DataFrame(rows)
    return table.assign(lower=table["value"] - 0.02, upper=table["value"] + 0.02, difference=table["value"])


OURS = scores_table(
    ["llama", "caml", "new-model"], ["DRG-LLaMA", "CAML", "new-model"], lambda i, m: 0.1 * i + 0.01 * m + 0.111
)
PUBLISHED = scores_table(["llama", "caml"], ["DRG-LLaMA-7B", "CAML"], lambda i, m: 0.9 - 0.1 * i - 0.01 * m)
BY_DRG = pd.DataFrame(
    {
        "rank": range(1, 13),
        "train_cases": np.geomspace(3000, 3, 12).astype(int),
        "test_cases": range(24, 0, -2),
        "acc_at_5": [1, 1, 0.9, 0.85, 1, 0.8, 0.5, 0.4, 0.1, 0, 1, 0],
        "acc_range": ["> 80"] * 5 + ["60–80", "40–60", "40–60", "< 20", "< 20", "> 80", "< 20"],
    }
)
SPLINE = smoothing_spline(BY_DRG["rank"], BY_DRG["acc_at_5"])
WEIGHTED = binomial_curve(BY_DRG["rank"], 20 * BY_DRG["acc_at_5"], np.full(12, 20))
EVIDENCE = pd.DataFrame(
    [
        {"scorer": scorer, "held_out": kind, "threshold": t, "right": 9 - t // 20, "wrong": 0, "excluded": t // 20}
        for kind in ("a", "b")
        for scorer in ("ratio", "WRatio")
        for t in range(50, 101)
    ]
)
HARD = {
    "documented": {"value": 0.84, "lower": 0.8, "upper": 0.88},
    "attack": {"value": 0.27, "lower": 0.23, "upper": 0.31},
    "curve": [{"train_stays": n, "value": v, "lower": v - 0.1, "upper": v + 0.1} for n, v in ((350, 0.3), (2800, 0.5))],
}
SWEEP = pd.DataFrame(
    [
        {"size": size, "max_tokens": n, "metric": metric, "value": 0.1 + n / 200, "sd": 0.01}
        for size in ("whole", "half")
        for n in (32, 64)
        for metric in metrics.METRICS
    ]
)
SPLITS = pd.DataFrame(
    [
        {"run": run, "model": plots.style_of(run)[0], "metric": metric, "together": 0.6, "apart": 0.5}
        | {"difference": -0.1, "lower": -0.3, "upper": 0.1}
        for run in ("llama", "tfidf")
        for metric in metrics.METRICS
    ]
)
SEVERITIES = pd.DataFrame(np.arange(25).reshape(5, 5), index=list("abcde"), columns=list("abcde"))
ERRORS = pd.DataFrame({"name": list(errors.CLASSES), "errors": range(7), "share": np.arange(7) / 21})
CATEGORIES = pd.DataFrame({"name": list(errors.CATEGORIES), "errors": range(5), "share": np.arange(5) / 10})
JUDGED = pd.DataFrame({"true_drg": ["291", "193", "470", "291"], "predicted_drg": ["292", "291", "470", "193"]})
RELIABLE = pd.DataFrame(
    {"confidence": [0.2, 0.8], "accuracy": [0.3, 0.7], "stays": [9, 10], "lower": [0.1, 0.5], "upper": [0.5, 0.9]}
)
COVERED = pd.DataFrame({"threshold": [0.9, 0.5], "coverage": [0.5, 1.0], "accuracy": [0.9, 0.6]})
COVERED = calibration.coverage_interval(COVERED, 20)
MIX = pd.DataFrame(
    [
        {"run": run, "model": run, "way": way, "measure": measure, "value": 3.0, "lower": 1.0, "upper": 5.0}
        for run in ("llama", "caml")
        for way in ("top-1", "expected")
        for measure in ("error_percent", "mae_dollars")
    ]
)
CLAIMS = pd.DataFrame(
    {"paper": "early DRG", "claim": ["longer is better", "as good", "not far off"], "unit": ["score", "score", "points"],
     "direction": ["above", "level", "below"], "published": [0.1, np.nan, 3.0], "margin": [np.nan, 0.05, 5.0], "bound": [0, 0, 5.0],
     "value": [0.2, 0.01, 6.0], "lower": [0.1, -0.1, 4.0], "upper": [0.3, 0.1, 8.0],
     "verdict": ["seen here", "undecided", "contradicted here"]}
)  # fmt: skip
SETS = pd.DataFrame(
    {"way": ["one limit", "by DRG"], "group": "0–9", "coverage": [0.7, 1.0], "lower": 0.6, "upper": [0.95, 1 - 2**-53]}
)
SETS = SETS.assign(size=5.0, size_lower=4.0, size_upper=6.0)
COSTS = pd.DataFrame({"minutes": [30.0, 3000.0], "dollars": [0.0, 9000.0]})
WEIGHTS = np.array([0.5, 1, 2, 8])
PHRASES = {
    "llama": ("291 HEART FAILURE AND SHOCK WITH MCC", "logit", pd.Series({"heart failure": 2.0, "denies": -1.0}))
}
YEARS = pd.DataFrame(
    {"value": [0.0, 0.5, np.nan], "lower": [0.01, 0.3, np.nan], "upper": [0.2, 0.7, np.nan]}, [2010, 2013, 2014]
)
MIX_BY_YEAR = pd.DataFrame({"distance": [0.3, 0.2], "by_chance": [0.25, 0.24]}, [2010, 2013])
SERVED = pd.DataFrame(
    {
        "characteristic": "age",
        "group": ["old", "young"],
        "reference": "others",
        "outcome": "accuracy",
        "raw": [-9.0, 3.0],
    }
).assign(within=[-2.0, np.nan], lower=[-5.0, np.nan], upper=[1.0, np.nan])
FIGURES = {
    "drift": lambda: plots.drift({"early years": YEARS, "all years": YEARS}, MIX_BY_YEAR, YEARS, 2012, DATASET),
    "served": lambda: plots.served(SERVED, {"accuracy": "accuracy (points)"}, DATASET),
    "sweep": lambda: plots.sweep(SWEEP, SWEEP.assign(size="13B"), DATASET),
    "splits": lambda: plots.split_effect(SPLITS, DATASET),
    "severity": lambda: plots.severity_confusion(SEVERITIES, DATASET),
    "error classes": lambda: plots.error_classes(ERRORS, DATASET),
    "error categories": lambda: plots.error_categories(CATEGORIES, {"Table 4": CATEGORIES}, DATASET),
    "mdc confusion": lambda: plots.mdc_confusion(errors.by_mdc(JUDGED), DATASET),
    "reliability": lambda: plots.reliability(
        {"llama": RELIABLE, "caml": RELIABLE}, {"llama": 0.1, "caml": 0.2}, DATASET
    ),
    "coverage": lambda: plots.coverage({"llama": COVERED}, [0.8], DATASET),
    "sets by size": lambda: plots.sets_by_size(SETS, 0.9, DATASET),
    "coding costs": lambda: plots.coding_costs({"llama": COSTS}, 0.6, DATASET),
    "case mix": lambda: plots.case_mix(MIX, DATASET),
    "stay weights": lambda: plots.weight_scatter(
        {"LLaMA": (WEIGHTS, {"top-1": WEIGHTS, "expected": WEIGHTS + 1})}, DATASET
    ),
    "strongest words": lambda: plots.strongest_words(PHRASES, "293 HEART FAILURE AND SHOCK", DATASET),
    "dials": lambda: plots.dials({0.1: pd.Series([5, 3]), 1.0: pd.Series([4, 2, 2])}, {62: STAYS["words"]}, DATASET),
    "hardness": lambda: plots.hardness(HARD, DATASET),
    "no curve": lambda: plots.hardness(HARD | {"curve": []}, DATASET),
    "bars": lambda: plots.bars(pd.Series({"a": 1, "b": 2}), "kind", "stays", DATASET),
    "words": lambda: plots.word_counts(STAYS, DATASET),
    "frequencies": lambda: plots.drg_frequencies(STAYS, DATASET),
    "learning": lambda: plots.learning_curve(
        {
            "llama": [{"step": 10, "loss": 2.0}, {"step": 20, "loss": 1.0}],
            "caml": [{"step": 5, "loss": 3.0}, {"step": 5, "eval_accuracy": 0.5}],
        },
        DATASET,
    ),
    "models": lambda: plots.beside_published(
        PUBLISHED, OURS, metrics.METRICS, ["MIMIC-IV (published)", f"{DATASET} (this run)"], DATASET
    ),
    "forest": lambda: plots.forest(OURS, "caml", DATASET),
    "differences": lambda: plots.differences(OURS[OURS["run"] != "llama"], "DRG-LLaMA", DATASET),
    "2a": lambda: plots.accuracy_by_rank(BY_DRG, SPLINE, WEIGHTED, DATASET),
    "2b": lambda: plots.cases_by_accuracy(BY_DRG, DATASET),
    "thresholds": lambda: plots.threshold_curve(EVIDENCE, "ratio", 92, DATASET),
    "claims": lambda: plots.claims(CLAIMS, DATASET),
    "s1": lambda: plots.case_density(BY_DRG["train_cases"], DATASET),
}


def words_on(figure):
    """All text that a figure shows, its panels' included."""
    figure.canvas.draw()
    return [text.get_text() for text in figure.findobj(plt.Text) if text.get_visible()]


@pytest.mark.parametrize("name", FIGURES)
def test_every_figure_names_its_dataset_its_axes_and_stays_closed(name):
    before = plt.get_fignums()
    figure = FIGURES[name]()
    assert any(DATASET in text for text in words_on(figure))
    assert all(ax.get_xlabel() or ax.get_ylabel() or ax.get_title() for ax in figure.findobj(plt.Axes))
    assert plt.get_fignums() == before  # a notebook would show an open one twice


def test_saving_twice_gives_equal_bytes_and_one_dataset_name(tmp_path):
    for folder in ("a", "b"):
        figure = FIGURES["2a"]()
        assert plots.save(figure, tmp_path / folder, "figure", DATASET) is figure
    assert words_on(figure).count(DATASET) == 1
    assert sorted(path.name for path in (tmp_path / "a").iterdir()) == ["figure.pdf", "figure.png", "figure.svg"]
    for file in ("figure.png", "figure.svg", "figure.pdf"):
        assert (tmp_path / "a" / file).read_bytes() == (tmp_path / "b" / file).read_bytes()
    svg = (tmp_path / "a" / "figure.svg").read_text()
    assert "date" not in svg and f"<dc:source>{DATASET}</dc:source>" in svg
    caption = f"{figure.get_label()} Data: {DATASET}."
    assert caption.startswith("Top-5 accuracy of 12 DRGs") and f"<dc:description>{caption}</dc:description>" in svg
    clips = set(re.findall(r"url\(#(.+?)\)", svg))
    assert clips and clips == {f"clip{i}" for i in range(len(clips))} <= set(re.findall(r'id="(.+?)"', svg))
    with Image.open(tmp_path / "a" / "figure.png") as image:
        assert image.text == {"Source": DATASET, "Description": caption}
    pdf = (tmp_path / "a" / "figure.pdf").read_bytes()
    assert b"Date" not in pdf and b"/FontFile2" in pdf  # TrueType, no outlines
    assert any(caption in text and DATASET in text for text in guard._texts(pdf))


@pytest.mark.parametrize(("name", "width"), [("forest", 183), ("2b", 89)])
def test_a_journal_can_print_a_figure_as_it_is(name, width, tmp_path):
    """A column's or a page's width, text as text in the project's own font, and 300 dots an inch."""
    figure = FIGURES[name]()
    plots.save(figure, tmp_path, "figure", DATASET)
    svg = (tmp_path / "figure.svg").read_text()
    assert float(re.search(r'<svg .*?width="([\d.]+)pt"', svg, re.DOTALL)[1]) == pytest.approx(
        width / 25.4 * 72, abs=0.01
    )
    assert set(re.findall(r"'Liberation Sans'[^;\"]*", svg)) == {"'Liberation Sans', Arial, Helvetica, sans-serif"}
    shown = [html.unescape(text) for text in re.findall("<text[^>]*>(.*?)</text>", svg)]
    assert DATASET in shown and "DejaVu" not in svg
    assert {text.get_fontname() for text in figure.findobj(plt.Text)} == {"Liberation Sans"}
    assert {text.get_fontsize() for text in figure.findobj(plt.Text) if text.get_text()} == {6, 7}
    with Image.open(tmp_path / "figure.png") as image:
        assert image.width == pytest.approx(width / 25.4 * 300, abs=1) and round(image.info["dpi"][0]) == 300


def test_the_font_is_the_projects_own_and_its_licence_lies_beside_it():
    files = {Path(font_manager.findfont(f"Liberation Sans{which}")) for which in ("", ":bold", ":italic")}
    assert {file.parent for file in files} == {FONTS} and len(files) == 3
    assert "SIL OPEN FONT LICENSE Version 1.1" in (FONTS / "OFL.txt").read_text()


def test_authors_take_the_datasets_name_off_the_face_but_not_out_of_the_file(tmp_path):
    figure = plots.save(FIGURES["forest"](), tmp_path, "figure", DATASET, "Models.", dataset_on_face=False)
    svg = (tmp_path / "figure.svg").read_text()
    assert not any(DATASET in text for text in words_on(figure))
    assert f"<dc:source>{DATASET}</dc:source>" in svg and f"Models. Data: {DATASET}." in svg


@pytest.mark.parametrize("name", FIGURES)
def test_a_figure_has_a_caption_and_no_hyphen_for_a_minus(name):
    figure = FIGURES[name]()
    assert figure.get_label().endswith(".") and len(figure.get_label()) > 20 and "nan" not in figure.get_label()
    assert [text for text in [*words_on(figure), figure.get_label()] if re.search(r"(?<![\w-])-\d", text)] == []


def test_the_forest_names_every_model_in_order_and_its_line_stands_at_the_plainest():
    figure = FIGURES["forest"]()
    assert [tick.get_text() for tick in figure.axes[0].get_yticklabels()] == ["DRG-LLaMA", "CAML", "new-model"]
    for ax, metric in zip(figure.axes, ("acc_at_1", "macro_f1"), strict=True):
        value = OURS[(OURS["run"] == "caml") & (OURS["metric"] == metric)]["value"].item()
        assert [set(line.get_xdata()) for line in ax.lines if line.get_linestyle() == "--"] == [{value}]
        assert "dashed: CAML" in ax.get_xlabel() and f"{value:.3f}" in {text.get_text() for text in ax.texts}
    without = plots.forest(OURS, "tfidf", DATASET)
    assert not any(line.get_linestyle() == "--" for ax in without.axes for line in ax.lines)


@pytest.mark.parametrize("name", ["forest", "models", "differences", "splits", "case mix"])
def test_numbers_stand_beside_the_panel_where_no_line_strikes_them_through(name):
    figure = FIGURES[name]()
    figure.draw_without_rendering()
    numbers = [(ax, text) for ax in figure.findobj(plt.Axes) for text in ax.texts]
    assert numbers
    for ax, text in numbers:
        assert text.get_window_extent().x0 > ax.get_window_extent().x1


def test_published_and_ours_share_no_panel_and_axes_that_look_alike_are_alike():
    theirs, ours = FIGURES["models"]().subfigs
    for above, below in zip(theirs.axes, ours.axes, strict=True):
        assert above.get_xlim() == below.get_xlim()
    left, right = FIGURES["claims"]().axes[:2]
    assert left.get_xlim() == right.get_xlim() and left.get_facecolor() != right.get_facecolor()
    theirs, ours = ({line.get_marker() for line in ax.lines} for ax in (left, right))
    assert theirs == {"|", "None"} and "|" not in ours
    assert "axes of its own" in " ".join(words_on(FIGURES["sweep"]()))


def test_what_a_patient_adds_is_drawn_with_its_interval():
    ax = FIGURES["splits"]().axes[0]
    assert [line.get_xdata()[0] for line in ax.lines if len(line.get_xdata()) == 2][1:] == [-0.3, -0.3]


def test_coverage_has_a_panel_a_model_with_its_band_and_the_others_in_grey():
    figure = plots.coverage({"caml": COVERED, "llama": COVERED}, [0.8], DATASET)
    assert [ax.get_title() for ax in figure.axes] == ["DRG-LLaMA", "CAML"]
    for ax in figure.axes:
        assert len(ax.collections) == 1 and {line.get_color() for line in ax.lines} >= {"0.8"}
    assert COVERED["upper"].tolist() == pytest.approx([0.9821, 0.7812], abs=1e-3)


@pytest.mark.parametrize("n", [1, 5, 7])
def test_no_panel_of_the_reliability_is_empty(n):
    figure = plots.reliability({str(i): RELIABLE for i in range(n)}, {str(i): 0.1 for i in range(n)}, DATASET)
    assert len(figure.axes) == n and all(ax.lines for ax in figure.axes)


@pytest.mark.parametrize("extremes", [[90_000], [5_000, 90_000], [10**7] * 3])
def test_a_very_long_course_does_not_spoil_the_axis(extremes):
    words = pd.Series([*STAYS["words"], *extremes])
    stays = pd.DataFrame({"words": words, "split": ["train", "test"] * 20 + ["train"] * len(extremes)})
    for mask_below, said in ((0, f"{len(extremes)} stay{'s' * (len(extremes) > 1)}"), (11, "< 11 stays")):
        figure = plots.word_counts(stays, DATASET, mask_below)
        left, right = figure.axes[0].get_xlim()
        assert 0 <= left < 40 and 79 < right < 200
        drawn = next(line for line in figure.axes[0].lines if line.get_label().startswith("train"))
        assert drawn.get_xdata().max() == 78 and drawn.get_ydata().argmax() not in (0, 199)
        assert f"words in the hospital course (thin lines: means; {said} beyond the axis)" in words_on(figure)
        mean = words[stays["split"] == "train"].mean()
        assert f"train: {20 + len(extremes)} stays, mean {mean:,.0f}" in words_on(figure)
        known = plots.words_known({24: STAYS["words"], 48: words}, DATASET, mask_below)
        assert known.axes[0].get_xlim()[1] < 200 and f"words known of a stay; {said} beyond the axis" in words_on(known)
    assert "words in the hospital course (thin lines: means)" in words_on(plots.word_counts(STAYS, DATASET))


def test_the_order_and_looks_are_fixed_and_unknown_runs_come_last():
    assert plots.in_order(["zzz", "tfidf", "aaa", "llama"]) == ["llama", "tfidf", "aaa", "zzz"]
    assert plots.style_of("zzz")[0] == "zzz" and plots.style_of("llama")[0] == "DRG-LLaMA"
    assert plots.style_of("llama-small-64") == ("DRG-LLaMA (small, 64)", *plots.style_of("llama")[1:])
    for column in zip(*plots.MODELS.values(), strict=True):
        assert len(set(column)) == len(plots.MODELS)


def test_figure_3_tells_v34s_own_titles_and_both_rules():
    said = " ".join(text.get_text().replace("\n", " ") for text in plots.approaches().axes[0].texts)
    v34 = drgs.v34()
    for code, label in (("291", "with MCC"), ("293", "without CC/MCC")):
        assert f"DRG {code} {label}" in said and v34["title"][code] == f"HEART FAILURE AND SHOCK {label}".upper()
    assert f"{v34['base'].nunique()} + {len(drgs.CC_LABELS)} logits" in said and "½ CE(CC/MCC label)" in said
    assert all(label in said for label in drgs.CC_LABELS)
    assert all(base in said.upper() for base in v34["base"][["291", "193", "682"]])


def test_the_flow_diagram_shows_every_count():
    words = words_on(plots.flow_diagram(FLOW, DATASET))
    for step in FLOW["notes"] + FLOW["drg_rows"]:
        assert any(text.lower() == f"{step['step'].lower()}\n{step['kept']:,}" for text in words)
    for removed in ("234", "1,833", "500"):
        assert f"{removed} left out" in words
    for box in ("Cohort\n1,000 stays, 77 DRGs", "Training\n900 stays, 76 DRGs", "Test\n100 stays, 66 DRGs"):
        assert box in words


def test_the_models_figure_keeps_the_two_datasets_apart():
    theirs, ours = FIGURES["models"]().subfigs
    band = {
        name: [t.get_text() for t in part.findobj(plt.Text)] for name, part in {"theirs": theirs, "ours": ours}.items()
    }
    assert any("MIMIC-IV (published)" in text for text in band["theirs"])
    assert (
        "0.900" in band["theirs"] and "DRG-LLaMA-7B" in band["theirs"] and not any(DATASET in t for t in band["theirs"])
    )
    assert any(f"{DATASET} (this run)" in text for text in band["ours"])
    assert "0.111" in band["ours"] and "new-model" in band["ours"] and not any("MIMIC" in t for t in band["ours"])
    assert theirs.get_facecolor() != ours.get_facecolor()


def test_figure_2a_shows_every_drg_and_the_splines_df_and_r2():
    figure = FIGURES["2a"]()
    assert any(f"df {SPLINE.df:.2f}, R² {SPLINE.r2:.3f}" in text for text in words_on(figure))
    assert "each test stay counts as one" in words_on(figure)
    second = next(line for line in figure.axes[0].lines if line.get_label() == "each test stay counts as one")
    np.testing.assert_allclose(second.get_ydata(), WEIGHTED(second.get_xdata()))
    dots = figure.axes[0].collections[1]
    assert np.array_equal(dots.get_offsets(), BY_DRG[["rank", "acc_at_5"]].to_numpy())
    assert np.ptp(dots.get_sizes() / BY_DRG["test_cases"]) < 1e-9  # areas, not widths
    assert "DRG of 24 test stays" in words_on(figure)


def test_figure_2b_counts_the_drgs_of_each_range_even_if_there_is_none():
    ticks = [tick.get_text() for tick in FIGURES["2b"]().axes[0].get_xticklabels()]
    axes = FIGURES["2b"]().axes[0]
    drawn = np.concatenate([line.get_ydata() for line in axes.lines if line.get_marker() == "o"])
    assert sorted(drawn) == sorted(BY_DRG["train_cases"]) and len(axes.patches) == 1  # a box of six, none of three
    assert ticks == ["< 20 %\n3 DRGs", "20–40 %\n0 DRGs", "40–60 %\n2 DRGs", "60–80 %\n1 DRG", "> 80 %\n6 DRGs"]


def test_supplementary_figure_1_tells_the_median_and_the_large_drgs():
    cases = pd.Series([10, 20, 2001, 2000])
    figure = plots.case_density(cases, DATASET)
    words = words_on(figure)
    assert "median: 1,010 cases" in words and "above 2,000 cases: 1 of 4 DRGs" in words
    assert any(line.get_linestyle() == "--" and set(line.get_xdata()) == {1010} for line in figure.axes[0].lines)


def test_a_learning_curve_has_a_panel_for_each_run_in_order():
    figure = FIGURES["learning"]()
    assert [ax.get_title() for ax in figure.axes if ax.get_title()] == ["DRG-LLaMA", "CAML"]
    assert [ax.get_ylabel() for ax in figure.axes].count("validation accuracy (dashed)") == 1


def test_the_threshold_curve_shows_all_counts_and_marks_what_was_chosen():
    figure = FIGURES["thresholds"]()
    counts = ("right", "wrong", "excluded")
    assert [ax.get_title() for ax in figure.axes] == [f"{kind}: {count}" for kind in "ba" for count in counts]
    assert figure.legends[0].texts[0].get_text() == "ratio (chosen)"
    for ax, count in zip(figure.axes, counts * 2, strict=True):
        chosen, other, mark = ax.lines
        assert chosen.get_linewidth() > other.get_linewidth() and chosen.get_marker() != other.get_marker()
        assert chosen.get_ydata().tolist() == EVIDENCE[count][:51].tolist() and set(mark.get_xdata()) == {92}


def test_the_hardness_figure_tells_documentation_attack_and_sizes():
    words = words_on(plots.hardness(HARD, DATASET))
    assert any("documentation" in word and "(0.84)" in word for word in words)
    assert any("attack" in word and "(0.27)" in word for word in words) and {"350", "2,800"} <= set(words)
    (alone,) = FIGURES["no curve"]().axes
    assert alone.get_xlabel() == "top-1 accuracy (%)" and len(alone.get_xticks()) > 2


def test_the_study_map_names_every_notebook():
    words = " ".join(words_on(plots.study_map()))
    assert all(name in words for name in ("01-hospital", "02-harmonization", "03-cohort", "05-train", "06 to 19"))


def test_the_strata_figure_has_a_row_for_each_stratum_and_the_first_run_no_difference():
    rows = [
        {"stratum": stratum, "stays": 1200 + k, "run": run, "value": 0.5, "lower": 0.4, "upper": 0.6}
        | ({"difference": 0.1 * k, "difference_lower": 0.0, "difference_upper": 0.2} if run == "llama" else {})
        for k, stratum in enumerate(("all", "none of these"))
        for run in ("tfidf", "llama")
    ]
    figure = plots.strata(pd.DataFrame(rows), DATASET)
    left, right = figure.axes
    assert [label.get_text() for label in left.get_yticklabels()] == ["all (1,200)", "none of these (1,201)"]
    assert (len(left.containers), len(right.containers)) == (2, 1)
    assert right.containers[0].lines[0].get_xdata().tolist() == [0, 0.1]
