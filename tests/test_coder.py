"""Prediction sets against MAPIE's own class, the law of their coverage and cases by hand; and what answering alone costs."""

import html
import shutil
from types import SimpleNamespace

import made_report
import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from mapie.classification import SplitConformalClassifier
from scipy.special import softmax
from scipy.stats import betabinom, binom
from sklearn.base import BaseEstimator, ClassifierMixin
from test_runs import GIVEN, made_up

from drgstudy import coder, models, provenance, report, runs, study
from drgstudy.predictions import read_folds, read_predictions
from drgstudy.study import StudyError

FEW = range(1, 11)
RNG = np.random.default_rng


class Said(ClassifierMixin, BaseEstimator):
    """An estimator, as MAPIE wants one, that reads logits."""

    def __init__(self, k=2):
        self.k, self.classes_, self.fitted_ = k, np.arange(k), True

    def fit(self, x, y):
        return self

    def predict_proba(self, x):
        return softmax(x, axis=1)

    def predict(self, x):
        return x.argmax(axis=1)


def stays(n, seed, k=5, p=(0.5, 0.25, 0.15, 0.07, 0.03), signal=1.5):
    """Logits and labels of exchangeable stays, of frequent and rare labels."""
    rng = RNG(seed)
    truth = rng.choice(k, n, p=p)
    return rng.normal(size=(n, k)) + signal * (np.arange(k) == truth[:, None]), truth


def mapies(known, new, level):
    with pytest.warns() if len(set(known[1])) < known[0].shape[1] else pytest.MonkeyPatch.context():
        made = SplitConformalClassifier(Said(known[0].shape[1]), level).conformalize(*known)
    return made.predict_set(new)[1][:, :, 0]


# --- the sets
@pytest.mark.parametrize("level", [0.5, 0.8, 0.9, 0.95])
@pytest.mark.parametrize("seed", [0, 1, 2])
def test_sets_equal_those_of_mapies_classifier(level, seed):
    known, (new, _) = stays(151, seed), stays(300, seed + 100)
    np.testing.assert_array_equal(coder.sets(new, coder.limits(*known, level)), mapies(known, new, level))


def test_a_label_with_its_own_limit_is_in_the_sets_of_mapies_classifier_on_its_stays_alone():
    (logits, truth), (new, _) = stays(400, 5), stays(200, 6)
    least = coder.limits(logits, truth, 0.9, fewest=40)
    own = np.flatnonzero(np.bincount(truth) >= 40)
    pool = ~np.isin(truth, own)
    assert len(own) == 3 and pool.sum() > 20
    for label in own:
        theirs = mapies((logits[truth == label], truth[truth == label]), new, 0.9)[:, label]
        np.testing.assert_array_equal(coder.sets(new, least)[:, label], theirs)
    theirs = mapies((logits[pool], truth[pool]), new, 0.9)
    np.testing.assert_array_equal(coder.sets(new, least)[:, 3:], theirs[:, 3:])


def test_limits_by_hand():
    probability = np.array([0.9, 0.8, 0.7, 0.6, 0.55, 0.5, 0.4, 0.3, 0.2])
    logits, truth = np.log(np.stack([probability, 1 - probability], axis=1)), np.zeros(9, int)
    for level, least in ((0.9, 0.2), (0.8, 0.3), (0.5, 0.55)):  # the 9th, 8th and 5th largest of 9
        assert coder.limits(logits, truth, level) == pytest.approx([least] * 2, abs=2e-8)
    assert coder.limits(logits, truth, 0.91).tolist() == [0, 0]  # 9 stays are too few for it
    alone = coder.limits(logits, truth, 0.9, fewest=1)
    assert alone == pytest.approx([0.2, 0], abs=2e-8)  # a label without stays is in every set
    truth[:3] = 1  # 6 stays of label 0, 3 of label 1: 5 of 6 suffice for 0.8, and 3 of 3 do not
    assert coder.limits(logits, truth, 0.8, fewest=6) == pytest.approx([0.2, 0], abs=2e-8)
    assert coder.limits(logits, truth, 0.75, 6, np.array([0, 1])) == pytest.approx([0.2, 0.1], abs=2e-8)


