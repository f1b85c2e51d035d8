"""Tables and the numbers that texts quote: a tiny study's by independent means, the published ones against the paper."""

import json
import re
import shutil
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest
from scipy.special import softmax
from sklearn.metrics import f1_score, roc_auc_score, top_k_accuracy_score

from drgstudy import cohort, comparisons, drgs, names, predictions, published, results, study, tables
from drgstudy.bootstrap import bootstrap
from drgstudy.flow import read_rows, write_rows
from drgstudy.labels import TwoLabels
from drgstudy.metrics import METRICS, Scores
from drgstudy.plots.style import style_of
from drgstudy.predictions import Predictions

RUNS = ["llama", "tfidf", "mine"]
NAMES = ["macro-F1", "top-1 accuracy", "top-5 accuracy", "top-10 accuracy", "macro-AUC", "micro-AUC"]


@pytest.fixture
def numbers(paths):
    return study.read_json(paths.report / "numbers" / "06-results.json")


def scores_of(paths, run):
    made = predictions.read_runs(paths, [run])[run]
    return Scores(made.logits, made.truth), made


# --- reading runs


def test_runs_come_in_the_order_asked_for(paths):
    runs = predictions.read_runs(paths, ["mine", "llama"])
    assert list(runs) == ["mine", "llama"] and runs["mine"].run["model"] == "caml"
    assert list(predictions.read_runs(paths, ["elsewhere"])) == ["elsewhere"]  # alone it needs no other's stays


@pytest.mark.parametrize(
    ("names", "message"),
    [
        ([], "parameter runs: names no run"),
        (["llama", "nobody"], "'nobody' has no run.json .* choose of: elsewhere, llama, mine, tfidf"),
        (["llama", "elsewhere"], "'elsewhere' was tested on other stays than 'llama'"),
    ],
)
def test_runs_that_cannot_be_read_are_named(names, message, paths):
    with pytest.raises(study.StudyError, match=message):
        predictions.read_runs(paths, names)


def test_a_run_on_another_cohort_is_refused(paths, monkeypatch, tmp_path):
    stays = read_rows(paths.stays, cohort.STAYS)
    shutil.copytree(paths.runs, tmp_path / "data" / "tiny" / "runs")
    monkeypatch.setattr(study.places, "ROOT", tmp_path)
    write_rows(stays.assign(words=stays["words"] + 1), paths.stays, cohort.STAYS, by="03-cohort")
    with pytest.raises(study.StudyError, match=r"run llama was made on another cohort than .*stays\.parquet"):
        predictions.read_runs(paths, ["llama"])


# --- Table 1


def test_top_sets_break_ties_by_code_and_must_be_smaller_than_the_cohort():
    codes = np.array([f"{i:03d}" for i in range(1, 53)])
    stays = pd.DataFrame({"drg_v34": [*codes, "052", "051", "051"]})
    sets = results.drg_sets(codes, stays["drg_v34"].value_counts(), results.TOP_DRGS)
    assert list(sets) == ["All DRGs", "Top 50 DRGs", "Top 30 DRGs"]
    assert codes[sets["Top 30 DRGs"]].tolist() == [*codes[:28], "051", "052"]
    assert list(
        results.drg_sets(codes[:30], stays.loc[stays["drg_v34"] <= "030", "drg_v34"].value_counts(), results.TOP_DRGS)
    ) == ["All DRGs"]


def test_table_1_equals_scikit_learn_and_the_resamples(paths, numbers):
    stays = read_rows(paths.stays, cohort.STAYS)
    top30 = set(stays["drg_v34"].value_counts().sort_index().sort_values(ascending=False, kind="stable").index[:30])
    for run in RUNS:
        scores, made = scores_of(paths, run)
        members = np.flatnonzero(np.isin(made.labels, list(top30)))
        for drg_set, subset in (("All DRGs", None), ("Top 30 DRGs", members)):
            kept = np.ones(150, bool) if subset is None else np.isin(made.truth, subset)
            truth, logits = made.truth[kept], made.logits[kept].astype(float)
            odds = np.exp(logits) / np.exp(logits).sum(1, keepdims=True)
            present = np.unique(truth)
            expected = {
                "macro_f1": f1_score(truth, logits.argmax(1), labels=present, average="macro"),
                **{f"acc_at_{k}": top_k_accuracy_score(truth, logits, k=k, labels=range(35)) for k in (1, 5, 10)},
                "macro_auc": np.mean([roc_auc_score(truth == label, odds[:, label]) for label in present]),
                "micro_auc": roc_auc_score((truth[:, None] == np.arange(35)).ravel(), odds.ravel()),
                "n_cases": kept.sum(),
                "percent_cases": kept.sum() / 1.5,
            }
            got = numbers["numbers"]["table_1"][run][drg_set]
            assert {key: entry["value"] for key, entry in got.items()} == pytest.approx(expected, abs=1e-12)
            samples = bootstrap(scores, 60, 42, subset)
            for metric in METRICS:
                assert got[metric]["sd"] == pytest.approx(samples[metric][:30].std(ddof=1))
                assert samples[metric].min() <= got[metric]["lower"] <= got[metric]["upper"] <= samples[metric].max()


def test_table_1_is_printed_in_the_papers_layout(paths, numbers):
    csv = pd.read_csv(paths.report / "tables" / "printed" / "table-1.csv")
    assert csv.columns.tolist() == ["Model", "DRG set", *NAMES, "Number (%) of cases", "dataset"]
    models = ["DRG-LLaMA", "TF-IDF + LR", "mine"]
    assert csv["Model"].tolist() == [model for model in models for _ in range(2)]
    assert csv["DRG set"].tolist() == ["All DRGs", "Top 30 DRGs"] * 3
    name = study.read_json(paths.flow)["source"]["name"]
    assert set(csv["dataset"]) == {name} and csv["Number (%) of cases"][0] == "150 (100.0)"
    entry = numbers["numbers"]["table_1"]["llama"]["All DRGs"]["acc_at_5"]
    assert csv["top-5 accuracy"][0].rstrip("*") == f"{entry['value']:.3f} ({entry['sd']:.3f})"
    intervals = pd.read_csv(paths.report / "tables" / "printed" / "table-1-intervals.csv")
    assert (
        intervals["top-5 accuracy"][0].rstrip("*")
        == f"{entry['value']:.3f} ({entry['lower']:.3f} to {entry['upper']:.3f})"
    )


