"""Small counts: hand-worked cases, and the property that nothing published gives a small count away."""

import itertools
import json

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

from drgstudy import calibration, disclosure, errors, icu_cohort, plots, study

COUNTS = {"stays": ["accuracy"]}
TABLE = pd.DataFrame(
    {"drg": ["001", "002", "003", "004"], "stays": [40, 3, 0, 12], "accuracy": [0.5, 1 / 3, 0.0, 0.25]}
)


@pytest.fixture
def paths(tmp_path, monkeypatch):
    monkeypatch.setattr(study.places, "ROOT", tmp_path)
    return study.Paths("tiny")


@pytest.mark.parametrize(
    ("source", "flow", "kind"),
    [
        ("synthetic", "synthetic", "synthetic"),
        ("open demo", None, "open demo"),
        (None, "synthetic", "synthetic"),
        ("synthetic", "credentialed", "credentialed"),  # a cohort of other data than lie there now
        ("credentialed", "synthetic", "credentialed"),
        ("synthetic", "Open", "credentialed"),  # a kind that nobody knows
        (None, None, "credentialed"),
    ],
)
def test_only_data_known_to_be_open_are_not_masked(paths, source, flow, kind):
    if source:
        study.write_json(paths.source, {"kind": source, "name": f"raw {source}", "folder": "x"})
    if flow:
        study.write_json(paths.flow, {"stays": 1, "source": {"kind": flow, "name": f"flow {flow}"}})
    found = study.source_of(paths)
    assert found["kind"] == kind and set(found) == {"kind", "name"}
    assert disclosure.threshold(paths, 11) == (11 if kind == "credentialed" else 0)
    assert found["name"].endswith(kind) or found["name"] == "unknown"


def test_a_count_in_words_and_for_json():
    assert [disclosure.count(n, 11) for n in (0, 1, 10, 11, 1234)] == ["0", "< 11", "< 11", "11", "1,234"]
    assert disclosure.count(3, 0) == "3" and disclosure.count(3, 5) == "< 5"
    assert disclosure.unless_small(0.5, 10, 11) is None and disclosure.unless_small(
        0.5, 11, 11
    ) == 0.5 == disclosure.unless_small(0.5, 1, 0)


def test_a_small_count_goes_with_its_rates_and_one_alone_takes_the_next_larger_with_it():
    printed = disclosure.masked(TABLE, 11, COUNTS, printed=True, total=True)
    alone = disclosure.masked(TABLE, 11, COUNTS, printed=True)
    assert alone["stays"].tolist() == [40, "< 11", 0, 12] and alone["accuracy"].tolist() == [0.5, "–", 0.0, 0.25]
    assert printed["stays"].tolist() == [40, "< 11", 0, "–"] and printed["accuracy"].tolist() == [0.5, "–", 0.0, "–"]
    two = TABLE.assign(stays=[40, 3, 10, 12])
    assert disclosure.masked(two, 11, COUNTS, printed=True, total=True)["stays"].tolist() == [40, "< 11", "< 11", 12]
    numbers = disclosure.masked(two, 11, COUNTS)
    assert numbers["stays"].dropna().tolist() == [40, 12] and numbers["accuracy"].dropna().tolist() == [0.5, 0.25]
    assert json.loads(json.dumps(numbers.to_dict("list")))["stays"] == [40, None, None, 12]


def test_open_data_are_left_as_they_are():
    for table in (disclosure.masked(TABLE, 0, COUNTS, printed=True), disclosure.masked(TABLE.iloc[[0, 2]], 11, COUNTS)):
        pd.testing.assert_frame_equal(table, TABLE.loc[table.index])
    flow = {"notes": [{"step": "a", "kept": 9, "removed": 0}, {"step": "b", "kept": 8, "removed": 1}], "stays": 8}
    assert disclosure.merge_small_steps(flow, 0) == flow


def test_steps_that_leave_out_few_are_one_step():
    kept = [1000, 997, 900, 900, 895, 893, 700]
    steps = [
        {"step": name, "kept": n, "removed": before - n}
        for name, before, n in zip("abcdefg", [1000, *kept], kept, strict=False)
    ]
    found = disclosure.merge_small_steps({"notes": steps, "stays": 700}, 11)
    assert found["stays"] == 700 and [(step["step"], step["kept"], step["removed"]) for step in found["notes"]] == [
        ("a", 1000, 0), ("b, c, d, e, f", 893, 107), ("g", 700, 193),
    ]  # fmt: skip
    last = disclosure.merge_small_steps({"notes": [*steps[:3], {"step": "h", "kept": 899, "removed": 1}]}, 11)["notes"]
    assert [step["step"] for step in last] == ["a", "b, c, h"] and last[-1] == {
        "step": "b, c, h",
        "kept": 899,
        "removed": 101,
    }


