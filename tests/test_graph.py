"""What each step reads: for every file of the library, notebook, parameter file and table, exactly what reads it runs again."""

import ast
import functools
import json
import os
import re
import shutil
import subprocess
import sys
from modulefinder import ModuleFinder

import pytest
import yaml

from drgstudy import study
from drgstudy.study import NOTEBOOKS, REFERENCE, ROOT, StudyError, graph

LIBRARY = sorted(graph.LIBRARY.rglob("*.py"))
PROFILES = sorted(folder.name for folder in (NOTEBOOKS / "params").iterdir())


@functools.cache
def waits(profile="demo"):
    """What each step waits for, as make reads it: steps by name, files by path."""
    found = {}
    for line in graph.rules(profile).splitlines():
        if step := re.match(rf"data/{profile}/executed/(.*)\.ipynb: (.*)", line):
            names = [re.sub(r".*/executed/(.*)\.ipynb", r"\1", name) for name in step[2].split()]
            found[step[1]] = {name for name in names if name != "FORCE"}
    return found


def again(file, profile="demo"):
    """The steps that run again when a file is touched."""
    steps, due, more = waits(profile), set(), {str(file.relative_to(ROOT))}
    while more:
        more = {step for step, read in steps.items() if read & more} - due
        due |= more
    return due


def readers(file):
    """The steps that read a file themselves."""
    return {step for step, read in waits().items() if str(file.relative_to(ROOT)) in read}


@functools.cache
def imported(notebook, *more):
    """The files of ours that Python itself would load for a notebook: an independent reading, of its byte code."""
    code = ROOT / "data" / ".imports.py"
    finder = ModuleFinder(path=[str(ROOT / "lib")])
    lines = [graph.notebook_code(notebook), *(f"import drgstudy.models.{model}" for model in more)]
    code.write_text("\n".join(lines))
    try:
        finder.run_script(str(code))
    finally:
        code.unlink()
    return {module.__file__ for module in finder.modules.values() if module.__file__} - {str(code)}


@pytest.mark.parametrize("file", LIBRARY, ids=lambda file: str(file.relative_to(graph.LIBRARY)))
def test_a_module_is_read_by_the_steps_that_import_it(file):
    expected = set()
    for name, step in graph.steps("demo").items():
        model = [step.values["model"]] if step.is_training else []
        if str(file) in imported(study.notebook_of(step.params), *model):
            expected.add(name)
    assert readers(file) == expected


@pytest.mark.parametrize("file", sorted(NOTEBOOKS.glob("*.ipynb")), ids=lambda file: file.stem)
def test_a_notebook_is_read_by_its_own_steps(file):
    assert readers(file) == {name for name in waits() if name == file.stem or name.startswith(f"{file.stem}-train-")
                             or (name.startswith(f"{file.stem}-") and "-train-" in name)}  # fmt: skip


@pytest.mark.parametrize("file", sorted(REFERENCE.rglob("*.*")), ids=lambda file: file.name)
def test_a_table_is_read_by_the_steps_whose_code_names_it(file):
    """By plain search, in the modules that a step waits for and in its notebook."""
    expected = set()
    for name, read in waits().items():
        texts = [
            (ROOT / place).read_text()
            for place in read
            if place.endswith((".py", ".ipynb")) and "executed" not in place
        ]
        if any(re.search(rf"""["'\\]{re.escape(file.name)}["'\\]""", text) for text in texts):
            expected.add(name)
    assert readers(file) == expected


CHILDREN = {  # of the demo's parameter files those that others are like
    "05-train-llama": {"05-train-llama-32", "05-train-llama-64", "05-train-llama-known", "05-train-llama-patients",
                       "05-train-llama-small", "05-train-llama-small-32", "05-train-llama-small-64", "05-train-llama-two",
                       "05-train-titles", "05-train-tree"},
    "05-train-llama-small": {"05-train-llama-small-32", "05-train-llama-small-64"},
    "05-train-tree": {"05-train-titles"},
    "05-train-caml": {"05-train-caml-known", "05-train-caml-patients"},
    "05-train-tfidf": {"05-train-tfidf-clinicians", "05-train-tfidf-known", "05-train-tfidf-patients"},
    "23-early-train-bert-ms": {"23-early-train-bert-apr"},
    "23-early-train-lstm-ms": {"23-early-train-lstm-apr"},
    "23-early-train-caml-ms": {"23-early-train-caml-apr", "23-early-train-caml-apr-weight", "23-early-train-caml-ms-known",
                               "23-early-train-caml-ms-weight"},
}  # fmt: skip


