"""The reference tables: their shape, their mutual consistency, and their sources where these are at hand."""

import pandas as pd
import pytest

from drgstudy import drgs
from drgstudy.study import REFERENCE, ROOT
from drgstudy.titles import standardise

SOURCES = ROOT.parent / "shared" / "reference"


def read(name):
    return pd.read_csv(REFERENCE / f"{name}.csv", dtype=str, keep_default_na=False)


@pytest.mark.skipif(not SOURCES.is_dir(), reason="the source tables of the reference facts are not here")
def test_reference_facts_equal_their_sources():
    files = [SOURCES / "msdrg_by_year.csv", SOURCES / "msdrg_fy2020_2025.csv"]
    source = pd.concat([pd.read_csv(file, dtype=str, keep_default_na=False) for file in files], ignore_index=True)
    ours = read("msdrg")
    for column in ("fiscal_year", "version", "drg", "mdc"):
        assert ours[column].tolist() == source[column].tolist()
    assert pd.to_numeric(ours["relative_weight"]).tolist() == pd.to_numeric(source["weight"]).tolist()
    assert ours["title"].tolist() == source["title"].str.split().str.join(" ").tolist()
    assert ours["type"].str[:3].str.upper().tolist() == source["type"].str[:3].replace("**", "").str.upper().tolist()
    stay = pd.to_numeric(source["gmlos"])
    assert ours["gmlos"].tolist() == source["gmlos"].where(stay > 0, "").tolist()  # 0 and blank both mean none
    manual = pd.read_csv(SOURCES / "msdrg_v34_long_titles.csv", dtype=str)
    assert read("msdrg_v34_titles")["title"].tolist() == manual["title"].tolist()


@pytest.mark.skipif(not SOURCES.is_dir(), reason="the source tables of the reference facts are not here")
def test_what_cms_changed_from_fiscal_year_2018_on_is_what_the_source_lists():
    source = pd.read_csv(SOURCES / "msdrg_changes_fy2018_2025.csv", dtype=str, keep_default_na=False)
    source = source[source["change"].str.match("new|deleted|retitled")]
    listed = {
        (int(row.fiscal_year), row.drg, " ".join(row.old_title.split()), " ".join(row.new_title.split()))
        for row in source.itertuples()
    }
    titles = drgs.titles_by_year().set_index(["fiscal_year", "drg"])["title"].unstack("fiscal_year", fill_value="")
    found = {
        (year, drg, titles.loc[drg, year - 1], titles.loc[drg, year])
        for year in range(2018, 2026)
        for drg in titles.index[titles[year - 1] != titles[year]]
    }
    only_blanks = {change for change in listed if change[2] == change[3]}
    assert found == listed - only_blanks and len(found) > 800


def test_abbreviations_are_unambiguous_and_not_chained():
    table = read("abbreviations")
    assert table["abbreviation"].is_unique and table["abbreviation"].is_monotonic_increasing
    assert not set(table["standard"]) & set(table["abbreviation"])


def test_crosswalk_holds_each_title_that_standardising_does_not_settle_and_no_other():
    table = drgs.titles_by_year()
    v34 = drgs.v34()[["title", "billed_title"]].map(standardise)
    unsettled = {
        (code, title)
        for code, title in zip(table["drg"], table["title"].map(standardise), strict=True)
        if code not in v34.index or title not in set(v34.loc[code])
    }
    crosswalk = read("crosswalk")
    assert {(row.code, standardise(row.title)) for row in crosswalk.itertuples()} == unsettled


def test_crosswalk_outcomes_are_v34_codes_or_exclusions_each_with_a_reason():
    crosswalk = read("crosswalk")
    assert set(crosswalk["v34"]) <= {*drgs.v34().index, "excluded"}
    assert crosswalk["reason"].str.len().gt(0).all()
    keys = crosswalk.assign(title=crosswalk["title"].map(standardise))
    assert keys.groupby("title")["code"].nunique().eq(1).all()  # so that a title without its code has one outcome


@pytest.mark.parametrize(
    ("table", "row", "column", "value", "sd"),
    [
        ("Table 1", "DRG-LLaMA-7B | All DRGs", "macro_f1", 0.327, 0.004),
        ("Table 1", "DRG-LLaMA-7B | Top 300 DRGs", "acc_at_1", 0.557, 0.004),
        ("Table 1", "DRG-LLaMA-7B | Top 30 DRGs", "acc_at_5", 0.941, 0.003),
        ("Table 1", "ClinicalBERT | All DRGs", "macro_auc", 0.979, 0.001),
        ("Table 1", "CAML | All DRGs", "acc_at_10", 0.865, 0.002),
        ("Table 1", "DRG-LLaMA-7B | Top 50 DRGs", "n_cases", 10270, None),
        ("Table 2", "DRG-LLaMA-13B | 1024", "acc_at_1", 0.546, 0.003),
        ("Table 2", "DRG-LLaMA-7B | 340", "micro_auc", 0.992, 0.001),
        ("Table 3", "Base DRG", "acc_at_1", 0.678, 0.002),
        ("Table 3", "CC/MCC", "micro_auc", 0.918, 0.001),
        ("Table 3", "DRG", "acc_at_1", 0.515, 0.003),
        ("Supplementary Table 1", "DRG-LLaMA-13B | 512", "training_hours", 258, None),
        ("Supplementary Table 1", "CAML | 512", "evaluation_steps_per_second", 98.53, None),
        ("Figure 1", "Cohort", "n_test", 26244, None),
        ("Figure 2a", "Smoothing spline", "df", 6.35, None),
        ("Text", "Training set", "n_labels", 738, None),
    ],
)
def test_published_numbers(table, row, column, value, sd):
    published = pd.read_csv(REFERENCE / "published_tables.csv").set_index(["table", "row", "column"])
    assert published.index.is_unique
    found = published.loc[(table, row, column)]
    assert found["value"] == value and (pd.isna(found["sd"]) if sd is None else found["sd"] == sd)


def test_published_numbers_agree_with_each_other():
    published = (
        pd.read_csv(REFERENCE / "published_tables.csv").set_index(["table", "row", "column"])["value"].sort_index()
    )
    llama = published["Table 1", "DRG-LLaMA-7B | All DRGs"]
    for model, gain in {"ClinicalBERT": 40.3, "CAML": 35.7}.items():  # as the abstract says
        macro_f1 = published["Table 1", f"{model} | All DRGs", "macro_f1"]
        assert round(100 * (llama["macro_f1"] / macro_f1 - 1), 1) == gain
        assert published["Text", f"Against {model}", "macro_f1_gain_percent"] == gain
    for drg_set in ("Top 300", "Top 50", "Top 30"):
        row = published["Table 1", f"DRG-LLaMA-7B | {drg_set} DRGs"]
        assert round(100 * row["n_cases"] / llama["n_cases"], 1) == row["percent_cases"]
    # The 7B model at 512 tokens stands in Tables 1 and 2 alike.
    same = published["Table 2", "DRG-LLaMA-7B | 512"]
    assert llama[same.index].equals(same)