@given(st.lists(st.integers(0, 30), min_size=1, max_size=8), st.integers(1, 12))
def test_whatever_a_flow_leaves_out_no_small_count_follows_from_it(removed, below):
    kept = [1000 - sum(removed[:i]) for i in range(len(removed) + 1)]
    steps = [
        {"step": str(i), "kept": n, "removed": r} for i, (n, r) in enumerate(zip(kept, [0, *removed], strict=True))
    ]
    found = disclosure.merge_small_steps({"chain": steps}, below)["chain"]
    for before, step in itertools.pairwise(found):
        assert before["kept"] - step["kept"] == step["removed"]
        assert not 0 < step["removed"] < below or sum(removed) < below  # all that was left out is small
    assert found[0] == steps[0] and found[-1]["kept"] == kept[-1]


@given(st.lists(st.integers(0, 30), min_size=2, max_size=8))
def test_with_the_total_at_hand_no_masked_count_is_known(counts):
    table = disclosure.masked(pd.DataFrame({"n": counts}), 11, {"n": []}, total=True)
    hidden = table["n"].isna()
    small = [0 < n < 11 for n in counts]
    assert all(hidden[small]) and (hidden.sum() != 1 or sum(n > 0 for n in counts) == 1)


def test_figures_print_no_small_count():
    counts = pd.DataFrame([[40, 3], [0, 25]], index=["a", "b"], columns=["a", "b"])
    tally = pd.DataFrame({"name": list(errors.CLASSES), "errors": [40, 3, 0, 11, 16, 20, 30], "share": 1 / 7})

    def texts(figure):
        return [text.get_text().strip() for ax in figure.axes for text in ax.texts]

    assert texts(plots.severity_confusion(counts, "d", 11)) == ["–", "< 11", "< 11", "–"]
    assert texts(plots.mdc_confusion(counts, "d", 11)) == [
        "",
        "",
        "",
        "",
    ]  # as two rows of two cells can hide nothing else
    assert texts(plots.mdc_confusion(counts, "d")) == ["40", "3", "", "25"]
    figure = plots.error_classes(disclosure.masked(tally, 11, {"errors": ["share"]}, printed=True, total=True), "d")
    assert [text.split(" (")[0] for text in texts(figure)] == ["40", "< 11", "0", "–", "16", "20", "30"]
    lengths = [bar.get_width() for bar in figure.axes[0].patches]  # an SVG tells them
    assert lengths == [40, 0, 0, 0, 16, 20, 30]
    assert texts(plots.error_classes(tally, "d"))[1] == "3 (14 %)"


def test_table_1_of_the_early_study_leaves_out_an_mdc_with_few_stays():
    stays = pd.DataFrame({"subject_id": range(60), "drg": "065", "weight": 1.0, "fold": [0] * 20 + [1] * 40})
    stays["first_visit"], stays["mdc"] = [True] * 60, ["01"] * 15 + ["05"] * 5 + ["01"] * 10 + ["05"] * 30
    assert {"n_stays_mdc_01", "n_stays_mdc_05"} <= set(icu_cohort.described(stays)["metric"])
    assert not icu_cohort.described(stays, 11)["metric"].str.contains("05").any()


def test_a_coverage_that_few_stays_reach_does_not_count():
    half = np.random.default_rng(0).permutation(20) % 2  # the halves that seed 0 draws
    confidence, hit = np.empty(20), np.empty(20, bool)
    for side in (0, 1):
        confidence[half == side], hit[half == side] = 1 - np.arange(10) / 100, np.arange(10) < 5
    once = np.ones((1, 20), int)
    found = [calibration.coverage_at(confidence, hit, [0.9], once, 0, fewest)["value"][0.9] for fewest in (0, 5, 6)]
    assert found == [0.5, 0.5, 0]


@given(st.lists(st.integers(0, 40), min_size=1, max_size=8), st.integers(0, 15), st.integers(0, 255))
def test_what_is_withheld_of_a_sum_is_not_few_together(counts, mask_below, bits):
    counts, everyone = np.array(counts), np.ones(len(counts), bool)
    some = everyone & (bits >> np.arange(len(counts)) & 1).astype(bool)
    hide = disclosure.withheld(counts, mask_below, [everyone, some])
    assert (disclosure.hidden(counts, mask_below, [everyone, some]) <= hide).all()
    for among in (everyone, some):
        left = counts[hide & among].sum()
        assert not disclosure.is_small(left, mask_below) or not (~hide & among & (counts > 0)).any()


def test_two_small_counts_that_are_few_together_take_the_next_with_them():
    counts, everyone = np.array([60, 30, 4, 3]), np.ones(4, bool)
    assert disclosure.hidden(counts, 11, [everyone]).tolist() == [False, False, True, True]
    assert disclosure.withheld(counts, 11, [everyone]).tolist() == [False, True, True, True]