@pytest.mark.parametrize("file", sorted((NOTEBOOKS / "params" / "demo").glob("*.yaml")), ids=lambda file: file.stem)
def test_a_parameter_file_is_read_by_its_step_and_those_like_it(file):
    assert readers(file) == {file.stem, "00-index"} | CHILDREN.get(file.stem, set())


def test_a_file_of_another_profile_is_read_where_one_is_like_it():
    file = NOTEBOOKS / "params" / "demo" / "05-train-llama.yaml"
    read = {step for step, read in waits("smoke").items() if str(file.relative_to(ROOT)) in read}
    assert read == {"05-train-llama", "05-train-llama-24", "05-train-llama-known", "05-train-llama-patients", "05-train-llama-small",
                    "05-train-llama-small-24", "05-train-llama-two", "05-train-titles", "05-train-tree"}  # fmt: skip


ANALYSES = {"06-results", "08-size-and-length", "10-splits", "11-trust", "12-why"}


@pytest.mark.parametrize(
    ("step", "after"),
    [
        ("02-harmonization", {"01-hospital"}),
        ("03-cohort", {"01-hospital", "02-harmonization"}),
        ("04-hardness", {"01-hospital", "03-cohort"}),
        ("05-train-tfidf", {"03-cohort"}),
        ("05-train-probe", {"03-cohort"}),
        ("05-train-llama-small", {"03-cohort", "05-train-probe"}),
        ("06-results", {"03-cohort", *(f"05-train-{run}" for run in ("llama", "probe", "bert", "caml", "tfidf"))}),
        ("07-two-labels", {"05-train-llama", "05-train-llama-two"}),
        ("09-errors", {"01-hospital", "03-cohort", "05-train-llama"}),
        ("10-splits", {f"05-train-{run}{apart}" for run in ("llama", "caml", "tfidf") for apart in ("", "-known", "-patients")} | {"05-train-tfidf-clinicians"}),
        ("13-try-it", {"05-train-llama"}),
        ("14-claims", {"03-cohort", *(f"05-train-{run}" for run in ("llama", "bert", "caml", "llama-two", "llama-small", "llama-64"))}),
        ("05-train-titles", {"03-cohort", "05-train-probe"}),
        ("19-tree", {"03-cohort", *(f"05-train-{run}" for run in ("tree", "llama", "titles"))}),
        ("18-coder", {"03-cohort", *(f"05-train-{run}" for run in ("llama", "probe", "bert", "caml", "tfidf"))}),
        ("16-time", {"01-hospital", "02-harmonization", "03-cohort"}),
        ("17-served", {"01-hospital", "03-cohort", "05-train-llama"}),
        ("21-early-cohort", {"20-icu"}),
        ("22-measurements", {"20-icu", "21-early-cohort"}),
        ("23-early-train-caml-ms", {"21-early-cohort"}),
        ("23-early-train-lstm-apr", {"21-early-cohort", "22-measurements"}),
        ("25-case-mix", {"21-early-cohort", "23-early-train-caml-ms", "23-early-train-caml-apr"}),
        ("31-early-served", {"20-icu", "21-early-cohort", "23-early-train-caml-ms"}),
        ("28-early-splits", {"21-early-cohort", "23-early-train-caml-ms", "23-early-train-caml-ms-known"}),
        ("29-early-claims", {"21-early-cohort", *(f"23-early-train-{run}" for run in ("caml-ms", "caml-apr", "lstm-ms", "lstm-apr",
                                                                                      "bert-ms", "caml-ms-weight", "caml-apr-weight"))}),
        ("30-early-coder", {"21-early-cohort", *(f"23-early-train-{run}-ms" for run in ("caml", "lstm", "bert", "llama"))}),
    ],
)  # fmt: skip
def test_a_step_waits_for_those_that_write_what_it_reads(step, after):
    assert {name for name in waits()[step] if "/" not in name} == after


@pytest.mark.parametrize("profile", PROFILES)
def test_every_profile_has_a_graph_and_what_is_read_is_written_by_a_step_or_lies_there(profile):
    among = graph.steps(profile)
    assert set(waits(profile)) == set(among)
    for step in among.values():
        for place in step.reads:
            writers = {name for name, other in among.items() if any(graph.fnmatch(has, place) for has in other.writes)}
            assert writers - {step.name} or place.startswith("review/") or list(ROOT.glob(place)), (step.name, place)