def test_table_1_is_written_as_numbers_too_each_in_a_column_of_its_own(paths, numbers):
    long = pd.read_csv(paths.tables / "table-1.csv")
    assert long.columns.tolist() == [
        "run",
        "model",
        "drg_set",
        "metric",
        "value",
        "sd",
        "lower",
        "upper",
        "best",
        "dataset",
    ]
    table = numbers["numbers"]["table_1"]
    for row in long.itertuples():
        entry = table[row.run][row.drg_set][row.metric]
        for key in ("value", "sd", "lower", "upper"):
            assert getattr(row, key) == pytest.approx(entry.get(key, np.nan), rel=6e-6, nan_ok=True)
    assert len(long) == sum(len(metrics) for sets in table.values() for metrics in sets.values())
    assert (
        pd.read_csv(paths.tables / "table-1-published.csv")["value"].tolist()
        == published.table("Table 1")["value"].tolist()
    )


def test_an_asterisk_marks_who_is_best_beyond_chance_and_nobody_else():
    rng, truth = np.random.default_rng(0), np.arange(400) % 20
    right = np.eye(20)[truth]
    scores = {
        f"caml-{i}": Scores(signal * right + rng.normal(size=right.shape), truth)
        for i, signal in enumerate((5.0, 1.0, 1.0))
    }
    whole = {"All DRGs": np.arange(20), "Top 3 DRGs": np.arange(3)}
    table = results.table1(scores, whole, 10, 20, 1)
    marked = comparisons.with_best(table, scores, 200, 1)
    best = marked[marked["best"]]
    assert best["run"].unique().tolist() == ["caml-0"] and best["drg_set"].unique().tolist() == ["All DRGs"]
    assert best["metric"].tolist() == list(METRICS)
    printed = tables.printed1(marked)
    stars = printed[NAMES].map(lambda cell: cell.endswith(")*"))
    assert stars.loc[(printed["Model"] == "CAML (0)") & (printed["DRG set"] == "All DRGs")].all(axis=None)
    assert stars.to_numpy().sum() == len(METRICS)
    twin = {"caml-0": scores["caml-0"], "caml-1": scores["caml-0"], "caml-2": scores["caml-2"]}
    assert not comparisons.with_best(table, twin, 200, 1)["best"].any()  # both beat the third, and neither the other
    assert not comparisons.with_best(table, {"caml-0": scores["caml-0"]}, 200, 1)[
        "best"
    ].any()  # nobody to compare with
    first = comparisons.differences({run: scores[run] for run in ("caml-0", "caml-1")}, "caml-0", 200, 1)
    assert (first["p_holm"] < 0.05).all()
    few = scores | {"caml-0": Scores(9 * np.eye(20)[np.where(np.arange(400) < 3, (truth + 1) % 20, truth)], truth)}
    masked = comparisons.with_best(table, few, 200, 1, 11)
    assert masked.loc[masked["best"], "metric"].tolist() == [
        "macro_f1",
        "macro_auc",
        "micro_auc",
    ]  # three stays are wrong


# --- how tables are printed and written


def test_a_table_is_written_as_numbers_and_in_print(tmp_path):
    printed = pd.DataFrame({"Model": ["A", "C"], "Value": ["0.123 (0.010)", None]})
    numbers = pd.DataFrame({"run": ["a", "c"], "value": [0.123456789, np.nan], "n": [1234567, 2], "dollars": [123456.78, 1e5],
                            "sentence": ["long", "longer"], "each": [[1, 2], [3]], "p": [1.25e-9, 0.05]})  # fmt: skip
    tables.write_table(printed, numbers, tmp_path, "t", "the data")
    assert (tmp_path / "t.csv").read_text().splitlines() == [
        "run,value,n,dollars,p,dataset",
        "a,0.123457,1234567,123456.8,1.25e-09,the data",
        "c,,2,100000,0.05,the data",
    ]
    printed_rows = (tmp_path / "printed" / "t.csv").read_text()
    assert printed_rows == "Model,Value,dataset\nA,0.123 (0.010),the data\nC,–,the data\n"
    assert sorted(file.name for file in tmp_path.rglob("*.*")) == ["t.csv", "t.csv", "t.md"]


def test_a_table_without_rows_says_none(tmp_path):
    tables.write_table(
        pd.DataFrame(columns=["DRG", "Title"]), pd.DataFrame(columns=["drg", "title"]), tmp_path, "t", "x"
    )
    assert (tmp_path / "printed" / "t.csv").read_text() == "DRG,Title,dataset\nnone,–,x\n"
    assert (tmp_path / "t.csv").read_text() == "drg,title,dataset\n"


@pytest.mark.parametrize(
    ("form", "row", "cell"),
    [
        (".3f", (0.5, 0.25, 0.75), "0.500 (0.250 to 0.750)"),
        ("+.1f", (-0.04, -1.0, 0.04), "+0.0 (−1.0 to +0.0)"),  # no negative zero
        ("+,.0f", (-1234.5, -20000.0, 3.0), "−1,234 (−20,000 to +3)"),
        (".3f", (np.nan, 0.0, 1.0), "–"),
    ],
)
def test_intervals_in_print(form, row, cell):
    table = pd.DataFrame([row], columns=["value", "lower", "upper"])
    assert tables.with_interval(table, form) == [cell]


