"""A notebook's page from made-up executed notebooks, the page of all trainings, and the exercises that notebooks end with."""

import json
import re
import shutil

import nbformat
import pandas as pd
import pytest
from matplotlib.figure import Figure

from drgstudy import models, notebook_pages, plots, provenance, study, tables, trainings
from drgstudy.predictions import read_predictions, write_predictions
from drgstudy.study import NOTEBOOKS, status

PARAMETERS = """profile = "demo"  # whose
runs = ["a", "b"]  # "a" # or not
settings = {}
level = 0.9
"""


def code(source, *shown, **about):
    outputs = [nbformat.v4.new_output("display_data", data) for data in shown]
    return nbformat.v4.new_code_cell(source, outputs=outputs, metadata=about)


@pytest.fixture
def page(tmp_path):
    """What is shown of a notebook that writes two figures and a table; and the report beside it."""
    plots.save(
        Figure((2, 2), layout="constrained"), tmp_path / "figures", "words", "a hospital", "Eight words <decide>"
    )
    table = tables.write_table(
        pd.DataFrame({"n": [1]}), pd.DataFrame({"n": [1]}), tmp_path / "tables", "of-ms", "a hospital"
    ).to_html()
    picture = {"image/png": "iVBORw0KGgo="}
    cells = [
        nbformat.v4.new_markdown_cell("# Which?\n\nIt asks."),
        code(PARAMETERS, tags=["parameters"]),
        code("# Parameters\nlevel = 0.8", tags=["injected-parameters"]),
        code("from drgstudy import plots"),
        code("x = 1"),
        nbformat.v4.new_markdown_cell(
            "## The `first`\n\nSee [06](06-results.ipynb), [05](05-train.ipynb) or [09](09-errors.ipynb)."
        ),
        code('plots.save(f, paths.figures, "words", d)', picture),
        code('tables.write_table(t, paths.tables, f"of-{system}", d)', {"text/html": table}),
        code("unsaved", picture, {"text/html": "<table border='1'><tr><td>1</td></tr></table>"}),
        code('plots.save(f, paths.figures, "never-made", d)\n"just text"', {"text/plain": "just text"}),
    ]
    given = {"profile": "demo", "level": 0.8, "settings": {"epochs": 2.0, "cuts": [[1, 2]]}}
    notebook = nbformat.v4.new_notebook(cells=cells, metadata={"papermill": {"parameters": given}})
    nbformat.write(notebook, tmp_path / "06-x.ipynb")
    return notebook_pages.content(tmp_path / "06-x.ipynb", tmp_path, {"06-results", "05-train-a"})


def test_parameters_stand_once_and_what_differs_from_the_default_is_marked(page):
    rows = {row["name"]: row for row in page["parameters"]}
    assert list(rows) == ["profile", "runs", "settings", "level"]
    assert [name for name, row in rows.items() if row["changed"]] == ["settings", "level"]
    assert rows["runs"] == {
        "name": "runs",
        "value": "a, b",
        "default": "a, b",
        "what": '"a" # or not',
        "changed": False,
    }
    assert rows["settings"]["value"] == "cuts 1, 2; epochs 2.0" and rows["settings"]["default"] == "none"
    assert rows["level"]["value"] == "0.8" and rows["level"]["default"] == "0.9"
    assert "# whose" not in page["body"] and "# Parameters" not in page["body"]


def test_all_code_is_folded_and_the_setup_once(page):
    folds = re.findall(r'<details class="code"><summary>(\w+)</summary>(.*?)</details>', page["body"], re.DOTALL)
    assert [summary for summary, _ in folds] == ["Setup", "Code", "Code", "Code", "Code"]
    assert "import" in folds[0][1] and ">x<" in folds[0][1]
    assert page["body"].count('class="highlight') == len(folds)


def test_figures_and_tables_are_numbered_and_say_what_they_show(page, tmp_path):
    said = re.findall(r"<(?:figcaption|caption)>(.*?)</(?:figcaption|caption)>", page["body"])
    forms = [form for form in ("svg", "pdf", "png") if (tmp_path / "figures" / f"words.{form}").is_file()]
    links = " · ".join(f'<a href="../figures/words.{form}">{form.upper()}</a>' for form in forms)
    assert said[0] == f"<b>06.F1</b> Eight words &lt;decide&gt; Data: a hospital. {links}" and len(forms) >= 2
    assert said[1] == '<b>06.T1</b> The first. <a href="../tables/of-ms.csv">CSV</a> a hospital'
    assert said[2:] == ["<b>06.F2</b> The first.", "<b>06.T2</b> The first."] and page["body"].count("<figure") == 2
    places = re.findall(r'id="(06\.\w+)"', page["body"])
    assert places == ["06.F1", "06.T1", "06.F2", "06.T2"]