@pytest.mark.parametrize(("level", "known"), [(0.9, 60), (0.8, 33)])
def test_coverage_follows_its_law_whatever_the_model(level, known):
    """Of all stays with one limit, of a frequent label with its own, and of the rare ones that share one."""
    draws, asked = 250, {"all": [], "own": [], "pool": []}
    for seed in range(draws):
        (logits, truth), (new, of) = stays(4 * known, seed, signal=0.7), stays(400, seed + 10_000, signal=0.7)
        some = slice(0, known)
        asked["all"].append((known, coder.sets(new, coder.limits(logits[some], truth[some], level)), of, of >= 0))
        least = coder.limits(logits, truth, level, fewest=60, pools=np.array([0, 1, 1, 1, 1]))
        for kind, at in (("own", of == 0), ("pool", of > 1)):
            calibration = (truth == 0).sum() if kind == "own" else np.nan
            asked[kind].append((calibration, coder.sets(new, least), of, at))
    for kind, found in asked.items():
        covered = np.array([inside[at, of[at]].mean() for _, inside, of, at in found])
        if kind == "pool":  # of a mixture: the guarantee alone
            assert level - 0.01 < covered.mean() < level + 0.06
            continue
        exact = np.mean([coder._rank(n, level) / (n + 1) for n, *_ in found])
        assert abs(covered.mean() - exact) < 4 * covered.std() / draws**0.5
        bounds = np.array([coder.by_chance(n, at.sum(), level) for n, *_, at in found])
        within = (bounds[:, 0] <= covered) & (covered <= bounds[:, 1])
        assert within.sum() >= binom.ppf(0.001, draws, 0.95)
        assert within.sum() < draws  # the bounds are no wider than they say


def test_bounds_by_hand():
    # One calibration stay, level 0.5: the limit is that stay's own, and a second stay is as likely above as below.
    assert coder.by_chance(1, 1, 0.5) == (0, 1) and coder.by_chance(8, 5, 0.9) == (1, 1)
    lower, upper = coder.by_chance(99, 1000, 0.9)
    law = betabinom(1000, 90, 10)
    assert law.cdf(1000 * lower - 1) < 0.025 <= law.cdf(1000 * lower) and law.sf(1000 * upper) <= 0.025


@given(st.integers(0, 59), st.integers(0, 4), st.integers(0, 50))
@settings(max_examples=20, deadline=None)
def test_no_stay_has_a_say_in_its_own_set(at, label, seed):
    logits, truth = stays(60, seed)
    half, other = coder.halves(60, seed), truth.copy()
    other[at] = label
    for pooling in ((), (5, np.array([0, 0, 1, 1, 1]))):
        same = coder.crossed(logits, truth, half, 0.8, *pooling)[at]
        np.testing.assert_array_equal(same, coder.crossed(logits, other, half, 0.8, *pooling)[at])


def test_what_is_judged_is_counted_from_the_sets():
    logits, truth = stays(301, 4)
    (row,) = coder.judged(logits, truth, [0.8], 9).to_dict("records")
    half = coder.halves(301, 9)
    inside = coder.crossed(logits, truth, half, 0.8)
    right, size = inside[np.arange(301), truth], inside.sum(axis=1)
    assert row["first"] == right[half == 0].mean() and row["second"] == right[half == 1].mean()
    assert row["size"] == size.mean() and row["one_right"] == right[size == 1].mean()
    assert (row["one"], row["none"]) == ((size == 1).mean(), (size == 0).mean())
    assert (
        row["first_lower"] < row["first"] < row["first_upper"] and row["size_lower"] < row["size"] < row["size_upper"]
    )
    # What one half has too much, the other has too little.
    assert abs((row["first"] + row["second"]) / 2 - 0.8) < 0.01


def test_limits_by_drg_mend_what_one_limit_does_to_rare_drgs():
    rng = RNG(7)
    truth = rng.choice(8, 3000, p=[0.3, 0.3, 0.15, 0.13, 0.04, 0.03, 0.03, 0.02])
    logits = rng.normal(size=(3000, 8)) + np.where(truth < 4, 4.0, 1.0)[:, None] * (np.arange(8) == truth[:, None])
    cases = np.array([300, 300, 150, 130, 9, 8, 8, 2])
    table = coder.by_size(logits, truth, cases, [10, 200], 0.9, 100, 0).set_index(["way", "group"])
    assert list(table.index.unique("group")) == ["0–9", "10–199", "200 or more"]
    assert table.loc["one limit", "coverage"]["0–9"] < 0.8 < 0.95 < table.loc["one limit", "coverage"]["200 or more"]
    assert (table.loc["by DRG", "lower"] < 0.9).all() and (table.loc["by DRG", "upper"] > 0.9).all()
    assert table.loc["by DRG", "size"]["0–9"] > table.loc["one limit", "size"]["0–9"]
    assert table["drgs"].tolist() == [4, 2, 2] * 2 and table["own"].tolist() == [0, 0, 0, 0, 2, 2]
    assert table.loc["one limit", "stays"].sum() == 3000