def test_p_in_print():
    assert tables.p_values(pd.Series([0.0, 0.00099, 0.001, 0.0496, 1.0, np.nan])) == [
        "< 0.001", "< 0.001", "0.001", "0.050", "1.000", "–",
    ]  # fmt: skip


def test_drgs_in_print_say_what_is_masked():
    table = pd.DataFrame({"rank": [1, "–"], "drg": ["001", "002"], "title": ["A", "B"], "type": ["surgical"] * 2,
                          "train_cases": [40, "< 11"], "test_cases": [12, "–"], "acc_at_1": [0.25, "–"], "acc_range": ["< 20", "–"]})  # fmt: skip
    shown = tables.printed_drgs(table)
    names = [
        "Rank",
        "DRG",
        "Title",
        "Type",
        "Training stays",
        "Test stays",
        "top-1 accuracy",
        "top-5 accuracy between (%)",
    ]
    assert shown.columns.tolist() == names
    assert shown.to_numpy().tolist() == [[1, "001", "A", "surgical", 40, 12, "0.250", "< 20"],
                                         ["–", "002", "B", "surgical", "< 11", "–", "–", "–"]]  # fmt: skip


@pytest.mark.parametrize(
    ("run", "base", "name"),
    [
        ("llama", "smollm2-135m-instruct", "SmolLM2-135M"),
        ("llama", "/somewhere/models/smollm2-135m-instruct", "SmolLM2-135M"),
        ("llama-small-64", "smollm2-135m-instruct", "SmolLM2-135M (small, 64)"),
        ("llama-ms", "smollm2-135m-instruct", "SmolLM2-135M (MS-DRG)"),
        ("tree", "smollm2-135m-instruct", "SmolLM2-135M, tree"),
        ("probe", "smollm2-135m-instruct", "Frozen probe"),
        ("llama", "huggyllama/llama-7b", "DRG-LLaMA"),
        ("bert", "minilm-l6", "BERT"),
        ("tfidf", None, "TF-IDF + LR"),
    ],
)
def test_a_run_is_called_what_it_is(run, base, name):
    record = {"run": run, "settings": {"base": base} if base else {}}
    assert names.name_of(record) == name
    assert names.names_of({"other": [SimpleNamespace(run=record)], "mine": SimpleNamespace(run={"run": "x"})}) == {
        "other": "other", "mine": "mine",
    }  # fmt: skip
    assert style_of(run, {run: "N"})[0] == "N" and style_of("caml", {run: "N"})[0] == "CAML"
    assert names.in_full(name) == {"SmolLM2-135M": "SmolLM2-135M (LLaMA architecture)"}.get(name, name)


# --- differences


@pytest.mark.parametrize(
    ("row", "expected"),
    [
        ((0.03, 0.01, 0.05, 0.012), "A is above B in top-1 accuracy (+0.030, 95 % interval +0.010 to +0.050; p = 0.012 "),
        ((-0.03, -0.05, -0.01, 0.0004), "A is below B in top-1 accuracy (−0.030, 95 % interval −0.050 to −0.010; p < 0.001 "),
        ((0.01, -0.01, 0.03, 0.4), "A and B can't be told apart in top-1 accuracy (+0.010, 95 % interval −0.010 to "),
        ((0.02, 0.0, 0.04, 0.06), "A and B can't be told apart in top-1 accuracy (+0.020, 95 % interval +0.000 to "),
        ((0.03, 0.01, 0.05, 0.2), "A and B differ in top-1 accuracy by themselves, but not after correction"),
    ],
)  # fmt: skip
def test_the_sentence_says_what_interval_and_correction_say(row, expected):
    row = SimpleNamespace(
        model="B",
        metric="acc_at_1",
        **dict(zip(("difference", "lower", "upper", "p_holm"), row, strict=True)),
        models="",
    )
    assert comparisons.difference_sentence("A", row).startswith(expected)


def test_differences_are_those_of_table_1_and_turn_round_with_the_models(paths, numbers):
    found = numbers["numbers"]
    table = {run: found["table_1"][run]["All DRGs"] for run in RUNS}
    for other in ("tfidf", "mine"):
        for metric in METRICS:
            said = found["differences"][other][metric]
            assert said["difference"] == pytest.approx(table["llama"][metric]["value"] - table[other][metric]["value"])
            assert said["lower"] <= said["difference"] <= said["upper"]
    scores = {run: scores_of(paths, run)[0] for run in ("llama", "mine")}
    turned = comparisons.differences(scores, "mine", 60, 42).set_index("metric")
    assert turned["upper"]["acc_at_1"] == pytest.approx(-found["differences"]["mine"]["acc_at_1"]["lower"])
    assert (turned["difference"] < 0).all() and turned["model"].eq("DRG-LLaMA").all()
    assert comparisons.differences({"llama": scores["llama"]}, "llama", 60, 42).empty


def test_holms_correction_by_hand(paths):
    """The k-th smallest of m p-values times m - k + 1, never below the one before, at most 1."""
    scores = {run: scores_of(paths, run)[0] for run in RUNS}
    table = comparisons.differences(scores, "llama", 60, 42).sort_values("p")
    steps = table["p"].to_numpy() * np.arange(len(table), 0, -1)
    assert table["p_holm"].to_numpy() == pytest.approx(np.maximum.accumulate(steps).clip(max=1))


def test_a_further_pair_is_compared_by_itself_and_corrected_with_the_others(paths):
    scores = {run: scores_of(paths, run)[0] for run in RUNS}
    more = [("tfidf", "mine"), ("tfidf", "never ran")]
    table = comparisons.differences(scores, "llama", 60, 42, more=more).set_index(["of", "run", "metric"])
    assert set(table.index.droplevel("metric")) == {("llama", "tfidf"), ("llama", "mine"), ("tfidf", "mine")}
    first, second = (scores[run].evaluate()["macro_f1"] for run in ("tfidf", "mine"))
    row = table.loc["tfidf", "mine", "macro_f1"]
    assert row["difference"] == pytest.approx(first - second) and row["sentence"].startswith("TF-IDF + LR")
    steps = table["p"].sort_values() * np.arange(len(table), 0, -1)  # Holm's, over all three pairs
    assert table["p_holm"].sort_values().to_numpy() == pytest.approx(
        np.maximum.accumulate(steps.to_numpy()).clip(max=1)
    )


