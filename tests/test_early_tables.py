"""Table 2 against scikit-learn on predictions that can be worked out, the paper's own tables, and the sentences."""

import numpy as np
import pandas as pd
import pytest
from scipy.stats import ttest_ind, ttest_rel
from sklearn.metrics import f1_score, roc_auc_score

from drgstudy import casemix, comparisons, drgs, errors, findings, published, results, tables
from drgstudy.predictions import Predictions

LABELS = np.array(["064", "065", "177", "193", "233", "234", "291", "292", "871", "872"])


def predictions(truth, seed=0, signal=2.0, labels=LABELS):
    rng = np.random.default_rng(seed)
    logits = rng.normal(size=(len(truth), len(labels))) + signal * (np.arange(len(labels)) == np.array(truth)[:, None])
    return Predictions(
        np.arange(len(truth)), np.array(truth), labels, logits.astype("float32"), {"run": "caml-ms", "fold": seed + 1}
    )


TRUTH = [8] * 12 + [6] * 9 + [7] * 6 + [0] * 5 + [4] * 4 + [2] * 3 + [9] * 2 + [1]


def test_sets_of_drgs_are_those_of_the_stays():
    cases, mdc = pd.Series(LABELS[TRUTH]).value_counts(), drgs.fiscal_2013("ms")["mdc"]
    found = results.drg_sets(LABELS, cases, results.EARLY_TOP_DRGS, mdc)
    sets = {name: set(LABELS[members]) for name, members in found.items()}
    assert sets["All DRGs"] == set(LABELS) - {"193", "234"}
    for name in ("MDC 05", "MDC 01", "MDC 04"):
        assert sets[name] == {label for label in sets["All DRGs"] if mdc[label] == name[4:]} and sets[name]
    # 12 + 9 + 6 + 5 = 32 of 42 stays are 76 %; the next DRG brings it above 80
    assert sets["Top 80% cases"] == {"871", "291", "292", "064", "233"}
    assert "Top 30 DRGs" not in sets


def test_of_two_names_for_one_set_there_is_one_set():
    cases, mdc = pd.Series([60, 30, 5, 5], ["064", "871", "177", "193"]), drgs.fiscal_2013("ms")["mdc"]
    found = results.drg_sets(LABELS, cases, (3, 2), mdc)
    assert len(found["Top 80% cases = Top 2 DRGs"]) == 2
    assert "Top 3 DRGs" in found and not {"Top 80% cases", "Top 2 DRGs"} & set(found)
    alone = results.drg_sets(LABELS, cases[:1], (), mdc)  # one DRG: whatever set has it is "All DRGs"
    assert list(alone) == ["All DRGs"]


def test_table_2_is_scikit_learns():
    models = [predictions(TRUTH, seed) for seed in range(3)]
    table = results.by_fold("ms", {("caml-ms", 48): models, ("caml-ms", 24): models[:1]})
    whole = table[(table["drg_set"] == "All DRGs") & (table["hours"] == 48)].set_index("metric")
    f1 = [f1_score(m.truth, m.logits.argmax(1), average="macro", labels=np.unique(m.truth)) for m in models]
    assert whole.loc["macro_f1", "value"] == pytest.approx(np.mean(f1))
    assert whole.loc["macro_f1", "sd"] == pytest.approx(np.std(f1, ddof=1))
    micro = [f1_score(m.truth, m.logits.argmax(1), average="micro") for m in models]
    assert whole.loc["acc_at_1", "value"] == pytest.approx(np.mean(micro))
    odds = [np.exp(m.logits.astype(float)) for m in models]
    odds = [o / o.sum(1, keepdims=True) for o in odds]
    auc = [
        roc_auc_score((np.arange(10) == m.truth[:, None]).ravel(), o.ravel()) for m, o in zip(models, odds, strict=True)
    ]
    assert whole.loc["micro_auc", "value"] == pytest.approx(np.mean(auc))
    circulatory = table[(table["drg_set"] == "MDC 05") & (table["hours"] == 48)].set_index("metric")
    among = np.isin(LABELS[models[0].truth], ["233", "291", "292"])
    assert circulatory.loc["acc_at_1", "value"] == pytest.approx(
        np.mean([(m.logits.argmax(1) == m.truth)[among].mean() for m in models])
    )
    assert circulatory.loc["acc_at_1", ["n_drgs", "n_stays"]].tolist() == [3, 19]
    alone = table[table["hours"] == 24]
    assert alone["model"].unique().tolist() == ["CAML, 24 hours"] and alone["sd"].isna().all()
    printed = tables.printed_folds(table)
    assert printed["System"].unique().tolist() == ["MS-DRG"]
    assert printed.query("Model == 'CAML, 24 hours'")["macro-F1"].str.endswith("(–)").all()


