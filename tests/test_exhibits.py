"""Tables and figures as the pages show them, and the sentences of the first screen, by hand-worked cases."""

import json
from fnmatch import fnmatchcase

import pandas as pd
import pytest
from PIL import Image
from PIL.PngImagePlugin import PngInfo

from drgstudy import exhibits, headline, study

CODE = """
# a comment with write_table(x, y, "no-table")
for system in ("ms", "apr"):
    tables.write_table(table, paths.tables, f"cohort-{system}", dataset)
plots.save(plots.bars(table, "stays"), folder, "words", dataset)
display(plots.save(figure, paths.figures, name, dataset))
"""


@pytest.fixture
def shown(tmp_path):
    """A report of two tables and a figure, of which one notebook wrote two."""
    report, notebooks = tmp_path / "report", tmp_path / "notebooks"
    for folder in (report / "tables" / "printed", report / "figures", notebooks):
        folder.mkdir(parents=True)
    cell = {"cell_type": "code", "source": CODE.splitlines(keepends=True)}
    (notebooks / "21-cohort.ipynb").write_text(json.dumps({"cells": [cell]}))
    sets = pd.DataFrame({"Model": ["A", "A"], "DRG set": ["All DRGs", "MDC 05"], "macro-F1": ["0.10 (0.01)", "–"]})
    sets["Remark"] = ["a sentence that is far longer than a cell of numbers", "–"]
    for folder in (report / "tables", report / "tables" / "printed"):
        sets.assign(dataset="synthetic").to_csv(folder / "cohort-ms.csv", index=False)
        sets.assign(dataset="MIMIC-III (published)").to_csv(folder / "other.csv", index=False)
    about = PngInfo()
    about.add_text("Source", "synthetic")
    Image.new("RGB", (600, 300)).save(report / "figures" / "words.png", dpi=(300, 300), pnginfo=about)
    (report / "figures" / "words.pdf").touch()
    return exhibits.Exhibits(report, notebooks, {"21-cohort": "pages/21-cohort.html"})


def test_numbers_follow_the_order_of_the_page_and_other_pages_refer_to_them(shown):
    show = shown.on("paper-2.html", 2)
    numbers = [
        show(kind, key)["number"] for kind, key in (("tables", "other"), ("figures", "words"), ("tables", "cohort-ms"))
    ]
    assert numbers == ["2.T1", "2.F1", "2.T2"] and show("tables", "none") is None
    first, again = shown.refer("tables", "cohort-ms"), show("tables", "cohort-ms")
    assert first["home"] == "paper-2.html#2.T2" and not first["is_new"]
    assert again["home"] == "#2.T2" and not again["is_new"] and shown.shown("tables") == {"other", "cohort-ms"}


def test_links_name_files_that_are_there_and_the_notebook_whose_code_writes_them(shown):
    show = shown.on("paper-2.html", 2)
    notebook = {"notebook 21-cohort": "pages/21-cohort.html"}
    assert (
        show("tables", "cohort-ms")["links"]
        == {"CSV": "tables/cohort-ms.csv", "as printed": "tables/printed/cohort-ms.csv"} | notebook
    )
    assert show("figures", "words")["links"] == {"PDF": "figures/words.pdf"} | notebook
    assert show("tables", "other")["links"] == {"CSV": "tables/other.csv", "as printed": "tables/printed/other.csv"}
    assert [shown.made_by(key) for key in ("cohort-apr", "cohort", "no-table", "stays")] == ["21-cohort", "", "", ""]


def test_a_table_knows_whose_it_is_and_which_columns_are_words(shown):
    show = shown.on("paper-2.html", 2)
    ours, theirs = show("tables", "cohort-ms"), show("tables", "other")
    assert (ours["whose"], ours["badge"]) == ("run", "this run: synthetic")
    assert (theirs["whose"], theirs["badge"]) == ("published", "MIMIC-III (published)")
    assert dict(ours["columns"]) == {"Model": "", "DRG set": "words", "macro-F1": "", "Remark": "words prose"}
    brief = exhibits.glance(ours)
    assert [name for name, _ in brief["columns"]] == ["Model", "macro-F1"] and brief["rows"] == [["A", "0.10 (0.01)"]]
    assert (show("figures", "words")["width"], show("figures", "words")["height"]) == (240, 120)


def test_every_table_and_figure_of_the_notebooks_has_one_maker():
    """`makers` knows each name that the notebooks write, and no two notebooks write the same."""
    found = exhibits.makers(study.NOTEBOOKS)
    for key, notebook in {
        "table-1": "06-results",
        "words": "12-why",
        "early-table-1-published-ms": "21-early-cohort",
    }.items():
        assert {of for pattern, of in found if fnmatchcase(key, pattern)} == {notebook}


# --- the first screen
def claim(**about) -> dict:
    plain = {"claim": "a is above b", "place": "Table 1", "family": "secondary", "direction": "above", "bound": 0.0,
             "unit": "score", "verdict": "undecided", "note": ""}  # fmt: skip
    return plain | about


def test_the_primary_claims_are_told_or_else_those_of_the_abstract():
    measured = {"value": 0.05, "lower": -0.01, "upper": 0.11, "published": 0.094}
    part = {
        "llama-caml-f1": claim(family="primary", verdict="not applicable here", note="no run"),
        "llama-bert-f1": claim(family="primary", **measured),
        "auc-high": claim(),
    }
    first, second = headline.verdicts(part)  # in the order of claims.csv
    assert first["found"] == "+0.050 (95 % interval −0.010 to +0.110) here, +0.094 published"
    assert (second["verdict"], second["found"]) == ("not applicable here", "no run")
    early = {"cmi-ms-24": claim(place="Abstract", **measured), "notes-ms-f1": claim()}
    assert len(headline.verdicts(early)) == 1


@pytest.mark.parametrize(
    ("lower", "upper", "said"),
    [(-1, 2, "it can’t be told which"), (1, 2, "the guess is nearer"), (-2, -1, "the models are nearer")],
)
def test_the_index_stands_beside_a_guess_that_reads_nothing(lower, upper, said):
    found = {
        "models": {"value": 2.5},
        "guess": {"value": 1.25},
        "change": {"value": 1.25, "lower": lower, "upper": upper},
    }
    sentences = headline.plainest({"case_mix": {"against_guess": {"ms": {"24": found, "48": found}}}})
    assert len(sentences["early_cohort"]) == 1 and said in sentences["early_cohort"][0]
    told = "MS-DRGs after 24 hours is off by 2.5 % with the models, and by 1.2 % with a guess that reads nothing"
    assert told in sentences["early_cohort"][0]


def test_accuracy_stands_beside_the_plainest_model_and_a_masked_one_is_a_dash():
    models = {"llama": {"name": "LLaMA"}, "tfidf": {"name": "TF-IDF"}}
    table = {"llama": {"All DRGs": {}}, "tfidf": {"All DRGs": {"acc_at_1": {"value": 0.5}}}}
    results = {
        "run": "llama",
        "models": models,
        "table_1": table,
        "differences": {"tfidf": {"acc_at_1": {"sentence": "A tie."}}},
    }
    assert headline.plainest({"results": results})["results"] == [
        "TF-IDF names 50.0 % of the test stays right, LLaMA –. A tie."
    ]