def test_means_over_folds_are_compared_and_the_sentences_say_so(paths):
    ours, theirs = (scores_of(paths, run)[0] for run in ("llama", "mine"))
    table = comparisons.differences({"a": [ours, theirs], "b": [theirs], "c": [theirs, theirs]}, "a", 40, 1).set_index(
        ["run", "metric"]
    )
    gain = (ours.evaluate()["acc_at_1"] - theirs.evaluate()["acc_at_1"]) / 2
    assert table.loc["b", "difference"]["acc_at_1"] == pytest.approx(gain)
    assert table.loc["b", "models"].eq("2 and 1").all() and table.loc["c", "models"].eq("2 and 2").all()
    assert f"(means of 2 and 1 models: {gain:+.3f}, 95 % interval " in table.loc[("b", "acc_at_1"), "sentence"]
    split = comparisons.split_effect({"a": [theirs, theirs]}, {"a": [ours, theirs]}, 40, 1).set_index("metric")
    assert split.loc["acc_at_1", "together"] == pytest.approx(gain + theirs.evaluate()["acc_at_1"])
    assert split.loc["acc_at_1", "difference"] == pytest.approx(gain) and split["models"].eq("2 and 2").all()
    row = next(split.reset_index().itertuples())
    assert "(means of 2 and 2 models: " in comparisons.leakage_sentence(row)
    few = [Scores(9 * np.eye(35)[(truth := ours.truth) - (np.arange(150) < 3)], truth), ours]  # three stays wrong
    hidden = comparisons.differences({"a": few, "b": [theirs]}, "a", 40, 1, 11).set_index("metric")
    assert np.isnan(hidden.loc["acc_at_1", "difference"]) and hidden.loc["macro_f1", "difference"] > 0


@pytest.mark.parametrize(
    ("difference", "reach", "p", "said"),
    [
        (
            0.117,
            0.03,
            0.001,
            "CAML scores higher in top-1 accuracy where it knows the clinicians (+0.117, 95 % interval",
        ),
        (0.01, 0.03, 1.0, "(+0.010, 95 % interval −0.020 to +0.040); a gain above 0.040 is excluded."),
        (-0.05, 0.03, 0.001, "(−0.050, 95 % interval −0.080 to −0.020); any gain is excluded."),
    ],
)
def test_what_knowing_others_may_be_worth_is_said_with_what_is_excluded(difference, reach, p, said):
    row = SimpleNamespace(model="CAML", metric="acc_at_1", difference=difference, p_holm=p, models="")
    row.lower, row.upper = difference - reach, difference + reach
    assert said in comparisons.leakage_sentence(row, "clinicians")


def test_sentences_are_listed_and_their_dollars_begin_no_formula():
    assert tables.listed(["$1 of", "$2"]).data == "- <span>&#36;</span>1 of\n- <span>&#36;</span>2"


def test_splits_are_compared_model_by_model(paths):
    scores = {run: scores_of(paths, run)[0] for run in ("llama", "mine", "elsewhere")}
    table = comparisons.split_effect({"a": scores["mine"]}, {"llama": scores["llama"]}, 40, 1).set_index("metric")
    assert table["model"].eq("DRG-LLaMA").all() and list(table.index) == list(METRICS)
    assert table["difference"].to_numpy() == pytest.approx((table["together"] - table["apart"]).to_numpy())
    assert table["together"]["acc_at_1"] == scores["llama"].evaluate()["acc_at_1"]
    with pytest.raises(ValueError, match="shorter"):
        comparisons.split_effect({"a": scores["mine"]}, {"llama": scores["llama"], "tfidf": scores["mine"]}, 40, 1)


# --- figure 2, text, cost


def test_drgs_are_ranked_by_training_cases_and_grouped_as_the_paper_words_it():
    truth = np.repeat([0, 1, 2], 5)
    logits = np.full((15, 10), -1.0)  # ten labels, so that the top five can miss
    logits[:, :4] = 0
    logits[np.arange(15), truth] = np.repeat([1, 2, 3], 5)
    logits[4, 3:] = logits[5:9, 3:] = 9
    labels = np.array(["001", "002", "003", "004", *drgs.v34().index[20:26]])
    table = results.by_drg(Scores(logits, truth), labels, pd.Series({"002": 7, "001": 7, "003": 9}))
    assert table["drg"].tolist() == ["003", "001", "002"] and table["rank"].tolist() == [1, 2, 3]
    assert table["acc_at_5"].tolist() == [1, 0.8, 0.2] and table["test_cases"].tolist() == [5, 5, 5]
    assert table["acc_range"].tolist() == ["> 80", "60–80", "20–40"]  # 80 % is not above 80 %, 20 % not below 20 %
    assert table["title"][1] == "Heart transplant or implant of heart assist system with MCC"


def test_the_texts_numbers_are_those_of_the_stays(paths, numbers):
    train = read_rows(paths.stays, cohort.STAYS).query("split == 'train'")
    by_drg = pd.read_csv(paths.report / "tables" / "by-drg.csv")
    expected = {"train_stays": 450, "median_cases": train["drg_v34"].value_counts().median(), "above_2000": 0}
    expected |= {"train_words": train["words"].mean(), "top_30": 100 * by_drg_share(paths)}
    expected["cases_above_80"] = by_drg.query("acc_at_5 > 0.8")["train_cases"].median()
    assert {key: numbers["text"][key] for key in expected} == pytest.approx(expected)
    assert "top_300" not in numbers["text"] and "f1_gain_bert" not in numbers["text"]  # this study has neither