def test_contents_files_and_links_lead_somewhere(page):
    assert [str(heading) for _, heading in page["contents"]] == ["The <code>first</code>"]
    assert all(f'id="{place}"' in page["body"] for place, _ in page["contents"])
    shown = {kind: re.findall(">(.*?)<", " ".join(files)) for kind, files in page["writes"].items()}
    assert shown["figures"][0] == "words" and shown["tables"][0] == "of-ms" and "never-made" not in str(page["writes"])
    assert '<a href="06-results.html">06</a>, <a href="trainings.html">05</a> or 09.' in page["body"]
    assert "<h1" not in page["body"] and "It asks." in page["body"]


# --- all trainings


def test_trainings_stand_side_by_side_with_what_is_unlike_their_model(paths, tmp_path):
    made = read_predictions(paths.runs / "llama")
    right = (made.logits.argmax(1) == made.truth).mean()
    history = [
        {"epoch": epoch, "eval_loss": 1.0, "eval_accuracy": score} for epoch, score in ((1, 0.2), (2, 0.5), (3, 0.5))
    ]
    for run, tokens in (("a", 64), ("b", 64), ("c", 32)):
        about = made.run | {
            "run": run,
            "settings": {"max_tokens": tokens, "epochs": 3.0, "base": "/models/me/llama-7b"},
        }
        about["cost"] = {"fit_seconds": 90.0, "history": history}
        write_predictions(tmp_path / run, type(made)(made.stay_ids, made.truth, made.labels, made.logits, about))
        shutil.copytree(tmp_path / run, paths.runs / run)
    runs = {f"05-train-{run}": run for run in ("a", "b", "c", "gone")}
    table = trainings.overview(paths, runs, mask_below=11)
    assert table["Unlike most of its model"].tolist() == ["", "", "max_tokens 32", "–"]
    assert table.loc["05-train-a"].drop("Run").tolist() == ["a", "", "3", "2", "1.5", f"{right:.3f}"]
    assert table.loc["05-train-gone"].tolist() == ["gone", "gone", *"–––––"]
    (paths.runs / "b" / "predictions.npz").write_bytes(b"damaged")
    few = study.read_json(paths.source) | {"kind": "credentialed"}
    provenance.write_json(paths.source, few, "01-hospital", [], few)
    table = trainings.overview(paths, runs, mask_below=1000)
    assert table["Score"].tolist() == ["–"] * 4 and table.loc["05-train-b", "Minutes"] == "1.5"


def test_the_last_hour_of_each_fold_counts(tmp_path):
    for place in ("fold-1/hour-24", "fold-1/hour+00", "fold-1/hour+48", "fold-2/hour+48", "fold-2/hour+00"):
        study.write_json(tmp_path / "a" / place / "run.json", {"place": place})
    study.write_json(tmp_path / "w" / "fold-1" / "run.json", {"place": "w"})
    told = {
        run: [record["place"] for record in trainings._records(tmp_path / run).values()] for run in ("a", "w", "gone")
    }
    assert told == {"a": ["fold-1/hour+48", "fold-2/hour+48"], "w": ["w"], "gone": []}


def test_what_a_training_cost_is_printed_with_units():
    shown = trainings.spent(
        {"a": {"train_steps": 2214.0, "peak_memory_gb": 1.234, "history": []}, "b": {"train_steps": 7}}
    )
    assert shown.loc["steps"].tolist() == ["2,214", "7"] and shown.loc["peak memory"].tolist() == ["1.23 GB", "–"]
    assert len(shown) == 2


# --- 00-index


def test_the_index_says_which_steps_are_made_and_how_long_they_took(monkeypatch, tmp_path):
    monkeypatch.setattr(study.places, "ROOT", tmp_path)
    files = sorted((NOTEBOOKS / "params" / "smoke").glob("05-train-*.yaml"))
    paths = study.Paths("smoke")
    for file in [*files[1:], NOTEBOOKS / "params" / "smoke" / "06-results.yaml"]:
        study.write_json(paths.executed / f"{file.stem}.ipynb", {})
        study.outlook.note(file.stem, paths, 60)
    n = len(files)
    shown = status.shown("smoke").data
    assert f"| [05-train](05-train.ipynb) | {n - 1} of {n} | {n - 1:.1f} |" in shown
    assert "| [06-results](06-results.ipynb) | ✓ | 1.0 |" in shown
    assert "| [07-two-labels](07-two-labels.ipynb) | missing | – |" in shown
    monkeypatch.setenv("DRGSTUDY_PROGRESS", "/dev/null")
    assert "|" not in status.shown("smoke").data  # the report's page would be out of date at once


def test_every_notebook_is_linked_from_the_map():
    cells = nbformat.read(NOTEBOOKS / "00-index.ipynb", 4).cells
    linked = re.findall(r"^\| \[(.*?)\]\((.*?)\.ipynb\) \|", "\n".join(cell.source for cell in cells), re.MULTILINE)
    assert [name for name, _ in linked] == [place for _, place in linked]
    assert {place for _, place in linked} | {"00-index"} == {file.stem for file in NOTEBOOKS.glob("*.ipynb")}


