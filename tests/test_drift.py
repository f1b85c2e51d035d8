"""What changes from year to year: drift that the hospital's dial plants, none where there is none, and masks."""

import numpy as np
import pandas as pd
import pytest

from drgstudy import drift
from drgstudy.cohort import DRG_COLUMNS
from drgstudy.models import tfidf
from drgstudy.predictions import Predictions
from drgstudy.study import StudyError
from drgstudy.synthetic.discharge import hospital_and_staff, patient_generator
from drgstudy.synthetic.patients import draw_patient


@pytest.fixture(scope="module")
def hospital():
    return hospital_and_staff(0.0)[0]


def first_stays(hospital, seed: int, dial: float) -> pd.DataFrame:
    patients = (draw_patient(hospital, n, patient_generator(seed, n), drift=dial) for n in range(700))
    return pd.DataFrame(
        [(each.stays[0].drg_v36, each.stays[0].fiscal_year) for each in patients], columns=["drg", "year"]
    )


@pytest.mark.parametrize(("dial", "found"), [(1.0, True), (0.0, False)])
def test_a_drift_of_the_case_mix_is_found_where_the_dial_plants_one(hospital, dial, found):
    stays = first_stays(hospital, 1, dial)
    table, p = drift.mix_by_year(stays["drg"], stays["year"], 99, 1)
    assert (p < 1e-4) is found and (p > 0.2) is not found
    assert table.index.tolist() == sorted(stays["year"].unique())


def test_shuffled_years_raise_an_alarm_as_often_as_they_may(hospital):
    stays, rng = first_stays(hospital, 2, 1.0), np.random.default_rng(0)
    tables, p = zip(
        *(drift.mix_by_year(stays["drg"], pd.Series(rng.permutation(stays["year"])), 20, 1) for _ in range(40)),
        strict=True,
    )
    assert np.mean(np.array(p) < 0.05) <= 0.15 and np.mean(np.array(p) < 0.5) == pytest.approx(0.5, abs=0.2)
    beyond = pd.concat(tables)
    assert (beyond["distance"] > beyond["by_chance"]).mean() == pytest.approx(0.05, abs=0.05)


def test_the_distance_of_two_years_by_hand():
    """A quarter of the stays of each year would need the other DRG to be like all years: 1 of 4 A in one, 3 of 4 in the other."""
    drg, year = pd.Series(list("ABBBAAAB")), pd.Series([2010] * 4 + [2011] * 4)
    table, p = drift.mix_by_year(drg, year, 50, 1)
    assert table["distance"].tolist() == [0.25, 0.25] and (table["by_chance"] >= 0.25).all() and p == 1


def test_what_is_left_out_by_year():
    """Rows that are no MS-DRG, and stays without a year, do not count."""
    rows = [
        (1, "HCFA", "1", "A"),
        (2, "HCFA", "2", "B"),
        (2, "APR", "9", "C"),
        (3, "HCFA", "2", "B"),
        (4, "HCFA", "1", "A"),
    ]
    mapping = pd.DataFrame({"code": ["001", "002"], "title": ["A", "B"], "drg_v34": ["001", None]})
    year = pd.Series({1: 2010, 2: 2010, 3: 2011})
    table = drift.left_out_by_year(pd.DataFrame(rows, columns=DRG_COLUMNS), mapping, year)
    assert table["value"].to_dict() == {2010: 0.5, 2011: 1.0}
    assert table.loc[2010, "lower"] == pytest.approx(0.0945, abs=1e-4)  # Wilson, 1 of 2


def test_a_year_is_not_shown_if_few_are_right_nor_if_the_others_would_tell():
    hits = pd.Series([True] * 5 + [False] * 45 + [True] * 30 + [False] * 20 + [True] * 25 + [False] * 25)
    year = pd.Series(np.repeat([2010, 2011, 2012], 50))
    assert drift.by_year(hits, year)["value"].tolist() == [0.1, 0.6, 0.5]
    shown = drift.by_year(hits, year, 11)
    assert shown.isna().all(axis=1).tolist() == [True, False, True]
    assert drift.by_year(hits, year, 11, [[2010, 2011]]).isna().all(axis=1).tolist() == [True, True, True]


def test_later_notes_are_told_from_early_ones_only_where_the_scores_differ():
    rng = np.random.default_rng(0)
    late = rng.random(400) < 0.4
    auc, p = drift.told_apart(rng.normal(size=400) + late, late)
    assert auc == pytest.approx(0.76, abs=0.05) and p < 1e-9  # the normal distribution at 1 / sqrt(2)
    auc, p = drift.told_apart(rng.normal(size=400), late)
    assert auc == pytest.approx(0.5, abs=0.06) and p > 0.05
    assert drift.told_apart(np.array([1.0, 2, 3, 3]), np.array([False, False, True, False]))[0] == pytest.approx(
        2.5 / 3
    )


def hits(rng, shares, n: int = 500) -> np.ndarray:
    """Models of which each names a share of the same stays right; some stays are easier than others for all."""
    ease = rng.normal(size=n)
    noisy = ease + 0.5 * rng.normal(size=(len(shares), n))
    return noisy > np.array([np.quantile(each, 1 - share) for each, share in zip(noisy, shares, strict=True)])[:, None]