def test_the_papers_table_2_prints_as_in_the_paper():
    printed = tables.printed_folds(published.table("Table 2", "Early DRG")).set_index(["System", "Model", "DRG set"])
    assert printed.loc[("MS-DRG", "CAML", "All DRGs"), "macro-AUC"] == "0.871 (0.011)"
    assert printed.loc[("APR-DRG", "CAML", "Top 80 % of the stays"), "Stays (%)"] == "2,197 (80.0)"
    assert printed.loc[("MS-DRG", "CAML", "Top 80 % of the stays"), "Stays (%)"] == "–"  # a misprint, left out


def test_t_tests_are_paired_by_fold_and_need_two_folds():
    runs = {("caml-ms", 48): [predictions(TRUTH, s, 1.5) for s in range(5)]}
    runs |= {("lstm-ms", 48): [predictions(TRUTH, s, 0.5) for s in (4, 2, 1, 0)], ("bert-ms", 48): [predictions(TRUTH)]}
    table = results.by_fold("ms", runs)
    tests = comparisons.t_tests(table, "caml-ms", "lstm-ms").set_index(["drg_set", "metric"])
    each = table.set_index(["run", "drg_set", "metric"])["each"]
    ours, theirs = (np.array(each[run, "All DRGs", "acc_at_1"]) for run in ("caml-ms", "lstm-ms"))
    ours, found = ours[[4, 2, 1, 0]], tests.loc[("All DRGs", "acc_at_1")]
    assert found[["t", "p"]].tolist() == pytest.approx(list(ttest_rel(ours, theirs)))
    assert found["p_unpaired"] == pytest.approx(ttest_ind(ours, theirs).pvalue) and found["folds"] == 4
    assert found["difference"] == pytest.approx((ours - theirs).mean()) and found["p"] != found["p_unpaired"]
    assert comparisons.t_tests(table, "caml-ms", "bert-ms").empty
    alike = {
        (run, 48): [predictions(TRUTH, seed, signal) for seed in (0, 1)]
        for run, signal in (("caml-ms", 90), ("lstm-ms", -90))
    }
    assert comparisons.t_tests(results.by_fold("ms", alike), "caml-ms", "lstm-ms").empty


def test_the_five_cases_are_what_they_are_called():
    truth, said = ["291", "871", "291", "065", "872"], ["291", "193", "292", "064", "871"]
    logits = 5.0 * (np.array(said)[:, None] == LABELS)
    made = Predictions(
        np.arange(5), np.searchsorted(LABELS, truth), LABELS, logits.astype("float32"), {"run": "caml-ms"}
    )
    cases = pd.Series({"291": 40, "292": 20, "871": 60, "193": 30, "064": 25, "065": 8, "872": 1})
    found = errors.five_cases(made, cases, {"291", "292", "871", "193", "064", "065"}).set_index("situation")
    assert found.loc["right", ["position", "case"]].tolist() == [0, 1]
    assert found.loc["pneumonia where sepsis was", "position"] == 1
    assert found.loc["CC against MCC", ["true_drg", "predicted_drg"]].tolist() in (["291", "292"], ["065", "064"])
    assert found.loc["a DRG never seen in training", ["true_drg", "true_count"]].tolist() == ["872", 1]
    # stroke with CC and with MCC share their base: that is no rare DRG taken for a frequent one
    assert "a frequent DRG where a rare one was" not in found.index


def cmi_of_200(**changes):
    """What `cmi_sentences` is given of 200 stays that are equal, but for `changes`: 10 and then 1 % too much, a guess 3 %."""
    true, rng = np.full(200, 2.0), np.random.default_rng(0)
    predicted = {24: true + rng.normal(0.201, 0.001, (5, 200)), 48: true + rng.normal(0.021, 0.001, (5, 200))}
    guess = np.full((1, 200), 2.06)
    found = {
        "errors": casemix.errors_by_hour(true, predicted),
        "change": casemix.change_by_hour(true, predicted[24], predicted[48], 200, 1),
        "sizes": casemix.errors_by_size(true, predicted[24], [50, 100], 5, 1),
        "paid": casemix.payments(true, predicted, np.arange(100)),
        "hidden": casemix.cancelled(true, predicted[48]),
        "against_guess": {hour: casemix.change_by_hour(true, guess, predicted[hour], 200, 1) for hour in predicted},
    }
    return found | changes


def test_sentences_say_what_the_numbers_say():
    said = findings.cmi_sentences("ms", [24, 48], cmi_of_200())
    assert "off by 10.05" in said[0] and "published at 24 hours: 2.40 (1.07) %" in said[0]
    assert "hour 48 is better than hour 24 (−9.0 points" in said[0]
    assert "stays below 5 % from hour +48 on" in said[1]
    assert "off by 3.0 %" in said[2] and "3.2 %" in said[2]  # 3.045 against 3.147, of the paper's Table 1
    assert "$1,200,000" in said[4] and "more" in said[4]
    assert "0 % of these errors cancel" in said[5]
    true = np.full(200, 2.0)
    same = casemix.change_by_hour(true, true[None] + 0.2, true[None] + 0.2, 200, 1)
    assert "can’t be told" in findings.cmi_sentences("ms", [24, 48], cmi_of_200(change=same))[0]


