"""The pages, from the tiny study's results and a made-up executed notebook."""

import html
import json
import os
import re
import shutil
from html.parser import HTMLParser
from pathlib import Path

import nbformat
import pandas as pd
import pytest
from made_report import run_by_hand

from drgstudy import provenance, report, study

NOTEBOOK = study.places.NOTEBOOKS / "06-results.ipynb"


@pytest.fixture
def executed(paths, monkeypatch, tmp_path):
    """Two of three notebooks as papermill leaves them, with a figure, and a page of an earlier report beside them."""
    monkeypatch.setattr(study.places, "NOTEBOOKS", tmp_path)
    (tmp_path / "params" / "tiny").mkdir(parents=True)
    for file in (NOTEBOOK, NOTEBOOK.with_name("studies.yaml")):
        shutil.copy(file, tmp_path)
    for step in ("05-train-llama", "06-results", "07-two-labels"):
        (tmp_path / "params" / "tiny" / f"{step}.yaml").touch()
    image = nbformat.v4.new_output("display_data", {"image/png": "iVBORw0KGgo="})
    # A progress bar, which needs a script: no result, and so on no page.
    view, state = (f"application/vnd.jupyter.widget-{kind}+json" for kind in ("view", "state"))
    bar = nbformat.v4.new_output("display_data", {view: {"model_id": "1"}, "text/plain": "Loading weights"})
    widgets = {state: {"state": {"1": {"model_name": "HTMLModel", "model_module": "m", "state": {}}}}}
    about = {"papermill": {"parameters": {"run": "llama"}}, "widgets": widgets}
    notebook = nbformat.v4.new_notebook(metadata=about)
    notebook.cells = [
        nbformat.v4.new_markdown_cell("# What does it learn?\n\nprose\n\n## A curve"),
        nbformat.v4.new_code_cell("x = '<b>'", outputs=[bar, image]),
    ]
    paths.executed.mkdir(exist_ok=True)
    nbformat.write(notebook, paths.executed / "05-train-llama.ipynb")
    nbformat.write(notebook, paths.executed / "06-results.ipynb")
    (paths.report / "pages").mkdir(exist_ok=True)
    (paths.report / "pages" / "05-train-gone.html").write_text("old")
    return paths


class Page(HTMLParser):
    """What a browser would fetch, show and complain about."""

    def __init__(self, file: Path):
        super().__init__()
        self.tags, self.text, self.open = [], [], []
        self.feed(file.read_text(encoding="utf-8"))

    def handle_starttag(self, tag, attrs):
        self.tags.append((tag, dict(attrs)))
        if tag not in ("meta", "img", "br", "hr", "link", "input"):
            self.open.append(tag)

    def handle_startendtag(self, tag, attrs):
        self.tags.append((tag, dict(attrs)))

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        self.text.append(data)


def text_of(page: Page) -> str:
    return " ".join(" ".join(page.text).split())


def test_the_papers_page_shows_both_datasets_apart_and_everything_made(executed):
    report.build("tiny")
    file = executed.report / "paper-1.html"
    page, source = Page(file), study.read_json(executed.flow)["source"]["name"]
    text = text_of(page)
    assert page.open == [] and dict(page.tags)["html"]["lang"] == "en" and dict(page.tags)["meta"]
    assert "This is not MIMIC." in text and source in text and "236,192" in text
    numbers = study.read_json(executed.report / "numbers.json")
    for other in numbers["results"]["differences"].values():
        assert other["acc_at_1"]["sentence"] in text and other["macro_f1"]["sentence"] in text
    images = [attributes for tag, attributes in page.tags if tag == "img"]
    assert len(images) == len(list(executed.report.glob("figures/*.png"))) and all(len(i["alt"]) > 20 for i in images)
    shown = re.findall(r'<figure class="([^"]*)" id="([^"]*)">(.*?)</figure>', file.read_text(), re.DOTALL)
    badges = {name: re.search('class="badge">(.*?)<', inside)[1] for _, name, inside in shown}
    assert {name for _, name, _ in shown} >= {"1.T1", "1.F1"} and len(badges) == len(shown)
    for whose, name, inside in shown:
        assert badges[name] == ("MIMIC-IV (published)" if "published" in whose else badges[name])
        assert (
            "published" in whose or "published" in badges[name] or html.unescape(badges[name]) == f"this run: {source}"
        )
        made_here = "text-numbers" in inside
        assert ('href="pages/06-results.html">notebook 06-results' in inside) != made_here