def by_drg_share(paths) -> float:
    """Share of the test stays that have one of the 30 most frequent DRGs."""
    stays = read_rows(paths.stays, cohort.STAYS)
    top = stays["drg_v34"].value_counts().sort_index().sort_values(ascending=False, kind="stable").index[:30]
    return stays.loc[stays["split"] == "test", "drg_v34"].isin(top).mean()


def test_the_texts_numbers_stand_beside_the_published_ones():
    table = tables.text_table(
        tables.text_numbers({"train_stays": 1234, "top_50": 38.04, "median_cases": 12.5, "v34_two_way_cc_mcc": 43}),
        "mine",
    ).set_index("Quantity")
    assert table.columns.tolist() == ["MIMIC-IV (published)", "mine (this run)"] and len(table) == len(published.TEXT)
    rows = {
        "Training stays": ["236,192", "1,234"],
        "Test stays of the top 50 DRGs, %": ["39.1", "38.0"],
        "Median training cases of a DRG": ["124.5", "12.5"],
        "DRGs with more than 2,000 training cases": ["12", "–"],
        "Median cases, top-5 above 80 %": ["309", "–"],
        "Median cases, top-5 below 20 %": ["17", "–"],
        "Figure 2a: degrees of freedom of the spline": ["6.35", "–"],
        "Patients in the tables": ["299,712", "–"],
        "Bases split in two: CC/MCC, neither": ["44", "43"],
        "p of that difference, two-sided t-test": ["0.51", "–"],
    }
    assert {quantity: table.loc[quantity].tolist() for quantity in rows} == rows


def test_costs_are_counted_in_the_papers_steps(paths):
    runs = predictions.read_runs(paths, RUNS)
    cost = results.costs(runs)
    assert cost["predict_examples_per_second"].tolist() == [50, 50, 50]
    assert cost["evaluation_steps_per_second"].to_dict() == pytest.approx(
        {"llama": 12.5, "tfidf": np.nan, "mine": 50 / 32}, nan_ok=True
    )
    assert cost["train_examples_per_second"].to_dict() == pytest.approx(
        {"llama": 20, "tfidf": np.nan, "mine": 20}, nan_ok=True
    )
    shown = tables.printed_costs(cost, runs).set_index("Model")
    assert shown.loc["DRG-LLaMA"].tolist()[:6] == ["–", "1.0", "–", "20.0", "12.50", "4"]
    assert shown["Number type"]["TF-IDF + LR"] == "–"


def test_a_run_that_takes_frozen_states_costs_what_they_cost_too():
    spent = {
        "fit_seconds": 346.0,
        "train_seconds": 240.0,
        "train_examples": 480,
        "predict_seconds": 10.0,
        "predict_examples": 400,
    }
    lent = {"fit_seconds": 102.0, "predict_seconds": 90.0, "predict_examples": 400}
    runs = {
        "llama": SimpleNamespace(run={"model": "llama", "settings": {"features_of": "probe"}, "cost": spent}),
        "probe": SimpleNamespace(run={"model": "llama", "settings": {}, "cost": lent}),
    }
    cost = results.costs(runs)
    assert cost["train_minutes"].tolist() == pytest.approx([448 / 60, 1.7])
    assert cost["features_minutes"].tolist() == pytest.approx([1.7, np.nan], nan_ok=True)
    assert cost["predict_examples_per_second"].tolist() == pytest.approx([4, 400 / 90])
    assert cost["train_examples_per_second"]["llama"] == 2  # of the tuned layers alone
    with pytest.raises(
        study.StudyError, match=r"'llama' takes the frozen states of 'probe'.*name 'probe' in the parameter other_runs"
    ):
        results.costs({"llama": runs["llama"]})


def test_time_gains_compare_half_the_tokens_and_the_other_size():
    sizes = pd.DataFrame({"size": ["m-13B", "m-13B", "m-7B"], "max_tokens": [64, 32, 32]}, index=["a", "b", "c"])
    gains = comparisons.time_gains(pd.DataFrame({"train_seconds": [30, 20, 10]}, index=["a", "b", "c"]), sizes)
    assert gains[["published", "ours"]].to_numpy().tolist() == [[90, 50], [70, 100]]
    assert tables.printed_gains(gains).to_numpy().tolist() == [
        ["32 → 64 tokens, m-13B", "Twice the tokens: +90 %", "+50 %"],
        ["m-7B → m-13B, 32 tokens", "13B against 7B: +70 %", "+100 %"],
    ]


# --- Tables 2 and 3


def test_sizes_say_what_a_run_read_and_how_deep():
    settings = [{"base": "m", "layers": 0, "max_tokens": 96}, {"base": "m", "layers": 12, "max_tokens": 32}]
    sizes = results.sizes({name: SimpleNamespace(run={"settings": s}) for name, s in zip("ab", settings, strict=True)})
    assert sizes.to_numpy().tolist() == [["m", 96], ["m, first 12 layers", 32]]


@pytest.fixture
def two():
    """Four stays of DRGs 291 (with MCC), 293 (without CC/MCC), 069 (unsplit) and 291, with two-label outputs by hand."""
    codes = ["069", "291", "292", "293"]
    space = TwoLabels(codes, codes)
    place = {title: i for i, title in enumerate(space.outputs)}
    heart, brain = place["HEART FAILURE AND SHOCK"], place["TRANSIENT ISCHEMIA"]
    said = [  # base, then the CC/MCC labels from the likeliest: 0 without CC/MCC, 1 CC, 2 MCC, 3 without MCC, 4 not applicable
        (heart, [2, 1, 0]),  # right by both rules
        (heart, [3, 2, 0]),  # (a) the likeliest of 0, 1, 2 is 2, wrong; (b) 3 becomes 0, right
        (brain, [2, 4]),  # an unsplit base is right whatever is said
        (brain, [4, 2]),  # wrong base
    ]
    outputs = np.zeros((4, 345), np.float32)
    for row, (base, labels) in zip(outputs, said, strict=True):
        row[base] = 9
        row[[340 + label for label in labels]] = np.arange(len(labels), 0, -1)
    outputs[3, heart] = 5
    labels, truth = np.array(codes), np.array([1, 3, 0, 1])
    return Predictions(np.arange(4), truth, labels, space.drg_logits(outputs), {"run": "two"}, outputs), space