def test_the_first_change_of_the_index_changes_figure_2a_and_trains_nothing(paths, monkeypatch):
    """As 00-index says it: one value of 06-results set by hand, all cells run."""
    said = "".join(cell.source for cell in nbformat.read(NOTEBOOKS / "00-index.ipynb", 4).cells)
    path = said.partition("## A first change")[2].partition("\n## ")[0]
    (name,), (change,) = re.findall(r"Open \[.*?\]\((.*?)\.ipynb\)", path), re.findall(r"set `(run = .*?)`", path)
    monkeypatch.setenv("DRGSTUDY_PROGRESS", "/dev/null")
    monkeypatch.setenv("DRGSTUDY_PROGRESS_SECONDS", "1")
    before = {file: study.fingerprint(file) for file in sorted(paths.data.rglob("*")) if file.is_file()}
    drawn = (paths.figures / "figure-2a.svg").read_bytes()
    names = {"display": lambda *shown: None}
    for cell in nbformat.read(NOTEBOOKS / f"{name}.ipynb", 4).cells:
        if cell.cell_type == "code":
            exec(cell.source.replace("import Markdown, display", "import Markdown"), names)
        if "parameters" in cell.metadata.get("tags", []):
            names |= {"profile": "tiny", "runs": ["llama", "tfidf", "mine"], "resamples_interval": 60}
            exec(change, names)
    assert (paths.figures / "figure-2a.svg").read_bytes() != drawn
    told = study.read_json(paths.report / "numbers" / f"{name}.json")["numbers"]
    assert told["run"] == "tfidf" and set(told["differences"]) == {"llama", "mine"}
    assert {file: study.fingerprint(file) for file in sorted(paths.data.rglob("*")) if file.is_file()} == before


# --- exercises

EXERCISE = re.compile(r"^\*\*(\d)\.\*\* (.+?)(?=^\*\*\d\.\*\*|\Z)", re.MULTILINE | re.DOTALL)
FOLDS = r"(?s)<details><summary>Hint</summary>\n\n(.+?)\n\n</details>\n<details><summary>What to expect</summary>\n\n(.+?)\n\n</details>\s*"
BOOKS = {file.stem: json.loads(file.read_text(encoding="utf-8"))["cells"] for file in sorted(NOTEBOOKS.glob("*.ipynb"))}


def exercises(name: str) -> list[str]:
    cell = next("".join(cell["source"]) for cell in reversed(BOOKS[name]) if cell["cell_type"] == "markdown")
    assert cell.startswith("## Try it\n")
    return [text for _, text in EXERCISE.findall(cell)]


@pytest.mark.parametrize("name", BOOKS)
def test_each_notebook_ends_with_exercises_that_have_a_hint_and_an_expected_result(name):
    found = exercises(name)
    assert 2 <= len(found) <= 4
    for text in found:
        question, folds = text.split("\n\n", 1)
        assert "?" in question and re.fullmatch(FOLDS, folds), text


@pytest.mark.parametrize("name", BOOKS)
def test_exercises_name_only_parameters_runs_and_settings_that_there_are(name):
    known = study.notebook_parameters(NOTEBOOKS / f"{name}.ipynb")
    text = "\n".join(exercises(name))
    for parameter in re.findall(r"[Ss]et `(\w+)` to", text):
        assert parameter in known or any(
            parameter in study.notebook_parameters(file) for file in NOTEBOOKS.glob("*.ipynb")
        )
    folder = NOTEBOOKS / "params" / "demo"
    for base in re.findall(r"like: (\d\d-[\w-]+)|like = \"(\d\d-[\w-]+)", text):
        assert (folder / f"{''.join(base)}.yaml").is_file()
    for like, settings in re.findall(r"`like: (\d\d-[\w-]+)`, below `settings:` `(\w+):", text):
        values = study.read_params(folder / f"{like}.yaml")
        assert settings in vars(models.module(values["model"]).Settings())
    for run in re.findall(r"[Ss]et `run` to \"([\w-]+)\"", text):
        assert run.startswith("my-") or any(folder.glob(f"*-train-{run}.yaml"))
    for snippet in re.findall(r"`([^`]+)`", text.replace("\n", " ")):
        if re.search(r"[a-z\])]\(|\w\[| = ", snippet):
            compile(snippet, name, "exec")


def test_code_cells_are_short_and_show_no_dict_and_no_bare_text():
    for name, cells in BOOKS.items():
        for cell in cells:
            lines = "".join(cell["source"]).splitlines()
            if cell["cell_type"] == "code" and lines:
                assert len(lines) <= 16 or name == "13-try-it", (name, lines)
                assert not re.match(r"""f?["'](?!"")|\{""", lines[-1]) or "credentialed" in lines[-1], (name, lines[-1])