def test_a_training_that_falls_out_of_the_scatter_of_the_others_is_found_and_one_that_does_not_is_not():
    rng = np.random.default_rng(1)
    one, *others = hits(rng, [0.3, *rng.normal(0.45, 0.02, 10)])
    worse = drift.gain(one, np.array(others))
    assert worse["difference"] == pytest.approx(0.15, abs=0.03) and worse["lower"] > 0 and worse["p"] < 0.01
    alarms = [
        drift.gain(each[0], each[1:])["p"] < 0.05 for each in (hits(rng, rng.normal(0.45, 0.04, 8)) for _ in range(300))
    ]
    assert np.mean(alarms) < 0.09


def test_the_gain_by_hand_and_its_mask():
    early, drawn = (
        np.array([True, False, False, False]),
        np.array([[True, True, False, False], [True, True, True, False]]),
    )
    found = drift.gain(early, drawn)
    assert found[["early", "all", "difference"]].tolist() == [0.25, 0.625, 0.375]
    error = np.sqrt(np.var([0, 1, 0.5, 0], ddof=1) / 4 + np.var([0.5, 0.75], ddof=1) * 1.5)
    assert found["upper"] == pytest.approx(0.375 + 12.7062 * error, abs=1e-4)
    assert drift.gain(early, drawn, 3).isna().all()


def run(name: str, right: list[int], **about) -> Predictions:
    """Of six stays, of which those are named right."""
    key = {"model": "llama", "settings": {}, "until": 2012, "as_many": False, "stays": name} | about
    record = {"run": name, "key": key}
    logits = np.eye(2, dtype=np.float32)[[int(i not in right) for i in range(6)]]
    return Predictions(np.arange(100, 106), np.zeros(6, int), np.array(["470", "871"]), logits, record)


def test_two_runs_are_compared_on_the_later_stays_alone():
    early, mixed, later = run("e", [0, 1, 2]), run("m", [1, 2, 3, 4], as_many=True), pd.Series([102, 103, 104, 105])
    found = drift.gain_of_runs(early, mixed, 2012, later)
    assert found[["early", "all", "difference"]].tolist() == [0.25, 0.75, 0.5]
    reach = 1.959964 * np.sqrt(np.var([0, 1, 1, 0], ddof=1) / 4)
    assert found[["lower", "upper"]].tolist() == pytest.approx([0.5 - reach, 0.5 + reach], abs=1e-4)
    assert drift.gain_of_runs(early, mixed, 2012, later, 2).isna().all()  # of the two early stays one is right of each


@pytest.mark.parametrize("wrong", [{"as_many": False}, {"until": 2013}, {"settings": {"epochs": 2}}, {"seed": 43}])
def test_runs_that_differ_in_more_than_their_stays_are_not_compared(wrong):
    with pytest.raises(StudyError, match="runs 'e' and 'm': expected two trainings with until: 2012 that are alike"):
        drift.gain_of_runs(run("e", [0]), run("m", [1], **{"as_many": True} | wrong), 2012, pd.Series([102]))


def test_sentences_say_what_was_found_and_what_not():
    gained = pd.Series({"early": 0.3, "all": 0.45, "difference": 0.15, "lower": 0.1, "upper": 0.2, "p": 0.01})
    mix = pd.DataFrame({"distance": [0.3, 0.1], "by_chance": [0.2, 0.2]}, [2010, 2011])
    first, second, third = drift.sentences({"TF-IDF": gained}, (0.866, 0.0), mix, 0.0004)
    assert "30.0 %" in first and "the early years cost accuracy (+15.0 points, 95 % interval +10.0 to +20.0)" in first
    assert second == "Later notes can be told from early ones by their words (AUC 0.87, p < 0.001)."
    assert (
        third
        == "The case mix changes with the years (p < 0.001; farther from that of all years than chance puts it: 2010)."
    )
    first, second, third = drift.sentences({"TF-IDF": gained.replace(0.1, -0.1)}, (0.51, 0.2), mix[1:], 0.3)
    assert second == "Later notes can’t be told from early ones by their words (AUC 0.51, p = 0.2)."
    assert third == "The case mix changes no more than by chance (p = 0.3)."
    assert (
        "it can’t be told whether training on the early years costs anything (+15.0 points, 95 % interval −10.0"
        in first
    )
    _, masked, *_ = drift.sentences({"TF-IDF": gained, "LLaMA": gained * np.nan}, (0.51, 0.2), mix, 0.3)
    assert masked.startswith("What it costs LLaMA") and "small counts would follow" in masked


@pytest.mark.parametrize("features", [0, 2**18])
def test_tfidf_says_what_the_model_says_and_leaves_nothing(tmp_path, features):
    train = pd.Series(["sepsis bacteremia", "fracture hip", "sepsis fever", "hip pain"] * 3)
    test, y = pd.Series(["a hip", "of sepsis"]), np.array([1, 0, 1, 0] * 3)
    said = drift.tfidf_says(train, y, ["470", "871"], test, 1, tmp_path, features)
    assert said.dtype == np.float32 and said.argmax(axis=1).tolist() == [0, 1] and not list(tmp_path.iterdir())
    model = tfidf.Model(tfidf.Settings(features=features), ["470", "871"], tmp_path, 1)
    model.fit(train.tolist(), y)
    np.testing.assert_array_equal(said, model.predict(test.tolist()))
