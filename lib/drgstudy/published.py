"""What both papers print: their tables, and the numbers that their texts quote; shown beside ours, never mixed in."""

from __future__ import annotations

import pandas as pd

from drgstudy import drgs
from drgstudy.study import REFERENCE

FILES = {"DRG-LLaMA": "published_tables.csv", "Early DRG": "published_early.csv"}
TEXT = {  # what DRG-LLaMA's text and captions quote: wording, format, and the published value's row and column
    "admissions": ("Hospital stays in the tables", ",.0f", "MIMIC-IV", "n_admissions"),
    "patients": ("Patients in the tables", ",.0f", "MIMIC-IV", "n_patients"),
    "train_stays": ("Training stays", ",.0f", "Cohort", "n_train"),
    "test_stays": ("Test stays", ",.0f", "Cohort", "n_test"),
    "train_labels": ("DRGs in the training set", ",.0f", "Training set", "n_labels"),
    "test_labels": ("DRGs in the test set", ",.0f", "Test set", "n_labels"),
    "v34_drgs": ("DRGs of version 34", ",.0f", "MS-DRG v34", "n_drgs"),
    "v34_bases": ("Base DRGs of version 34", ",.0f", "MS-DRG v34", "n_base_drgs"),
    "v34_three_way": ("Bases split in three: MCC, CC, neither", ",.0f", "MS-DRG v34", "n_three_way"),
    "v34_two_way_cc_mcc": ("Bases split in two: CC/MCC, neither", ",.0f", "MS-DRG v34", "n_two_way_cc_mcc"),
    "v34_two_way_mcc": ("Bases split in two: MCC, no MCC", ",.0f", "MS-DRG v34", "n_two_way_mcc"),
    "v34_unsplit": ("Bases that are not split", ",.0f", "MS-DRG v34", "n_unsplit"),
    "train_words": ("Mean words of a training stay", ".0f", "Training set", "mean_words"),
    "test_words": ("Mean words of a test stay", ".0f", "Test set", "mean_words"),
    "words_p": ("p of that difference, two-sided t-test", ".2f", "Training against test set", "p_words"),
    "top_300": ("Test stays of the top 300 DRGs, %", ".1f", "DRG-LLaMA-7B | Top 300 DRGs", "percent_cases"),
    "top_50": ("Test stays of the top 50 DRGs, %", ".1f", "DRG-LLaMA-7B | Top 50 DRGs", "percent_cases"),
    "top_30": ("Test stays of the top 30 DRGs, %", ".1f", "DRG-LLaMA-7B | Top 30 DRGs", "percent_cases"),
    "f1_gain_bert": ("Gain in macro-F1 over BERT, %", "+.1f", "Against ClinicalBERT", "macro_f1_gain_percent"),
    "f1_gain_caml": ("Gain in macro-F1 over CAML, %", "+.1f", "Against CAML", "macro_f1_gain_percent"),
    "median_cases": ("Median training cases of a DRG", ",g", "Training set", "median_train_cases"),
    "above_2000": ("DRGs with more than 2,000 training cases", ",.0f", "Training set", "n_drgs_above_2000_cases"),
    "cases_above_80": ("Median cases, top-5 above 80 %", ",g", "Top-5 accuracy above 80 %", "median_train_cases"),
    "cases_below_20": ("Median cases, top-5 below 20 %", ",g", "Top-5 accuracy below 20 %", "median_train_cases"),
    "perfect_drgs": ("DRGs with a top-1 accuracy of 100 %", ",.0f", "Top-1 accuracy 100 %", "n_drgs"),
    "perfect_surgical": ("Surgical ones among them", ",.0f", "Top-1 accuracy 100 %", "n_surgical_drgs"),
    "perfect_cases": ("Median cases, top-1 of 100 %", ",g", "Top-1 accuracy 100 %", "median_train_cases"),
    "zero_medical_cases": ("Median, top-5 0 %, medical", ",g", "Top-5 accuracy 0 %, medical", "median_train_cases"),
    "zero_surgical_cases": (
        "Median, top-5 0 %, surgical",
        ",g",
        "Top-5 accuracy 0 %, surgical",
        "median_train_cases",
    ),
    "spline_df": ("Figure 2a: degrees of freedom of the spline", ".2f", "Smoothing spline", "df"),
    "spline_r2": ("Figure 2a: R² of the spline", ".3f", "Smoothing spline", "r2"),
}