def test_the_cmi_error_has_its_range_over_cohorts_and_a_paired_test_against_a_guess_that_reads_nothing():
    said = findings.cmi_sentences("ms", [24, 48], cmi_of_200())
    assert (
        "the models of hour 24 are farther off (+7.0 points" in said[2]
        and "of hour 48 are nearer (−2.0 points" in said[2]
    )
    rng = np.random.default_rng(1)
    true = rng.lognormal(1, 0.8, 200)
    hours = {hour: true * rng.normal(1, 0.5, (5, 200)) for hour in (24, 48)}
    change = casemix.change_by_hour(true, hours[24], hours[48], 400, 1)
    guess = np.full((1, 200), 1.02 * true.mean())
    against = {hour: casemix.change_by_hour(true, guess, hours[hour], 400, 1) for hour in hours}
    said = findings.cmi_sentences("ms", [24, 48], cmi_of_200(change=change, against_guess=against))
    lower, upper = change.loc["earlier", ["lower", "upper"]]
    assert upper - lower > 3 and f"Resampled test cohorts give {lower:.1f} to {upper:.1f} % and " in said[0]
    assert "is off by 2.0 %" in said[2] and said[2].count("can’t be told from it") == 2


def test_sentences_say_how_many_stays_populations_and_payments_are_drawn_from():
    true, rng = np.full(30, 2.0), np.random.default_rng(0)
    hours = {24: true + rng.normal(0, 0.1, (2, 30)), 48: true + rng.normal(0, 0.1, (2, 30))}
    sizes = casemix.errors_by_size(true, hours[24], [20, 200], 5, 1)
    paid = casemix.payments(true, hours, rng.integers(30, size=500))
    said = findings.cmi_sentences("ms", [24, 48], cmi_of_200(sizes=sizes, paid=paid))
    assert said[3].endswith(
        "They are drawn from the cohort’s 30 stays with replacement; those above 30 only repeat its stays."
    )
    assert said[4].startswith("500 stays, drawn with replacement from 30 hold-out stays, are paid")
    masked = findings.cmi_sentences("ms", [24, 48], cmi_of_200(sizes=sizes.assign(cohort=np.nan), paid=paid))
    assert masked[3].endswith("They are drawn from the cohort with replacement.")
    assert findings.cmi_sentences("ms", [24, 48], cmi_of_200())[4].startswith("100 stays, drawn from 200 hold-out")


def test_regression_is_nearer_only_where_its_interval_says_so():
    value = pd.DataFrame({"mae": [1.0, 1.4, 0.9], "cmi_error_percent": [1.0, 5.0, 2.0]})
    value.index = ["regression", "top-1 DRG", "expected"]
    gains = pd.DataFrame({"difference": [-0.4, 0.1], "lower": [-0.5, -0.1], "upper": [-0.3, 0.3]})
    gains.index = ["top-1 DRG", "expected"]
    said = findings.regression_sentences("apr", value, gains)
    assert (
        "is nearer than the weight of the top-1 DRG" in said[0] and "can’t be told from the expected weight" in said[1]
    )
    assert "published: under 1.51" in said[2]


def test_the_early_texts_numbers_stand_beside_the_published_ones():
    ours = {
        "early_drgs_ms": 44,
        "early_words": 103.4,
        "early_cmi_24_apr": 4.918,
        "early_p_ms": 0.0004,
        "early_payment": 472500.0,
    }
    table = tables.early_text_table(tables.early_text_numbers(ours), "mine")
    assert table.columns.tolist() == ["Quantity", "System", "MIMIC-III (published)", "mine (this run)"]
    assert len(table) == 2 * len(published.EARLY_TEXT) - 2  # two numbers are of both systems
    found = {(row[0].split(":")[0], row[1]): row[2:] for row in table.to_numpy().tolist()}
    assert found["DRGs that occur in the cohort", "MS-DRG"] == ["611", "44"]
    assert found["DRGs that occur in the cohort", "APR-DRG"] == ["908", "–"]
    assert found["Mean words of a stay after 48 hours (published", "both"] == ["2,000", "103"]
    assert found["Error of the case-mix index at 24 hours, %", "APR-DRG"] == ["12.79", "4.92"]
    assert found["The largest error at a later hour, %", "MS-DRG"] == ["< 5.0", "–"]
    assert found["CAML against LSTM", "MS-DRG"] == ["< 0.01", "0.0004"]
    assert found["500 stays, index 3.15, off by 5 %", "both"] == ["472,500", "472,500"]