def test_links_lead_somewhere_and_the_index_shows_what_is_compared_at_a_glance(executed):
    report.build("tiny")
    for name in ("index.html", "paper-1.html"):
        page = Page(executed.report / name)
        links = [attributes["href"] for tag, attributes in page.tags if tag == "a"]
        for file, _, place in (link.partition("#") for link in links if not link.startswith("https")):
            target = Page(executed.report / (file or name)) if place else None
            assert (executed.report / (file or name)).exists(), (name, file)
            assert not place or any(attributes.get("id") == place for _, attributes in target.tags), (name, file, place)
    index = (executed.report / "index.html").read_text()
    assert "All trainings, side by side" in index and "DRG-LLaMA" in index and "07-two-labels" in index
    assert re.findall("Table (1[.]T[0-9]+)</a> The", index.replace("\n", " ").replace("  ", " "))[:2] != []
    rows = re.search('<figure class="table published">.*?</figure>', index, re.DOTALL)[0]
    assert rows.count("<tr") == 4 and "Top 30" not in rows and "macro-F1" in rows and "top-10" not in rows


def test_pages_fetch_nothing_and_escape_what_they_quote(executed):
    report.build("tiny")
    pages = list(executed.report.rglob("*.html"))
    names = {"index.html", "paper-1.html", "05-train-llama.html", "06-results.html", "trainings.html"}
    assert {page.name for page in pages} == names  # and none of old
    for file in pages:
        assert not any(word in file.read_text() for word in ("<script", "@import", "Loading weights"))
        page = Page(file)
        for tag, attributes in page.tags:
            assert not attributes.get("src", "").startswith(("http", "//")) and tag not in ("link", "script", "iframe")
            assert not any(name.startswith("on") for name in attributes)
    notebook = Page(executed.report / "pages" / "05-train-llama.html")
    assert [attributes["alt"] for tag, attributes in notebook.tags if tag == "img"] == ["Figure: A curve"]
    assert "'<b>'" in "".join(notebook.text)


def test_building_twice_gives_equal_bytes_and_the_index_is_written_last(executed, monkeypatch):
    report.build("tiny")
    first = {page: page.read_bytes() for page in executed.report.rglob("*.html")}
    written, write = [], report._write
    monkeypatch.setattr(report, "_write", lambda path, text: (written.append(path.name), write(path, text)))
    report.build("tiny")
    assert {page: page.read_bytes() for page in executed.report.rglob("*.html")} == first
    assert written[-1] == "index.html" and not list(executed.report.rglob(".unfinished*"))


def test_numbers_and_costs_of_all_notebooks_are_merged_by_topic(executed):
    file = executed.report / "numbers" / "10-splits.json"
    part = {"numbers": {"known_share": 0.5, "sentences": []}, "text": {"perfect_drgs": 3}, "costs": {"seconds": 2}}
    provenance.write_json(file, part, "10-splits")
    try:
        report.build("tiny")
    finally:
        file.unlink()
    page = " ".join(re.sub("<.*?>", "", (executed.report / "paper-1.html").read_text()).split())
    assert "of its test stays are of a patient who is also" in page and "Under the paper’s split" not in page
    numbers = study.read_json(executed.report / "numbers.json")
    results = study.read_json(file.with_name("06-results.json"))
    assert numbers["results"] == results["numbers"] and numbers["splits"] == part["numbers"]
    assert numbers["text"] == results["text"] | part["text"]
    # What 10-splits does not say counts as credentialed, and the least open part of a study decides.
    unknown = {"results": {"kind": "credentialed", "name": "unknown"}}
    costs = {"splits": {"seconds": 2}, "dataset": unknown, "seconds": {}}
    assert study.read_json(executed.report / "costs.json") == costs
    assert numbers["dataset"] == unknown and results["dataset"]["kind"] == "synthetic"
    text = (
        pd.read_csv(executed.report / "tables" / "printed" / "text-numbers.csv", dtype=str)
        .set_index("Quantity")
        .iloc[:, 1]
    )
    assert text["DRGs with a top-1 accuracy of 100 %"] == "3" and text["Training stays"] == "450"


def test_the_page_says_which_runs_are_released_ones_and_keeps_their_pages(executed, monkeypatch):
    folder = study.places.NOTEBOOKS / "params" / "tiny"
    for name in ("05-train", "06-results", "07-two-labels", "13-try-it"):
        shutil.copy(NOTEBOOK.with_name(f"{name}.ipynb"), study.places.NOTEBOOKS)
    for run, model in (("llama", "llama"), ("tfidf", "tfidf")):
        (folder / f"05-train-{run}.yaml").write_text(f"profile: tiny\nrun: {run}\nmodel: {model}\n")
    for step in ("06-results", "07-two-labels", "13-try-it"):
        (folder / f"{step}.yaml").write_text("profile: tiny\n")
    page = executed.report / "pages" / "05-train-tfidf.html"
    page.write_text("as it was when it was trained")
    monkeypatch.setattr(report, "_is_released", lambda step, profile: step == "05-train-tfidf")
    report.build("tiny")
    shown = Page(executed.report / "index.html")
    text = " ".join(" ".join(shown.text).split())
    assert "Made without training: the predictions of TF-IDF + LR are released ones" in text
    # neither TF-IDF nor 13-try-it, which asks a trained model
    assert re.search(r"Still to come: [^.]*\.", text)[0].replace(" ", "") == "Stilltocome:07-two-labels."
    links = [about["href"] for tag, about in Page(page.with_name("trainings.html")).tags if tag == "a"]
    assert page.read_text() == "as it was when it was trained" and "05-train-tfidf.html" in links