def test_table_3_of_four_stays_worked_by_hand(two):
    table = results.table3(*two, resamples_sd=5, resamples_interval=20, seed=1)
    value = table.set_index(["component", "metric"])["value"]
    # the base is right in three of four stays; the CC/MCC label in the first alone, and in none of 0, 4, 2 after it
    expected = {"Base DRG": 0.75, "CC/MCC": 0.25, "DRG by rule (a)": 0.5, "DRG by rule (b)": 0.75}
    assert value.xs("acc_at_1", level="metric")[list(expected)].to_dict() == expected
    assert value["Base DRG", "acc_at_5"] == 1 and ("CC/MCC", "acc_at_5") not in value.index
    labels = {"Base DRG": 340, "CC/MCC": 5, "DRG by rule (a)": 4, "DRG by rule (b)": 4, "DRG by probability": 4}
    assert table.groupby("component")["n_labels"].first().to_dict() == labels
    occurring = {"Base DRG": 2, "CC/MCC": 4, "DRG by rule (a)": 4, "DRG by rule (b)": 4, "DRG by probability": 4}
    assert (
        table.groupby("component")["n_occurring"].first().to_dict() == occurring
    )  # of 069 and 291 to 293: no "without MCC"
    printed = tables.printed3(table)
    ours = ["Number of labels", "Labels that occur", "micro-AUC, labels that occur"]
    assert printed.columns.tolist() == ["Component", *NAMES, *ours]
    assert printed["Component"].tolist() == sorted(labels)
    assert printed.set_index("Component")[ours[2]].str.len().gt(1).to_dict() == {
        c: labels[c] > occurring[c] for c in labels
    }
    assert tables.nested(table, ["component", "metric"])["CC/MCC"]["acc_at_1"]["value"] == 0.25


def test_outputs_that_no_stay_ever_has_lift_the_micro_auc_but_not_the_one_of_labels_that_occur(two):
    """A coin for each of the labels that occur: micro-AUC near one half, and near 1 with 338 dead outputs beside them."""
    made, space = two
    rng, n = np.random.default_rng(0), 400
    outputs = np.full((n, 345), -20.0, np.float32)
    bases = np.unique(space.encode(made.labels)[:, 0])
    outputs[:, bases], outputs[:, 340:] = rng.normal(size=(n, 2)), rng.normal(size=(n, 5))
    made = Predictions(np.arange(n), rng.integers(4, size=n), made.labels, space.drg_logits(outputs), made.run, outputs)
    value = results.table3(made, space, 5, 20, 1).set_index(["component", "metric"])["value"]
    assert value["Base DRG", "micro_auc"] > 0.99
    expected = roc_auc_score(
        *_flat(outputs[:, bases], np.searchsorted(bases, space.encode(made.labels[made.truth])[:, 0]))
    )
    assert value["Base DRG", "micro_auc_occurring"] == pytest.approx(expected) and expected == pytest.approx(
        0.5, abs=0.06
    )


def _flat(logits, truth):
    return np.eye(logits.shape[1])[truth].ravel(), softmax(logits.astype(float), axis=1).ravel()


# --- the published tables, each against what the paper says elsewhere


def printed(table):
    return published.table(table).set_index(["row", "metric"])["value"].sort_index()


def test_the_published_table_1_is_printed_alike():
    table = tables.printed1(published.table("Table 1"))
    assert table.columns.tolist() == ["Model", "DRG set", *NAMES, "Number (%) of cases"]
    assert table["Model"].tolist() == ["DRG-LLaMA-7B"] * 4 + ["ClinicalBERT", "CAML"]
    first = ["DRG-LLaMA-7B", "All DRGs", "0.327 (0.004)", "0.520 (0.003)", "0.848 (0.002)", "0.912 (0.002)"]
    assert table.iloc[0].tolist() == [*first, "0.986 (0.001)", "0.994 (0.000)", "26,244 (100.0)"]


def test_the_published_table_2_is_printed_in_the_papers_layout():
    """Larger models and longer inputs are better in every metric, says the text; AUCs may tie."""
    table = published.table("Table 2").rename(columns={"model": "size"}).astype({"max_tokens": int})
    shown = tables.printed2(table)
    assert shown.columns.tolist() == ["Model size", "Max input tokens", *NAMES]
    assert shown["Model size"].tolist() == ["DRG-LLaMA-13B"] * 3 + ["DRG-LLaMA-7B"] * 3
    assert shown["Max input tokens"].tolist() == [1024, 512, 340] * 2
    assert shown.iloc[0, 2:4].tolist() == ["0.361 (0.004)", "0.546 (0.003)"]
    value = table.pivot(index=["size", "metric"], columns="max_tokens", values="value")
    assert (value[340] <= value[512]).all() and (value[512] <= value[1024]).all()
    best = ["macro_f1", "acc_at_1", "acc_at_5", "acc_at_10"]
    assert (value.loc["DRG-LLaMA-13B"].loc[best] > value.loc["DRG-LLaMA-7B"].loc[best]).all(axis=None)


