"""Who is served worse: an independent regression, what only the case mix explains, planted effects, and masks."""

import numpy as np
import pandas as pd
import pytest
import statsmodels.api as sm

from drgstudy import plots, served
from drgstudy.people import UNKNOWN

N = 1600


@pytest.fixture
def stays():
    """Eight DRGs, some harder than others; two languages that have no effect; the old have the harder DRGs."""
    rng = np.random.default_rng(4)
    drg = rng.integers(8, size=N)
    table = pd.DataFrame({"drg": drg, "patient": rng.integers(1000, size=N), "ease": 0.2 + 0.08 * drg})
    table["age"] = np.where(rng.random(N) < 0.1 + 0.1 * drg, "young", "old")
    spoken = np.where(rng.random(1000) < 0.2, "other", "English")
    table["language"] = spoken[table["patient"]]
    table["confidence"] = np.clip(table["ease"] + rng.normal(0, 0.02, N), 0.05, 0.95)
    table["hit"] = rng.random(N) < table["ease"]
    table["dollars"] = np.where(table["hit"], 0.0, rng.normal(0, 4000, N))
    return table


def judged(stays, hit=None, dollars=None):
    hit = (stays["hit"] if hit is None else hit).to_numpy()
    labels = stays[["age", "language"]]
    outcomes = served.outcomes(
        stays["confidence"].to_numpy(), hit, (stays["dollars"] if dollars is None else dollars).to_numpy()
    )
    groups = served.shown_groups(labels, hit, 0)
    table = served.compared(groups, labels, outcomes, stays["drg"].to_numpy(), stays["patient"].to_numpy())
    return table.set_index(["characteristic", "outcome"]), groups, labels, outcomes


def test_the_difference_within_strata_is_that_of_a_regression_with_a_constant_for_each():
    """And its standard error is the clustered one of statsmodels, but for the correction by the number of patients."""
    rng = np.random.default_rng(0)
    strata, patients, member = rng.integers(6, size=90), rng.integers(60, size=90), rng.random(90) < 0.3
    values = rng.normal(size=(90, 2)) + member[:, None] * [1.0, 0.0] + strata[:, None]
    found = served.difference(values, member, strata, patients)
    design = np.column_stack([member, np.eye(6)[strata]]).astype(float)
    fewer = len(np.unique(patients[member]))
    for i, row in found.iterrows():
        about = {"groups": patients, "use_correction": False}
        reference = sm.OLS(values[:, i], design).fit(cov_type="cluster", cov_kwds=about)
        assert row["value"] == pytest.approx(reference.params[0])
        reach = served.student.ppf(0.975, fewer - 1) * reference.bse[0] * np.sqrt(fewer / (fewer - 1))
        assert row["upper"] - row["value"] == pytest.approx(reach)


def test_mantel_haenszels_weights_by_hand():
    """Stratum 0: 1 against 0 with weight 1·3/4; stratum 1: 0 against 1 with weight 1·1/2; stratum 2 has no member. All tenfold."""
    values = np.array([1.0, 0, 0, 0, 0, 1, 9, 9]).repeat(10)[:, None]
    member = np.array([True, False, False, False, True, False, False, False]).repeat(10)
    found = served.difference(values, member, np.array([0, 0, 0, 0, 1, 1, 2, 2]).repeat(10), np.arange(80))
    assert found["value"][0] == pytest.approx((0.75 * 1 + 0.5 * -1) / 1.25)


def test_too_few_patients_are_compared_with_nobody():
    """Nine patients, however often they come, or ten."""
    values, member = np.random.default_rng(0).normal(size=(60, 1)), np.arange(60) < 30
    for patients, told in ((9, False), (10, True)):
        who = np.where(member, np.arange(60) % patients, np.arange(60))
        assert served.difference(values, member, np.zeros(60, int), who).notna().all(axis=None) == told


def test_what_only_the_case_mix_explains_is_large_as_it_is_and_gone_within_drgs(stays):
    table, groups, *_ = judged(stays)
    age = table.loc["age", "accuracy"]
    assert groups.loc[groups["characteristic"] == "age", "group"].tolist() == [age["reference"], age["group"]]
    assert abs(age["raw"]) > 12 and age["lower"] < 0 < age["upper"] and age["p_holm"] > 0.05


def test_a_planted_effect_is_found_in_each_outcome_and_no_other(stays):
    harmed = (stays["language"] == "other") & (np.arange(N) % 2 == 0)
    table, *_ = judged(stays, stays["hit"] & ~harmed, stays["dollars"] - 3000.0 * harmed)
    assert (table.loc["language", "p_holm"] < 0.05).all() and (table.loc["age", "p_holm"] > 0.05).all()
    assert (
        table.loc[("language", "accuracy"), "within"] < -15 < 15 < table.loc[("language", "overconfidence"), "within"]
    )
    assert table.loc[("language", "dollars"), ["lower", "upper"]].between(-2600, -700).all()
    said = served.sentences(table.reset_index(), pd.DataFrame())
    assert len(said) == 4 and said[0].startswith("other against English (language): accuracy −")


