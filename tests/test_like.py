"""Parameters said once: a file that is like another, by make, by papermill alone and by hand; and what is refused."""

import json
import os
import shutil
import subprocess
import sys

import nbformat
import pytest
import yaml
from nbclient import NotebookClient

from drgstudy import study
from drgstudy.study import ROOT, StudyError, read_params

PARAMETERS = """profile = "mine"
like = ""
run = "tfidf"
model = "tfidf"
labels = "one"
settings = {}
hours = [48]
seed = 42
"""
FILES = {
    "05-train-a": {"run": "a", "model": "llama", "labels": "two", "settings": {"x": 1, "y": 2}, "hours": [24, 48], "seed": 1},
    "05-train-b": {"run": "b", "like": "05-train-a", "labels": "one", "settings": {"y": 3}},  # back to the default
    "05-train-c": {"run": "c", "like": "05-train-b", "seed": 7, "hours": [12]},
    "05-train-d": {"run": "d", "like": "mine/05-train-a", "model": "bert"},
}  # fmt: skip
A = {"model": "llama", "labels": "two", "settings": {"x": 1, "y": 2}, "hours": [24, 48], "seed": 1}
RESOLVED = {
    "05-train-b": A | {"run": "b", "labels": "one", "settings": {"x": 1, "y": 3}},
    "05-train-c": A | {"run": "c", "labels": "one", "settings": {"x": 1, "y": 3}, "hours": [12], "seed": 7},
    "05-train-d": A | {"run": "d", "model": "bert"},
}


@pytest.fixture
def notebook(tmp_path, monkeypatch):
    """A study of one notebook, in a git repository, that says its parameters; and its parameter files."""
    monkeypatch.setattr(study.places, "ROOT", tmp_path)
    monkeypatch.setattr(study.places, "NOTEBOOKS", tmp_path / "notebooks")
    monkeypatch.setenv("PYTHONPATH", str(ROOT / "lib"))
    setup = f"import json\nfrom pathlib import Path\nfrom drgstudy import study\nstudy.places.NOTEBOOKS = Path({str(study.places.NOTEBOOKS)!r})"
    cells = [
        nbformat.v4.new_code_cell(setup),
        nbformat.v4.new_code_cell(PARAMETERS, metadata={"tags": ["parameters"]}),
        nbformat.v4.new_code_cell('globals().update(study.resolved("05-train", globals()))'),
        nbformat.v4.new_code_cell('print(json.dumps([run, model, labels, settings, hours, seed]))'),
    ]  # fmt: skip
    file = study.places.NOTEBOOKS / "05-train.ipynb"
    (study.places.NOTEBOOKS / "params" / "mine").mkdir(parents=True)
    kernel = {"name": "python3", "display_name": "Python 3", "language": "python"}
    nbformat.write(nbformat.v4.new_notebook(cells=cells, metadata={"kernelspec": kernel}), file)
    shutil.copy(ROOT / "notebooks" / "studies.yaml", study.places.NOTEBOOKS)
    for name, values in FILES.items():
        write(name, values)
    for command in (["init", "-q"], ["add", "."], ["-c", "user.name=x", "-c", "user.email=x", "commit", "-qm", "x"]):
        subprocess.run(["git", *command], cwd=tmp_path, check=True)
    return file


def write(name, values):
    file = study.places.NOTEBOOKS / "params" / "mine" / f"{name}.yaml"
    file.write_text(yaml.safe_dump({"profile": "mine"} | values))
    return file


def said(executed):
    """The parameters that the notebook had in the end, and what it printed before that."""
    run, *rest = json.loads(executed.cells[-1].outputs[0].text)
    before = "".join(output.text for output in executed.cells[-2].outputs)
    return {"run": run} | dict(zip(("model", "labels", "settings", "hours", "seed"), rest, strict=True)), before


@pytest.mark.parametrize("name", ["05-train-b", "05-train-c"])
def test_make_and_papermill_alone_agree(notebook, name, tmp_path):
    params = study.places.NOTEBOOKS / "params" / "mine" / f"{name}.yaml"
    executed = nbformat.read(study.run_notebook(params), 4)
    assert said(executed) == (RESOLVED[name], "")
    injected = next(cell for cell in executed.cells if "injected-parameters" in cell.metadata.get("tags", []))
    assert all(f"{key} = {value!r}".replace("'", '"') in injected.source for key, value in RESOLVED[name].items())
    command = [
        "-m",
        "papermill",
        "-k",
        "python3",
        "-f",
        params,
        notebook,
        tmp_path / "alone.ipynb",
        "--no-progress-bar",
    ]
    subprocess.run([sys.executable, *command], cwd=study.places.NOTEBOOKS, check=True, capture_output=True)
    values, printed = said(nbformat.read(tmp_path / "alone.ipynb", 4))
    assert values == RESOLVED[name] and printed.startswith(f"taken from {FILES[name]['like']}: ")