# --- make itself ------------------------------------------------------------------------------------------------------
@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    """A copy of the repository in which all steps of the demo have run: each executed notebook is newer than all files."""
    root = tmp_path_factory.mktemp("finished")
    for name in ("lib", "notebooks", "data/reference"):
        shutil.copytree(ROOT / name, root / name, ignore=shutil.ignore_patterns("__pycache__", ".ipynb_checkpoints"))
    shutil.copy(ROOT / "Makefile", root)
    for name in ("requirements.lock", "pyproject.toml"):
        shutil.copy(ROOT / name, root)
        os.utime(root / name, (0, 0))
    made = [f"data/demo/executed/{name}.ipynb" for name in waits()]
    made += [f"reports/demo/numbers/{name}.json" for name in waits()] + ["reports/demo/index.html"]
    for file in root.rglob("*"):
        os.utime(file, (1e9, 1e9))
    for place in made:
        (root / place).parent.mkdir(parents=True, exist_ok=True)
        (root / place).touch()
        os.utime(root / place, (1.1e9, 1.1e9))
    return root


def planned(root, *goals):
    """The steps that make would run for its goals."""
    clean = {key: value for key, value in os.environ.items() if not key.startswith(("MAKE", "MFLAGS", "PYTHONPATH"))}
    command = ["make", "--dry-run", *goals]
    done = subprocess.run(command, cwd=root, env=clean | {"VIRTUAL_ENV": sys.prefix}, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return set(re.findall(r"study notebooks/params/demo/([\w-]+)\.yaml ", done.stdout))


TOUCHED = {  # and how many steps make runs again; which trainings a changed one costs is told by tests/test_runs.py
    "lib/drgstudy/models/gru.py": 0,
    "lib/drgstudy/models/lstm.py": 5,
    "lib/drgstudy/synthetic/hardness.py": 2,
    "notebooks/params/demo/05-train-tfidf-patients.yaml": 3,
    "lib/drgstudy/disclosure.py": 59,
}


@pytest.mark.parametrize("touched", TOUCHED)
def test_make_runs_again_what_reads_a_touched_file(finished, touched):
    file = finished / touched
    new = not file.exists()
    file.touch()
    try:
        ran = planned(finished, "report", "early")
    finally:
        file.unlink() if new else os.utime(file, (1e9, 1e9))
    assert ran == (set() if new else again(ROOT / touched)) and len(ran) == TOUCHED[touched]


def test_any_valid_yaml_is_understood(finished):
    """A list in block style, and a run that nobody named before."""
    file = finished / "notebooks" / "params" / "demo" / "10-splits.yaml"
    before, values = file.read_text(), yaml.safe_load(file.read_text())
    new = file.with_name("05-train-tfidf-again.yaml")
    try:
        file.write_text(
            yaml.safe_dump(values | {"runs": [*values["runs"][:2], "tfidf-again"]}, default_flow_style=False)
        )
        os.utime(file, (1e9, 1e9))
        new.write_text("profile: demo\nrun: tfidf-again\nlike: 05-train-tfidf\n")
        ran = planned(finished, "data/demo/executed/10-splits.ipynb")
    finally:
        file.write_text(before)
        os.utime(file, (1e9, 1e9))
        new.unlink()
    assert ran == {"05-train-tfidf-again", "10-splits"}


def test_a_new_model_is_a_module_a_parameter_file_and_its_name_and_trains_one_run(finished):
    """And a fourth file, its test."""
    module, results = finished / "lib" / "drgstudy" / "models" / "mean.py", "notebooks/params/demo/06-results.yaml"
    params, before = finished / "notebooks" / "params" / "demo" / "05-train-mean.yaml", (finished / results).read_text()
    try:
        module.write_text(
            "from dataclasses import dataclass\nfrom drgstudy.study import setting\n\n"
            "@dataclass(frozen=True)\nclass Settings:\n    size: int = setting(3, 'how much of it')\n\nclass Model: ...\n"
        )
        params.write_text("profile: demo\nrun: mean\nmodel: mean\n")
        (finished / results).write_text(before.replace("tfidf]", "tfidf, mean]"))
        assert planned(finished, "report") == {"00-index", "05-train-mean", "06-results"}
        show = "from drgstudy import models; print(models.module('mean').__name__, models.described('mean', {}).loc['size'].tolist())"
        done = subprocess.run([sys.executable, "-c", show], env=os.environ | {"PYTHONPATH": str(finished / "lib")},
                              capture_output=True, text=True, check=True)  # fmt: skip
        assert done.stdout == "drgstudy.models.mean ['3', 'how much of it']\n"
    finally:
        (finished / results).write_text(before)
        os.utime(finished / results, (1e9, 1e9))
        for file in (module, params):
            file.unlink(missing_ok=True)


# --- what is refused --------------------------------------------------------------------------------------------------
@pytest.fixture
def notebooks(tmp_path, monkeypatch):
    """A copy of the notebooks, and a function that writes a parameter file of the demo there."""
    monkeypatch.setattr(study.places, "NOTEBOOKS", tmp_path / "notebooks")
    shutil.copytree(NOTEBOOKS, study.places.NOTEBOOKS, ignore=shutil.ignore_patterns(".ipynb_checkpoints"))
    return lambda name, text: (study.places.NOTEBOOKS / "params" / "demo" / f"{name}.yaml").write_text(text)


def refused(match):
    with pytest.raises(StudyError, match=match) as error:
        graph.rules("demo")
    assert "\n" not in str(error.value)


def test_what_can_not_be_a_study_is_one_sentence(notebooks):
    with pytest.raises(
        StudyError, match=r"PROFILE=dmeo: there is no folder .*dmeo; the profiles are the folders beside"
    ):
        graph.rules("dmeo")
    notebooks("06-results", "profile: demo\nrun: nobody\nruns: [llama]\n")
    refused(r"06-results\.yaml: no parameter file beside it trains the run 'nobody'")
    notebooks("06-results", "profile: demo\nruns: [llama\n")
    refused(r"06-results\.yaml is not valid YAML")
    notebooks("06-results", "profile: demo\n")
    notebooks("05-train-gpt", "profile: demo\nrun: gpt\nmodel: gpt\n")
    refused(r"05-train-gpt\.yaml: parameter model: there is no models/gpt\.py")


def test_a_notebook_that_does_not_say_what_it_reads_is_named(notebooks):
    file = study.places.NOTEBOOKS / "06-results.ipynb"
    content = json.loads(file.read_text())
    content["cells"][0]["source"] = ["# Which model?"]
    file.write_text(json.dumps(content))
    refused(r"06-results\.ipynb: its first cell does not say what it \*Reads\* and what it \*Writes\*")


@pytest.mark.parametrize(
    "line",
    [
        "from ..training import train",
        "from .. import training",
        "import drgstudy.training as t",
        "def f():\n    from drgstudy import training",
    ],
)
def test_an_import_is_found_however_it_is_written(tmp_path, line):
    library = shutil.copytree(graph.LIBRARY, tmp_path / "drgstudy", ignore=shutil.ignore_patterns("__pycache__"))
    (library / "models" / "mine.py").write_text(line)
    assert "training" in graph.imports(library / "models" / "mine.py", library)


def test_code_that_is_no_python_is_named(tmp_path):
    (tmp_path / "mine.py").write_text("a = 1\nb = = 2\n")
    with pytest.raises(StudyError, match=r"mine\.py is not valid Python: invalid syntax, line 2 of its code"):
        graph.imports(tmp_path / "mine.py")


def test_a_place_with_blanks_is_written_so_that_make_reads_it(tmp_path):
    assert graph._target(tmp_path / "my sheet $1 #2.csv").endswith(r"/my\ sheet\ $$1\ \#2.csv")


def test_the_file_is_written_only_where_it_would_change(tmp_path, monkeypatch):
    file = tmp_path / "rules.mk"
    graph.write("gpu", str(file))
    os.utime(file, (1e9, 1e9))
    graph.write("gpu", str(file))
    assert file.stat().st_mtime == 1e9


# --- rooms
def rooms() -> list[str]:
    return re.findall(r"^    (\w+) ", (graph.LIBRARY / "__init__.py").read_text(), re.MULTILINE)


def test_each_room_is_listed_and_no_private_name_crosses_a_wall():
    files = [file for file in graph.LIBRARY.rglob("*.py") if file != graph.LIBRARY / "__init__.py"]
    order = rooms()
    for file in files:
        room = file.relative_to(graph.LIBRARY).parts[0].removesuffix(".py")
        others = {name.split(".")[0] for name in graph.imports(file)} - {room, "__init__"}
        assert not [other for other in others if order.index(other) > order.index(room)], (
            f"{file} knows a room further down"
        )
    assert sorted(rooms()) == sorted({file.relative_to(graph.LIBRARY).parts[0].removesuffix(".py") for file in files})
    for file in files:
        tree = ast.parse(file.read_text(encoding="utf-8"))
        named = [alias.name for node in ast.walk(tree) if isinstance(node, ast.ImportFrom) for alias in node.names]
        assert not [name for name in named if name.startswith("_")], file
    assert max(len(file.read_text(encoding="utf-8").splitlines()) for file in files) <= 450


def test_the_list_of_studies_is_read_by_the_map_and_by_the_page():
    lines = [line for line in graph.rules("demo").splitlines() if "notebooks/studies.yaml" in line]
    assert [line.partition(":")[0] for line in lines] == [
        "data/demo/executed/00-index.ipynb",
        "reports/demo/index.html",
    ]