# --- minutes and dollars
LOGITS = np.log([[0.9, 0.05, 0.05], [0.1, 0.8, 0.1], [0.2, 0.2, 0.6], [0.5, 0.3, 0.2]])
TRUTH, WEIGHTS = np.array([0, 2, 2, 0]), np.array([1.0, 2.0, 4.0])


def test_costs_by_hand():
    curve = coder.costs(LOGITS, TRUTH, WEIGHTS, 30, 1000)
    assert curve["minutes"].tolist() == [750, 1500, 2250, 3000]
    assert curve["dollars"].tolist() == pytest.approx([0, 50_000, 50_000, 50_000])  # one stay of four, off by 2
    assert curve["coverage"].tolist() == [0.25, 0.5, 0.75, 1] and curve["accuracy"].tolist() == [1, 0.5, 2 / 3, 0.75]
    at = coder.worth(curve, [0.1, 0.5, 0.52, 1.0])
    assert at["price"].fillna(-1).tolist() == pytest.approx([-1, 50_000 / 1500, 50_000 / 1500, 50_000 / 3000])
    assert coder.worth(curve[:0], [0.5])["price"].isna().all()  # all of it is masked
    twice = coder.costs(np.repeat(LOGITS, 2, axis=0), np.repeat(TRUTH, 2), WEIGHTS, 30, 1000)  # ties are taken together
    pd.testing.assert_frame_equal(twice, curve)


@pytest.mark.parametrize("price", [5.0, 1e6])
def test_a_model_answers_what_pays_by_the_other_half(price):
    logits, truth = stays(400, 3, signal=4)
    weights, half = np.arange(1.0, 6.0), coder.halves(400, 1)
    found = coder.answered(logits, truth, weights, 30, price, 6000, 200, 1)
    confidence, done = softmax(logits, axis=1).max(axis=1), np.zeros(400, bool)
    for side in (0, 1):
        curve = coder.costs(logits[half != side], truth[half != side], weights, 30, 6000)
        best = curve.loc[(price * curve["minutes"] - curve["dollars"]).idxmax()]
        done |= (half == side) & ((confidence >= best["threshold"]) | (best["coverage"] == 1))
    assert 0.1 < found["share"] == done.mean() and (price == 1e6) == (done.mean() == 1)
    first = logits.argmax(axis=1)
    off = 100 * 6000 * np.abs(weights[first] - weights[truth])
    assert found["accuracy"] == (first == truth)[done].mean() and found["misbilled"] == pytest.approx(
        (off * done).mean()
    )
    assert found["minutes"] == pytest.approx(3000 * done.mean()) and found["saved"] == pytest.approx(
        price * found["minutes"]
    )
    assert found["left"] == pytest.approx(found["saved"] - found["misbilled"])
    assert found["lower"] <= found["left"] <= found["upper"]


def test_for_nothing_a_model_answers_nothing():
    found = coder.answered(*stays(400, 3, signal=4), np.arange(1.0, 6.0), 30, 0.0, 6000, 50, 1)
    assert found["share"] == found["left"] == 0 and np.isnan(found["accuracy"])


def test_sentences_say_whether_it_is_chance_and_nothing_that_is_masked():
    row = {"level": 0.9, "first": 0.91, "second": 0.89, "chance_lower": 0.87, "chance_upper": 0.93, "size": 4.25}
    sets = pd.DataFrame([row | {"one": 0.4, "none": 0.0}])
    sizes = pd.DataFrame({"way": coder.WAYS, "group": "0–9", "coverage": [0.7, 0.9], "size": [4.0, 9.0]})
    said = coder.set_sentences("M", 0.9, sets, sizes)
    assert "of 91.0 % in one half and of 89.0 % in the other, as chance allows (87.0 to 93.0 %)" in said[0]
    assert said[1] == "A set holds 4.2 DRGs on average. 40.0 % of the sets hold one DRG alone, 0.0 % none."
    assert "in 70 % with one limit for all DRGs, and in 90 % with limits by DRG" in said[2]
    assert "which is not what chance allows" in coder.set_sentences("M", 0.9, sets.assign(second=0.86), sizes)[0]
    masked = sets.assign(first=np.nan, one=np.nan), sizes.assign(coverage=[np.nan, 0.9])
    assert coder.set_sentences("M", 0.9, *masked) == ["A set holds 4.2 DRGs on average."]

    prices = pd.DataFrame({"share": [0.1, 0.5], "price": [np.nan, 20.0]})
    alone = pd.Series(
        {"share": 0.5, "minutes": 1500, "saved": 900, "misbilled": 400, "left": 500, "lower": 100, "upper": 800}
    )
    first, second = coder.alone_sentences("M", alone, prices, 0.6)
    assert first.startswith("At $0.60 a minute M would answer 50.0 % of the stays without a coder.") and first.endswith(
        "It gains $500."
    )
    assert "$20.00 for 50 % of the stays" in second and "10 %" not in second
    unsure = coder.alone_sentences("M", alone.replace({500: -500, 100: -900}), prices, 0.6)[0]
    assert unsure.endswith("It loses $500, which can’t be told from nothing.")
    assert coder.alone_sentences("M", alone * 0, prices[:1], 0.6) == [
        "At $0.60 a minute M would answer no stay without a coder."
    ]
    assert coder.alone_sentences("M", alone * np.nan, prices[:1], 0.6) == []


