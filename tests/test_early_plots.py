"""The early study's figures on small tables: each names its dataset, stays closed and shows what it was given."""

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import pytest

from drgstudy import casemix, plots, published, results

DATASET = "synthetic hospital, seed 1"
rng = np.random.default_rng(0)
TRUE = rng.lognormal(0.5, 0.5, 60)
GUESSES = {hour: TRUE * rng.lognormal(0.1, 0.3, (3, 60)) for hour in (-6, 24, 48)}
SYSTEMS = ("ms", "apr")


def both(make) -> pd.DataFrame:
    return pd.concat({system: make() for system in SYSTEMS}, names=["system"]).reset_index("system")


def table2() -> pd.DataFrame:
    rows = [
        {"system": system, "run": f"{run}-{system}", "hours": hours, "model": run.upper(), "drg_set": "All DRGs"}
        | {"metric": metric, "value": 0.5, "sd": np.nan if run == "bert" else 0.1}
        for system in SYSTEMS
        for run, hours in (("caml", 48), ("lstm", 48), ("bert", 48), ("caml", 24))
        for metric in results.EARLY_METRICS
    ]
    return pd.DataFrame(rows)


def sizes() -> pd.DataFrame:
    parts = {hour: casemix.errors_by_size(TRUE[:30], GUESSES[hour][:, :30], [20, 40], 3, 1) for hour in (24, 48)}
    return pd.concat(parts, names=["hour"]).reset_index("hour")


FLOW = {system: [{"step": "hospital stays", "kept": 1234, "removed": 0}, {"step": "adult", "kept": 1000, "removed": 234}] for system in SYSTEMS}  # fmt: skip
NOTES = pd.DataFrame({"hours": rng.uniform(-20, 48, 90), "category": ["Nursing", "Radiology", "ECG"] * 30})
PAPER = pd.DataFrame({"system": SYSTEMS, "hour": 24, "value": [2.4, 12.79], "sd": [1.07, 2.31]})
SHARES = pd.DataFrame(rng.random((4, 48)), index=["heart rate", "sodium", "lactate", "weight"])
STAY = pd.DataFrame({"heart rate": rng.normal(80, 9, 48), "sodium": np.where(np.arange(48) % 8, np.nan, 140)})
WAYS = {"top-1 DRG": GUESSES[24][0], "regression": GUESSES[48][0] - 2}


def beside():
    bands = map(results.shown_by_system, (published.table("Table 2", "Early DRG"), table2()))
    return plots.beside_published(
        *bands, results.EARLY_METRICS, ["MIMIC-III (published)", f"{DATASET} (this run)"], DATASET
    )


FIGURES = {
    "flow": (lambda: plots.flow_diagram(FLOW, DATASET), ["1,234", "234 left out", "APR-DRG cohort"]),
    "words": (lambda: plots.words_known({24: pd.Series(range(50)), 48: pd.Series(range(90))}, DATASET), ["hour 48: 44 on average"]),
    "notes": (lambda: plots.note_hours(NOTES, DATASET), ["Nursing: 30", "Radiology: 30"]),
    "measured": (lambda: plots.measured_by_hour(SHARES, DATASET), ["heart rate", "hours after ICU admission"]),
    "course": (lambda: plots.course(STAY, pd.Series({"heart rate": "beats/min", "sodium": "mEq/L"}), DATASET), ["sodium (mEq/L)"]),
    "models": (lambda: beside(), ["MS-DRG: CAML", "APR-DRG: LSTM", "0.871", "macro-F1"]),
    "hours": (lambda: plots.cmi_by_hour(both(lambda: casemix.errors_by_hour(TRUE, GUESSES)), PAPER, dict.fromkeys(SYSTEMS, 3.0), DATASET), ["a guess that reads nothing", "published, ± SD"]),
    "sizes": (lambda: plots.cmi_by_size(both(sizes), {"ms": 8, "apr": 15}, DATASET), ["at 48 hours", "published, of MIMIC-III: under 15 %", "more than the cohort’s 30)"]),
    "payments": (lambda: plots.cmi_payments(both(lambda: casemix.payments(TRUE, GUESSES, np.arange(50))), 6000.0, DATASET), ["true, 50 stays", "payment (million $)"]),
    "regression": (lambda: plots.weight_scatter(dict.fromkeys(SYSTEMS, (TRUE, WAYS)), DATASET), ["regression", "APR-DRG: predicted weight"]),
}  # fmt: skip


def texts(figure) -> str:
    found = [text.get_text() for text in figure.findobj(match=plt.Text)]
    return "\n".join(found)


@pytest.mark.parametrize("name", FIGURES)
def test_a_figure_shows_what_it_was_given_and_whose_data_it_is(name):
    make, shown = FIGURES[name]
    figure = make()
    said = texts(figure)
    assert DATASET in said and all(text in said for text in shown), said
    assert not plt.get_fignums()


def test_one_model_has_no_whisker_and_the_first_day_a_row_of_its_own():
    figure = beside()
    said = texts(figure)
    assert said.count("MS-DRG: CAML") >= 2 and "nan" not in said


def test_the_published_error_has_panels_of_its_own_on_equal_axes():
    theirs, ours = FIGURES["hours"][0]().subfigs
    for above, below in zip(theirs.axes, ours.axes, strict=True):
        assert above.get_ylim() == below.get_ylim() and above.get_xlim() == below.get_xlim()
        assert [text.get_text() for text in above.get_legend().get_texts()] == ["published, ± SD"]
        assert not any("published" in text.get_text() for text in below.get_legend().get_texts())


def test_a_weight_below_the_axis_is_drawn_at_its_end():
    figure = plots.weight_scatter({"ms": (TRUE, WAYS)}, DATASET)
    low = figure.axes[1].get_ylim()[0]
    drawn = figure.axes[1].lines[-1].get_ydata()
    assert (WAYS["regression"] < 0).any() and drawn.min() == pytest.approx(low)