def test_dealt_out_anew_a_characteristic_is_found_as_seldom_as_promised(stays):
    """Even where an effect was planted, and patients come again."""
    harmed = stays["language"] == "other"
    _, groups, labels, outcomes = judged(stays, stays["hit"] & ~harmed)
    drg, patients = stays["drg"].to_numpy(), stays["patient"].to_numpy()
    alarms = served.false_alarms(
        groups[groups["characteristic"] == "language"], labels, outcomes, drg, patients, 300, 1
    )
    assert alarms.index.tolist() == ["language"] and alarms.loc["language", "comparisons"] == 3
    assert 0.02 < alarms.loc["language", "single"] < 0.085 and alarms.loc["language", "any"] < 0.085
    assert len(served.sentences(judged(stays)[0].reset_index(), alarms)) == 3


def test_a_group_that_shares_no_drg_with_the_largest_one_is_compared_with_nobody(stays):
    stays["age"] = np.where(stays["drg"] < 3, "newborn", "old")
    table, *_ = judged(stays)
    assert table.loc["age", ["within", "lower", "upper", "p", "p_holm"]].isna().all(axis=None)
    assert table.loc["age", "raw"].notna().all() and table.loc["language", "p_holm"].notna().all()


def test_groups_in_numbers(stays):
    _, groups, labels, outcomes = judged(stays)
    found = served.by_group(groups, labels, outcomes, stays["confidence"].to_numpy(), 10, 60, 1)
    value = found.set_index(["group", "measure"])["value"]
    old = stays[stays["age"] == "old"]
    assert value["old", "accuracy"] == pytest.approx(100 * old["hit"].mean())
    assert value["old", "overconfidence"] == pytest.approx(100 * (old["confidence"] - old["hit"]).mean())
    assert value["old", "dollars"] == pytest.approx(old["dollars"].mean())
    row = found.set_index(["group", "measure"]).loc[("old", "ece")]
    chance = found.set_index(["group", "measure"]).loc[("old", "ece_by_chance")]
    assert row["value"] < chance["upper"] and np.isnan(chance["lower"])  # the confidences are honest
    assert (found["stays"].groupby(found["group"]).first().loc[["old", "young"]].sum()) == N


def test_small_groups_are_not_shown_nor_the_next_larger_one_that_would_tell():
    labels = pd.DataFrame({"race": ["White"] * 200 + ["Black"] * 60 + ["Asian"] * 40 + ["other"] * 4})
    hit = np.arange(304) % 2 == 0
    shown = served.shown_groups(labels, hit, 11).set_index("group")["shown"]
    assert shown.to_dict() == {"White": True, "Black": True, "Asian": False, "other": False}
    assert served.shown_groups(labels, hit, 0)["shown"].all()


def test_few_right_hide_a_group_and_its_comparisons(stays):
    stays.loc[stays["age"] == "young", "hit"] = False
    stays.loc[stays.index[stays["age"] == "young"][:5], "hit"] = True
    _, _, labels, outcomes = judged(stays)
    groups = served.shown_groups(labels, stays["hit"].to_numpy(), 11)
    assert groups.groupby("characteristic")["shown"].all().to_dict() == {"age": False, "language": True}
    drg, patients = stays["drg"].to_numpy(), stays["patient"].to_numpy()
    assert set(served.compared(groups, labels, outcomes, drg, patients)["characteristic"]) == {"language"}
    found = served.by_group(groups, labels, outcomes, stays["confidence"].to_numpy(), 10, 20, 1)
    assert set(found["characteristic"]) == {"language"}


def test_nobody_is_compared_with_those_of_whom_it_is_not_known(stays):
    stays["language"] = np.where(np.arange(N) % 3 == 0, UNKNOWN, "English")
    table, groups, labels, outcomes = judged(stays)
    assert set(table.index.get_level_values(0)) == {"age"}
    everyone = stays["drg"].to_numpy(), stays["patient"].to_numpy()
    assert served.false_alarms(groups[groups["characteristic"] == "language"], labels, outcomes, *everyone, 3, 1).empty
    assert served.sentences(table.reset_index().iloc[:0], pd.DataFrame())[0].startswith("No two groups")


def test_in_print_a_group_that_is_not_shown_has_dashes(stays):
    table, groups, labels, outcomes = judged(stays)
    groups["shown"] = groups["characteristic"] == "age"
    found = served.by_group(groups, labels, outcomes, stays["confidence"].to_numpy(), 10, 20, 1)
    printed = served.printed(groups, found).set_index(["Of", "Group"])
    assert (printed.loc["Language"] == "–").all(axis=None) and not (printed.loc["Age"] == "–").any(axis=None)
    old = stays.loc[stays["age"] == "old", "hit"]
    assert printed.loc[("Age", "old"), "Accuracy (%)"].startswith(f"{100 * old.mean():.1f} (")
    nobody = groups.assign(shown=False)
    assert (served.printed(nobody, found.iloc[:0]).iloc[:, 2:] == "–").all(axis=None)
    rows = served.printed_differences(table.reset_index())
    assert (
        rows["Of"].tolist() == ["Age"] * 3 + ["Language"] * 3
        and rows["p (Holm)"].str.fullmatch(r"< 0\.001|[01]\.\d{3}").all()
    )


def test_figures_show_each_group_once_and_gaps_where_nothing_can_be_said(stays):
    stays["age"] = np.where(stays["drg"] < 3, "newborn", "old")
    table = judged(stays)[0].reset_index()
    figure = plots.served(table, {"accuracy": "accuracy (points)", "dollars": "dollars"}, "synthetic hospital, seed 4")
    names = [label.get_text() for label in figure.axes[0].get_yticklabels()]
    assert names == ["newborn (against old)", "other (against English)"] and len(figure.axes) == 2