# --- masking
@pytest.mark.parametrize("seed", range(12))
def test_no_small_count_follows_from_the_sets_of_credentialed_data(seed):
    logits, truth = stays(200 + 30 * seed, seed, signal=2 + seed % 3)
    half, levels = coder.halves(len(truth), seed), [0.8, 0.9, 0.95]
    table = coder.judged(logits, truth, levels, seed, 11)
    for side, name in enumerate(coder.HALVES):
        n = (half == side).sum()
        right = np.array([0, n, *(table[name].dropna() * n).round()])
        assert not set(np.abs(right[:, None] - right).ravel().astype(int)) & set(FEW)
    for row in table.dropna(subset="one").itertuples():
        one, none = round(row.one * len(truth)), round(row.none * len(truth))
        right = round(row.one_right * one) if one else 0
        assert not {one, none, right, one - right, len(truth) - one - none} & set(FEW)
    empty = (table["none"].dropna() * len(truth)).round().to_numpy()
    assert not set(np.abs(empty[:, None] - empty).ravel().astype(int)) & set(FEW)
    cases = np.array([90, 40, 20, 8, 3])
    shown = coder.by_size(logits, truth, cases, [10, 30], 0.9, 20, seed, 11)
    whole = coder.by_size(logits, truth, cases, [10, 30], 0.9, 20, seed)
    for way, rows in shown.groupby("way"):
        true = whole[whole["way"] == way]
        right = (true["coverage"] * true["stays"]).round()
        for counts in (right, true["stays"] - right):
            hidden = rows["coverage"].isna()
            assert not (counts[~hidden].isin(FEW)).any()
            if (counts.isin(FEW) & hidden).any():
                assert hidden.sum() > 1
        assert not rows["stays"].isin(FEW).any()


def test_a_choice_that_few_stays_decide_is_not_told():
    logits, truth = stays(400, 3, signal=4)
    asked = logits, truth, np.arange(1.0, 6.0), 30
    found = coder.answered(*asked, 0.5, 6000, 20, 1)
    wrong = round(found["share"] * 400 * (1 - found["accuracy"]))
    assert wrong in FEW and all(np.isnan(value) for value in coder.answered(*asked, 0.5, 6000, 20, 1, 11).values())
    assert coder.answered(*stays(400, 3), *asked[2:], 1e6, 6000, 20, 1, 11)["share"] == 1


# --- bad input
@pytest.mark.parametrize("level", [0, 1, -0.1, 90])
def test_a_level_that_is_no_share_is_refused(level):
    with pytest.raises(StudyError, match=f"parameter level is {level}"):
        coder.limits(*stays(20, 0), level)


@pytest.mark.parametrize("edges", [[], [0, 10], [10, 5], [10, 10]])
def test_edges_that_do_not_ascend_are_refused(edges):
    with pytest.raises(StudyError, match="parameter sizes is"):
        coder.by_size(*stays(20, 0), np.ones(5, int), edges, 0.9, 10, 0)


def test_one_stay_or_no_number_is_refused():
    with pytest.raises(StudyError, match="1 stays can't be halved"):
        coder.judged(*stays(1, 0), [0.9], 0)
    with pytest.raises(StudyError, match="give one row of finite numbers"):
        coder.limits(np.full((3, 2), np.nan), np.zeros(3, int), 0.9)


# --- the notebooks
ASKED = {"runs": ["llama", "tfidf"], "sizes": [10, 20], "minutes_per_stay": 3000.0}