EARLY_TEXT = {  # what the early-DRG paper's text quotes: wording, sign of a bound, format, the published value's set and metric
    "targets": ("DRGs of the official rules that a model may name", "", ",.0f", "Target space", "n_drgs"),
    "drgs": ("DRGs that occur in the cohort", "", ",.0f", "Cohort", "n_drgs"),
    "words": ("Mean words of a stay after 48 hours (published: tokens)", "", ",.0f", "Cohort", "mean_tokens"),
    "macro_auc": ("CAML, all DRGs: macro-AUC", "> ", ".2f", "All DRGs", "macro_auc_above"),
    "micro_auc": ("CAML, all DRGs: micro-AUC", "> ", ".2f", "All DRGs", "micro_auc_above"),
    "p": ("CAML against LSTM: largest p of the paper’s t-tests", "< ", ".1g", "All DRGs", "p_against_caml_below"),
    "cmi_24": ("Error of the case-mix index at 24 hours, %", "", ".2f", "Test cohort", "cmi_error_percent_24h"),
    "cmi_later": ("The largest error at a later hour, %", "< ", ".1f", "Test cohort", "cmi_error_percent_after_24h_below"),
    "cmi_few": ("The largest at 24 hours in smaller populations, %", "< ", ".1f", "Smaller populations", "cmi_error_percent_24h_below"),
    "mae": ("Mean absolute error of the regression", "< ", ".2f", "All DRGs", "mae_below"),
    "payment": ("500 stays, index 3.15, off by 5 %: dollars", "", ",.0f", "Payment example", "payment_difference_dollars"),
}  # fmt: skip


def table(name: str, study: str = "DRG-LLaMA") -> pd.DataFrame:
    """One published table in long form, or the numbers that a paper's text quotes.

    Parameters
    ----------
    name : str
        "Table 1" and the like; "Text" for the numbers of the text.
    study : str
        "DRG-LLaMA" or "Early DRG".

    Returns
    -------
    DataFrame
        row, model, max_tokens, drg_set, metric, value and sd; for the early-DRG paper also system. Its micro-F1 is
        called acc_at_1: they are equal if each stay has one label and is given one.
    """
    values = pd.read_csv(REFERENCE / FILES[study]).rename(columns={"column": "metric"})
    values = values[values["table"] == name].replace({"metric": {"micro_f1": "acc_at_1"}})
    return values.reset_index(drop=True)


def costs() -> pd.DataFrame:
    """DRG-LLaMA's Supplementary Table 1 as it is printed."""
    theirs = table("Supplementary Table 1").astype({"max_tokens": int})
    theirs = theirs.set_index(["model", "max_tokens", "metric"])["value"].unstack(sort=False)
    theirs = theirs.map("{:g}".format).reset_index()
    theirs.columns = ["Model", "Max input tokens", "Training (hours)", "Steps/s, evaluation", "Batch of a step"]
    return theirs


def cases() -> pd.DataFrame:
    """The early-DRG paper's Table 3 without its phrases, which are from MIMIC's notes: a row for each of a case's 5-grams."""
    return pd.read_csv(REFERENCE / "published_early_cases.csv", dtype={"true_drg": str, "predicted_drg": str})


def printed_cases() -> pd.DataFrame:
    """`cases` as they are printed."""
    rows = cases()
    weights = rows.groupby("case")["weight"].agg(lambda each: ", ".join(map("{:.4f}".format, each)))
    rows = rows.drop_duplicates("case").set_index("case").assign(weights=weights).reset_index()
    title = drgs.fiscal_2013("ms")["title"].map(drgs.readable)
    about = {"Case": rows["case"].astype(str) + ": " + rows["situation"]}
    for which in ("true", "predicted"):
        code, counts = rows[f"{which}_drg"], rows[f"{which}_count"].astype(str)
        about[f"{which.capitalize()} DRG (stays)"] = code + " " + code.map(title) + " (" + counts + ")"
    return pd.DataFrame(about | {"Attention of its three 5-grams": rows["weights"]})


def listed(name: str) -> pd.DataFrame:
    """The DRGs in a table of DRG-LLaMA: "Table 4", or "Supplementary Table 2" to "4", these with the titles of v34."""
    rows = _drgs()
    rows = rows[rows["table"] == name].reset_index(drop=True)
    if name.startswith("Supplementary"):
        rows = rows[["drg", "type", "train_cases"]]
        rows.insert(1, "title", rows["drg"].map(drgs.v34()["title"]).map(drgs.readable))
    return rows


def confused() -> dict[frozenset[str], str]:
    """Where DRG-LLaMA gives an example of two DRGs that are hard to tell apart, by the two codes.

    Notes
    -----
    Source: DRG-LLaMA, Table 4 (ten errors) and Supplementary Results 4.3 (671 and 668).
    """
    rows = _drgs().dropna(subset="predicted_drg")
    places = rows["table"] + (", case " + rows["case"]).fillna("")
    return {
        frozenset([true, code]): place
        for place, true, predicted in zip(places, rows["drg"], rows["predicted_drg"], strict=True)
        for code in predicted.split("/")
    }


def _drgs() -> pd.DataFrame:
    return pd.read_csv(REFERENCE / "published_drgs.csv", dtype=str)