def test_each_study_has_its_part_and_may_stand_alone(executed):
    first, second = (executed.report / "numbers" / f"{name}.json" for name in ("06-results", "21-early-cohort"))
    flow = {system: [{"step": "stays", "kept": kept, "removed": 0}] for system, kept in (("ms", 1234), ("apr", 5678))}
    cohort = {"dataset": {"kind": "synthetic", "name": "synthetic ICU", "fingerprint": "f"}, "stays_fingerprint": "s"}
    cohort |= {"flow": flow, "mean_words": {"hour 24": 81.0, "hour 48": 108.0}}
    report.build("tiny")
    assert (
        "This study has not been run yet: <code>make early PROFILE=tiny</code>"
        in (executed.report / "index.html").read_text()
    )
    provenance.write_json(second, {"numbers": cohort, "text": {}, "costs": {}}, "21-early-cohort")
    report.build("tiny")
    both = [(executed.report / f"paper-{place}.html").read_text() for place in (1, 2)]
    assert 'id="part-1"' in both[0] and 'id="part-2"' in both[1] and "synthetic ICU" in both[1]
    assert "1,234 stays in intensive care" in (executed.report / "index.html").read_text()
    first.unlink()
    report.build("tiny")
    alone = Page(executed.report / "index.html")
    ids = {attributes.get("id") for _, attributes in alone.tags}
    assert alone.open == [] and "DRG-LLaMA is rerun" not in text_of(alone)
    assert [file.name for file in executed.report.glob("paper-*.html")] == ["paper-2.html"]
    links = [attributes["href"][1:] for tag, attributes in alone.tags if tag == "a" and attributes["href"][0] == "#"]
    assert set(links) <= ids
    assert not list(executed.report.glob("pages/05*")) and "results" not in study.read_json(
        executed.report / "numbers.json"
    )


def test_a_study_without_a_language_model_has_its_page(paths, tmp_path, monkeypatch):
    """As profiles easier and harder, whose first run is CAML: it has epochs and tokens, but no base."""
    run_by_hand("06-results", "tiny", monkeypatch, run="mine", runs=["mine", "tfidf"])
    (tmp_path / "params" / "tiny").mkdir(parents=True)
    shutil.copy(NOTEBOOK.with_name("studies.yaml"), tmp_path)
    monkeypatch.setattr(study.places, "NOTEBOOKS", tmp_path)
    report.build("tiny")
    page = (paths.report / "paper-1.html").read_text(encoding="utf-8")
    assert 'id="table-1"' in page and "LLaMA-7B" not in page.partition('id="table-1"')[2].partition("<table")[0]


def test_a_page_that_is_newer_than_its_notebook_stays_and_an_older_one_is_made_again(executed):
    report.build("tiny")
    page, notebook = executed.report / "pages" / "05-train-llama.html", executed.executed / "05-train-llama.ipynb"
    page.write_text("kept")
    report.build("tiny")
    assert page.read_text() == "kept"
    os.utime(page, (1, 1))
    report.build("tiny")
    assert "What does it learn?" in page.read_text() and notebook.is_file()


def test_before_the_results_there_is_no_page_and_an_unknown_profile_is_one_sentence(executed, monkeypatch, tmp_path):
    monkeypatch.setattr(study.places, "ROOT", tmp_path)
    report.build("tiny")
    assert not study.Paths("tiny").report.exists()
    with pytest.raises(study.StudyError, match=r"params/none does not exist; the profiles are the folders beside it"):
        report.build("none")


# --- the notebook's file


def test_notebook_05_is_stored_clean_and_its_parameter_files_are_valid():
    notebook = nbformat.read(NOTEBOOK, 4)
    nbformat.validate(notebook)
    assert notebook.cells[0].source.splitlines()[0].endswith("?")
    assert not any(cell.get("outputs") or cell.get("execution_count") for cell in notebook.cells)
    for file in (study.places.NOTEBOOKS / "params").glob("*/06-results.yaml"):
        assert set(study.read_params(file)) | {"mask_below", "like"} == set(study.notebook_parameters(NOTEBOOK))


def test_the_committed_demo_took_less_memory_than_readme_promises():
    def peaks(costs):
        if isinstance(costs, dict) and "peak_memory_gb" in costs:
            yield costs["peak_memory_gb"]
        for each in costs.values() if isinstance(costs, dict) else costs if isinstance(costs, list) else ():
            yield from peaks(each)

    found = list(peaks(json.loads((study.ROOT / "reports" / "demo" / "costs.json").read_text())))
    said = re.search(
        r"(\d+) GB of\s+memory \(a step of the demo takes (\d+) GB", (study.ROOT / "README.md").read_text()
    )
    assert len(found) > 20 and round(max(found)) == int(said[2]) and max(found) < int(said[1])