@pytest.mark.parametrize("kind", ["synthetic", "credentialed"])
def test_notebook_18_says_what_the_library_finds(paths, monkeypatch, kind):
    flow = study.read_json(paths.flow)
    provenance.write_json(paths.flow, flow | {"source": flow["source"] | {"kind": kind}}, "03-cohort", [paths.stays])
    made_report.run_by_hand("18-coder", "tiny", monkeypatch, **ASKED)
    numbers = study.read_json(paths.report / "numbers" / "18-coder.json")["numbers"]
    said = read_predictions(paths.runs / "llama")
    mask_below = 11 if kind == "credentialed" else 0
    sets = coder.judged(said.logits, said.truth, [0.8, 0.9, 0.95], 42, mask_below).set_index("level")
    for level, row in numbers["sets"]["llama"].items():
        assert row == pytest.approx(sets.loc[float(level)].dropna().to_dict())
    by_size = pd.read_csv(paths.tables / "printed" / "sets-by-size.csv")
    assert by_size["DRGs"].sum() == 2 * 35
    if kind == "credentialed":
        shown = pd.to_numeric(by_size["Test stays"].replace("–", np.nan))
        assert not shown.isin(FEW).any()


def test_the_page_tells_what_notebook_18_found(paths, tmp_path, monkeypatch):
    made_report.run_by_hand("18-coder", "tiny", monkeypatch, **ASKED)
    numbers = study.read_json(paths.report / "numbers" / "18-coder.json")["numbers"]
    (tmp_path / "params" / "tiny").mkdir(parents=True)
    shutil.copy(study.NOTEBOOKS / "studies.yaml", tmp_path)
    monkeypatch.setattr(study.places, "NOTEBOOKS", tmp_path)
    report.build("tiny")
    page = html.unescape((paths.report / "paper-1.html").read_text(encoding="utf-8"))
    assert '<h2 id="coder">' in page and all(sentence in page for sentence in numbers["sentences"])
    for name in ("sets-by-size", "coding-costs"):
        assert f'href="figures/{name}.svg"' in page


def test_notebook_18_refuses_a_level_that_is_not_among_the_levels(paths, monkeypatch):
    with pytest.raises(StudyError, match=r"parameters run and level: 'llama' .*0\.85 among levels"):
        made_report.run_by_hand("18-coder", "tiny", monkeypatch, **ASKED, level=0.85)


def test_notebook_13_shows_the_set_beside_the_note(paths, monkeypatch):
    tested = read_predictions(paths.runs / "llama")
    logits = np.where(np.arange(35) < 2, 9.0, 0.0)[None]  # two DRGs of nearly a half each
    model = SimpleNamespace(predict=lambda texts: np.repeat(logits, len(texts), axis=0), attribution="share")
    model.attributions = lambda text, label: [(0, 5, 1.0)]
    monkeypatch.setattr(models, "load", lambda folder, done: (model, done.labels))
    for level, n in ((0.8, 2), (0.4, 0)):
        assert (coder.limits(tested.logits, tested.truth, level)[0] < 0.49) == (n == 2)
        names = made_report.run_by_hand("13-try-it", "tiny", monkeypatch, level=level)
        assert names["among"]["drg"].tolist() == tested.labels[:n].tolist()
        assert f"The set for {100 * level:g} % of the stays: {n} of {len(tested.labels)} DRGs" in names["parts"][1]


def test_notebook_30_judges_the_first_folds_models(tmp_path, monkeypatch):
    monkeypatch.setattr(study.places, "ROOT", tmp_path)
    paths, rng = made_up(), RNG(1)
    for run in ("caml-ms", "lstm-ms"):
        (training,) = runs.of_icu_stays(paths, folds=[2], **GIVEN | {"run": run, "hours": [48]})
        training.folder.mkdir(parents=True)
        logits = rng.normal(size=(15, 3)).astype("float32")  # of fold 0
        (place,) = training.asked
        training.write(place, logits, training.about | {"cost": {}})
    asked = {"runs": ["caml-ms", "lstm-ms"], "levels": [0.5, 0.8], "level": 0.8, "sizes": [20, 21], "fewest": 2}
    made_report.run_by_hand("30-early-coder", "tiny", monkeypatch, **asked)
    found = study.read_json(paths.report / "numbers" / "30-early-coder.json")["numbers"]
    (made,) = read_folds(paths, "caml-ms")
    expected = coder.judged(made.logits, made.truth, [0.8], 42).iloc[0].drop("level").dropna().to_dict()
    assert found["sets"]["caml-ms"]["0.8"] == pytest.approx(expected)
    # Of each DRG's 30 stays 5 are held out and 5 are the second fold's, by which the model was chosen.
    assert found["by_size"]["one limit"].keys() == {"20"} and found["by_size"]["by DRG"]["20"]["drgs"] == 3