@pytest.mark.parametrize("saved", [False, True])
@pytest.mark.parametrize("name", ["05-train-c", "05-train-d"])
def test_by_hand_too_even_where_jupyter_has_saved_the_change(notebook, name, saved):
    values = FILES[name]
    by_hand = nbformat.read(notebook, 4)
    lines = [line.split(" = ")[0] for line in PARAMETERS.splitlines()]
    default = dict(line.split(" = ") for line in PARAMETERS.splitlines())
    by_hand.cells[1].source = "\n".join(
        f"{key} = {values[key]!r}" if key in values else f"{key} = {default[key]}" for key in lines
    )
    if saved:
        nbformat.write(by_hand, notebook)
    NotebookClient(
        by_hand, kernel_name="python3", resources={"metadata": {"path": str(study.places.NOTEBOOKS)}}
    ).execute()
    found, printed = said(by_hand)
    assert found == RESOLVED[name] and f"taken from {values['like']}: " in printed


def test_by_hand_a_default_gives_way_and_that_is_said(notebook, capsys):
    """What a person leaves as it stands can't be told from what is meant to be so: it is printed."""
    values = study.notebook_parameters(notebook) | {"like": "05-train-a", "run": "b", "settings": {"y": 3}}
    assert study.resolved("05-train", values)["labels"] == "two"
    assert "labels = 'two'" in capsys.readouterr().out


def test_a_training_by_hand_never_takes_the_name_of_the_run_that_it_is_like(notebook):
    values = study.notebook_parameters(notebook) | {"like": "05-train-a", "settings": {"x": 5}}
    found = study.resolved("05-train", values)
    assert found["run"] == values["run"] != "a" and found["settings"] == {"x": 5, "y": 2}


def test_without_like_nothing_is_looked_up(monkeypatch):
    monkeypatch.setattr(study.places, "NOTEBOOKS", None)
    assert study.resolved("05-train", {"like": ""}) == {}


@pytest.mark.parametrize(
    ("values", "says"),
    [
        ({"like": "05-train-z"}, "parameter like: '05-train-z' is not a parameter file of 05-train.ipynb"),
        ({"like": "../other/05-train-a"}, "is not a parameter file of 05-train.ipynb; name one of the same folder"),
        ({"like": "/etc/passwd"}, "is not a parameter file"),
        ({"like": "05-train-a.yaml"}, "is not a parameter file"),
        ({"like": 3}, "parameter like: expected str"),
        ({"like": "05-train-x"}, "parameter like: '05-train-x' is, by way of others, like this file itself"),
        ({"like": "05-train-a", "settngs": {}}, "unknown parameter 'settngs'"),
        ({"like": "05-train-a", "run": "y"}, "parameter run is 'y', but the file's name says another run"),
        ({"like": "05-train-e"}, "unknown parameter 'modle'"),
    ],
)  # fmt: skip
def test_what_is_refused_names_the_file(notebook, values, says):
    write("05-train-e", {"run": "e", "modle": "llama"})
    file = write("05-train-x", {"run": "x"} | values)
    with pytest.raises(StudyError) as error:
        read_params(file)
    assert says in str(error.value) and "\n" not in str(error.value)
    assert str(file) in str(error.value) or "05-train-e.yaml" in str(error.value)


def test_a_circle_of_several_is_found_wherever_one_comes_in(notebook):
    for name, like in (("x", "y"), ("y", "z"), ("z", "x"), ("w", "x")):
        write(f"05-train-{name}", {"run": name, "model": "llama", "like": f"05-train-{like}"})
    for name in "wxyz":
        with pytest.raises(StudyError, match="like this file itself"):
            read_params(study.places.NOTEBOOKS / "params" / "mine" / f"05-train-{name}.yaml")


def test_a_base_belongs_to_the_same_notebook(notebook):
    nbformat.write(nbformat.read(notebook, 4), notebook.with_name("06-results.ipynb"))
    write("06-results", {"run": "a"})
    with pytest.raises(StudyError, match=r"'06-results' is not a parameter file of 05-train\.ipynb"):
        read_params(write("05-train-x", {"run": "x", "like": "06-results"}))


def test_each_notebook_asks_for_its_own_parameters():
    for file in study.places.NOTEBOOKS.glob("*.ipynb"):
        sources = ["".join(cell["source"]) for cell in json.loads(file.read_text())["cells"]]
        assert f'globals().update(study.resolved("{file.stem}", globals()))' in "\n".join(sources)
        assert study.notebook_parameters(file)["like"] == ""


def test_no_value_is_said_twice():
    """What a file that is like another says is not what the other says already."""
    for file in (ROOT / "notebooks" / "params").glob("*/*.yaml"):
        given = study.own_params(file)
        if like := given.pop("like", ""):
            base = read_params(study.base_of(file, like))
            said = {key: value for key, value in given.items() if key not in ("profile", "run", "settings")}
            same = [key for key, value in said.items() if base.get(key) == value]
            same += [
                key for key, value in given.get("settings", {}).items() if base.get("settings", {}).get(key) == value
            ]
            assert not same, (os.path.relpath(file, ROOT), same)