def test_the_published_table_3_is_printed_in_the_papers_layout():
    shown = tables.printed3(published.table("Table 3")).set_index("Component")
    assert shown.loc["Base DRG"].tolist()[:2] == ["0.520 (0.005)", "0.678 (0.002)"]
    assert shown.loc["CC/MCC"].tolist() == [
        "0.680 (0.003)",
        "0.675 (0.003)",
        "–",
        "–",
        "0.909 (0.001)",
        "0.918 (0.001)",
        5,
    ]
    assert shown.loc["DRG"].tolist() == ["–", "0.515 (0.003)", "–", "–", "–", "–", 738]
    text = printed("Text")
    assert shown["Number of labels"]["Base DRG"] == text["MS-DRG v34", "n_base_drgs"] == drgs.v34()["base"].nunique()
    assert shown["Number of labels"]["DRG"] == text["Training set", "n_labels"]


def test_the_published_tables_hold_what_the_text_quotes():
    """Abstract, Results and Discussion; the same values in other words."""
    one, size, two = printed("Table 1"), printed("Table 2"), printed("Table 3")
    llama, best = one["DRG-LLaMA-7B | All DRGs"], size["DRG-LLaMA-13B | 1024"]
    accuracy = ["acc_at_1", "acc_at_5"]
    assert llama[["macro_f1", "macro_auc", *accuracy]].tolist() == [0.327, 0.986, 0.520, 0.848]
    assert [one[f"DRG-LLaMA-7B | Top {n} DRGs", "acc_at_1"] for n in (300, 30)] == [0.557, 0.694]
    assert best[["macro_f1", *accuracy]].tolist() == [0.361, 0.546, 0.865]
    assert two.xs("acc_at_1", level="metric").to_dict() == {"Base DRG": 0.678, "CC/MCC": 0.675, "DRG": 0.515}
    bert, caml = one["ClinicalBERT | All DRGs"], one["CAML | All DRGs"]
    assert (
        bert["acc_at_1"] > caml["acc_at_1"] and bert["macro_auc"] > caml["macro_auc"]
    )  # "higher AUC and top-1 accuracy,
    assert (
        bert["macro_f1"] < caml["macro_f1"] and (llama[list(METRICS)] > bert[list(METRICS)]).all()
    )  # but lower macro-F1"
    for model, gain in ((bert, 40.3), (caml, 35.7)):
        assert round(100 * (llama["macro_f1"] - model["macro_f1"]) / model["macro_f1"], 1) == gain
    assert size["DRG-LLaMA-7B | 512"].equals(llama[list(size["DRG-LLaMA-7B | 512"].index)])


def test_the_published_costs_give_the_gains_of_the_text():
    """340 to 512 tokens is 1.5 times as many, 512 to 1024 twice: +89 % and +93 %; 13B takes 70, 71 and 75 % more."""
    shown = published.costs()
    assert shown.iloc[:, :3].to_numpy().tolist() == [
        ["DRG-LLaMA-7B", 340, "104"], ["DRG-LLaMA-7B", 512, "151"], ["DRG-LLaMA-7B", 1024, "285"],
        ["DRG-LLaMA-13B", 340, "177"], ["DRG-LLaMA-13B", 512, "258"], ["DRG-LLaMA-13B", 1024, "498"],
        ["ClinicalBERT", 512, "5"], ["CAML", 512, "0.8"],
    ]  # fmt: skip
    hours = shown.set_index(["Model", "Max input tokens"])["Training (hours)"].astype(float)
    small, large = hours["DRG-LLaMA-7B"], hours["DRG-LLaMA-13B"]
    assert [round(100 * (model[1024] / model[512] - 1)) for model in (small, large)] == [89, 93]
    assert [round(100 * (large[n] / small[n] - 1)) for n in (340, 512, 1024)] == [70, 71, 75]
    text = printed("Text")
    assert text["Twice the tokens", "training_time_gain_percent"] == 90
    assert text["13B against 7B", "training_time_gain_percent"] == 70
    assert results.BATCH == {"llama": 4, "bert": 16, "caml": 32}


def test_the_published_counts_of_the_text_add_up():
    figure, text, errors = printed("Figure 1"), printed("Text"), printed("Table 4")
    train, test = figure["Cohort", "n_train"], figure["Cohort", "n_test"]
    assert round(100 * train / (train + test)) == 90
    assert test == printed("Table 1")["CAML | All DRGs", "n_cases"]
    assert errors.sum() == 10 and errors.droplevel("metric").to_dict() == {
        "Erroneous CC/MCC": 1, "Information not available": 1, "Difficulty selecting the base DRG": 3,
        "Inadequate concept extraction": 4, "Plausible wrong label": 1,
    }  # fmt: skip
    kinds = text["MS-DRG v34"]
    assert kinds["n_base_drgs"] == kinds[["n_three_way", "n_two_way_cc_mcc", "n_two_way_mcc", "n_unsplit"]].sum() == 340
    codes = 3 * kinds["n_three_way"] + 2 * (kinds["n_two_way_cc_mcc"] + kinds["n_two_way_mcc"]) + kinds["n_unsplit"]
    assert codes == kinds["n_drgs"] == len(drgs.v34()) == 757
    assert printed("Figure 2a")["Smoothing spline", "n_drgs"] == text["Test set", "n_labels"] == 723


def test_the_published_drgs_give_the_medians_of_the_text():
    """Supplementary Tables 2 to 4 list their DRGs; the text gives the medians of their training cases, and the counts."""
    listed = pd.read_csv(study.places.REFERENCE / "published_drgs.csv", dtype={"drg": str})
    by_table = listed.groupby("table")
    cases, text = by_table["train_cases"].median(), printed("Text")
    best = listed[listed["table"] == "Supplementary Table 2"]
    assert [len(best), (best["type"] == "surgical").sum()] == [9, 8]
    assert text["Top-1 accuracy 100 %"][["n_drgs", "n_surgical_drgs"]].tolist() == [9, 8]
    for table, row in (
        (2, "Top-1 accuracy 100 %"),
        (3, "Top-5 accuracy 0 %, medical"),
        (4, "Top-5 accuracy 0 %, surgical"),
    ):
        assert cases[f"Supplementary Table {table}"] == text[row, "median_train_cases"], row
    v34 = drgs.v34().loc[listed["drg"]]
    assert (v34["type"].to_numpy() == listed["type"]).all()
    reviewed = listed[listed["table"] == "Table 4"]["category"].value_counts()
    assert reviewed.to_dict() == printed("Table 4").droplevel("metric").to_dict()


# --- writing


def test_tables_name_their_dataset_in_csv_and_markdown(tmp_path):
    table = pd.DataFrame({"a": [1, 2], "b": ["x|<i>", "y"]})
    shown = tables.write_table(table, table, tmp_path, "t", "a dataset")
    for folder in (tmp_path, tmp_path / "printed"):
        assert (folder / "t.csv").read_text() == "a,b,dataset\n1,x|<i>,a dataset\n2,y,a dataset\n"
    lines = "*a dataset*\n\n| a | b |\n| --- | --- |\n| 1 | x\\|&lt;i> |\n| 2 | y |\n"
    assert (tmp_path / "printed" / "t.md").read_text() == lines
    assert "a dataset" in shown.to_html() and "<i>" not in shown.to_html()


def test_numbers_are_written_apart_from_costs_and_only_finite_ones_are_quoted(paths, monkeypatch, tmp_path):
    monkeypatch.setattr(study.places, "ROOT", tmp_path)
    text = {"top_50": np.float64(39.5), "top_300": np.nan, "above_2000": 3, "spline_df": np.inf, "median_cases": None}
    tables.write_numbers(paths, "11-trust", {"ece": {"llama": 0.1}}, text=text, costs={"seconds": 2.5})
    expected = {
        "numbers": {"ece": {"llama": 0.1}},
        "text": {"top_50": 39.5, "above_2000": 3},
        "costs": {"seconds": 2.5},
        "dataset": {"kind": "credentialed", "name": "unknown"},
    }
    assert study.read_json(paths.report / "numbers" / "11-trust.json") == expected
    tables.write_numbers(paths, "11-trust", {})
    without = expected | {"numbers": {}, "text": {}, "costs": {}}
    assert study.read_json(paths.report / "numbers" / "11-trust.json") == without


def test_numbers_are_valid_json_and_name_dataset_and_seed(paths):
    def refuse(constant):
        raise AssertionError(constant)

    content = (paths.report / "numbers" / "06-results.json").read_text()
    found = json.loads(content, parse_constant=refuse)
    assert found["numbers"]["dataset"]["kind"] == "synthetic" and found["numbers"]["seed"] == 42
    assert found["numbers"]["stays_fingerprint"] == study.fingerprint(paths.stays)
    assert list(found["numbers"]["models"]) == sorted(RUNS) and set(found["text"]) < set(published.TEXT)
    assert not re.search("seconds|memory", content)  # no rerun repeats those: they are costs


def test_nested_numbers_leave_out_what_is_not_there():
    table = pd.DataFrame({"run": ["a", "a", "b"], "metric": ["f", "g", "f"], "model": "m", "value": [1.0, np.nan, 3.0]})
    assert tables.nested(table, ["run", "metric"]) == {"a": {"f": {"value": 1.0}, "g": {}}, "b": {"f": {"value": 3.0}}}
    assert tables.nested(table.drop(columns="model"), ["run", "metric"])["b"] == {"f": {"value": 3.0}}


def test_every_metric_has_a_printed_name():
    assert list(METRICS.values()) == NAMES


def test_a_value_is_printed_with_its_interval_and_a_true_minus():
    table = pd.DataFrame({"lower": [-0.0312, 0.5], "mean": [0.1249, -0.25], "upper": [0.27, 1.0], "other": "x"})
    assert tables.with_interval(table, "+.2f", "mean") == ["+0.12 (−0.03 to +0.27)", "−0.25 (+0.50 to +1.00)"]
    shares = table.rename(columns={"mean": "value"})
    assert tables.with_interval(shares, ".1f", unit=100) == ["12.5 (−3.1 to 27.0)", "−25.0 (50.0 to 100.0)"]


def run_of(run: str, stay_ids: list[int], right: list[bool]) -> Predictions:
    """A run's predictions of stays, of which every other one has the second label."""
    truth = np.array(stay_ids) % 2
    logits = np.eye(2, dtype="float32")[np.where(right, truth, 1 - truth)]
    return Predictions(np.array(stay_ids), truth, np.array(["291", "871"]), logits, {"run": run})


def test_clinicians_known_and_new_are_compared_on_common_stays_alone():
    known = run_of("tfidf", [5, 1, 2, 3, 9], [True, True, True, False, False])
    new = run_of("tfidf-clinicians", [1, 2, 3, 5, 8], [True, False, False, True, True])
    table, said = comparisons.clinicians_effect(known, new, 40, 1)
    row = table.set_index("metric").loc["acc_at_1"]
    assert row[["together", "apart", "difference"]].tolist() == [0.75, 0.5, 0.25]  # of the stays 1, 2, 3 and 5
    assert said == "4 of the 5 test stays of TF-IDF + LR are test stays under both splits."
    apart = run_of("tfidf-clinicians", [11, 12], [True, False])
    with pytest.raises(study.StudyError, match="no common test stay"):
        comparisons.clinicians_effect(known, apart, 40, 1)


def test_of_common_stays_no_accuracy_is_told_that_leaves_few_of_all():
    """Of 40 test stays 30 are common; of the other ten, all right, it would follow that ten are."""
    known = run_of("tfidf", list(range(40)), [n % 2 == 0 or n >= 30 for n in range(40)])
    new = run_of("tfidf-clinicians", list(range(30)), [n % 3 < 2 for n in range(30)])
    table, said = comparisons.clinicians_effect(known, new, 40, 1, 11)
    assert "acc_at_1" not in set(table["metric"]) and "macro_f1" in set(table["metric"])
    assert said.startswith("Few, or all but few, of the 40")
