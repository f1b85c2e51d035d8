"""The sweep and the extraction as they are started: by their command lines, on a Ray of this machine alone."""

import importlib.util
import os
import re
import shlex
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

import extract
import nbformat
import pyarrow
import pytest
import sweep
import yaml
from pyarrow import dataset, parquet

from drgstudy import cohort, mimic
from drgstudy.study import NOTEBOOKS, ROOT, StudyError, read_params

CLUSTER = ROOT / "cluster"


@pytest.fixture(scope="module")
def start():
    """Start a script of a project with two cores and little shared memory; Ray keeps its files in a short-lived folder."""
    if not importlib.util.find_spec("ray"):
        pytest.skip("Ray is not installed: make env EXTRAS=cluster")
    with tempfile.TemporaryDirectory(prefix="ray") as folder:
        environment = {name: value for name, value in os.environ.items() if not name.startswith(("RAY_", "SLURM_"))}
        environment |= {"HOME": folder, "RAY_TMPDIR": folder, "RAY_DEFAULT_OBJECT_STORE_MAX_MEMORY_BYTES": "100000000"}

        def run(script: Path, *arguments) -> subprocess.CompletedProcess:
            environment["PYTHONPATH"] = str(script.parents[1] / "lib")
            command = [sys.executable, script, *arguments]
            return subprocess.run(command, env=environment, capture_output=True, text=True, timeout=300)

        yield run


@pytest.fixture
def source(tmp_path):
    """Copy a parameter file of the paper's profile to where nothing else is."""

    def copy(name: str) -> Path:
        (tmp_path / "paper").mkdir()
        return Path(shutil.copy(NOTEBOOKS / "params" / "paper" / f"{name}.yaml", tmp_path / "paper"))

    return copy


def test_a_grid_is_a_file_a_point_named_by_its_values(source):
    file = source("05-train-tfidf")
    axes = sweep.grid(["settings.strength=0.5,2.0e+1", "split=split_patients", "seed=1,2"])
    files = sweep.write_grid(file, axes)
    assert {made.stem for made in files} == {
        f"05-train-tfidf-{strength}-split_patients-s{seed}" for strength in ("0_5", "20_0") for seed in (1, 2)
    }
    was, values = read_params(file), read_params(file.with_stem("05-train-tfidf-20_0-split_patients-s2"))
    changed = {"run": "tfidf-20_0-split_patients-s2", "split": "split_patients", "seed": 2, "like": "05-train-tfidf"}
    assert values == was | changed | {"settings": was["settings"] | {"strength": 20.0}}
    said = files[0].read_text().splitlines()
    assert said[2] == "like: 05-train-tfidf" and "settings:" in said and len(said) == 7  # nothing else is said again
    ages = [made.stat().st_mtime_ns for made in files]  # else finished runs would be run again
    assert sweep.write_grid(file, axes) == files and [made.stat().st_mtime_ns for made in files] == ages


def test_a_path_or_model_id_is_named_by_its_last_part():
    point = sweep.grid(["settings.base=huggyllama/llama-13b", "settings.max_tokens=512", "folds=[1, 2]", "seed=3"])
    assert sweep.point_name({name: value for name, (value,) in point.items()}) == "-llama-13b-512-fold1_2-s3"


def test_folds_are_an_axis_too(source):
    files = sweep.write_grid(source("23-early-train-lstm-ms"), sweep.grid(["folds=[1],[2]"]))
    assert [read_params(file)["folds"] for file in files] == [[1], [2]]
    assert [file.stem for file in files] == ["23-early-train-lstm-ms-fold1", "23-early-train-lstm-ms-fold2"]


def test_without_a_grid_the_file_itself_is_the_run(source):
    file = source("05-train-tfidf")
    assert sweep.write_grid(file, {}) == [file] and list(file.parent.iterdir()) == [file]


@pytest.mark.parametrize(
    ("name", "axes", "says"),
    [
        ("05-train-tfidf", ["seed=1,x"], "05-train-tfidf-sx.yaml: parameter seed: expected int"),
        ("05-train-tfidf", ["sed=1"], "unknown parameter 'sed'"),
        ("05-train-tfidf", ["settings.ngrams=1,2", "settings.x=1"], "05-train-tfidf-1-1.yaml: setting 'x': unknown"),
        ("05-train-tfidf", ["settings.strength=a/1.0,b/1.0"], "expected float"),
        ("05-train-tfidf", ["settings.min_df=2", "seed="], "seed=: expected NAME=VALUE"),
        ("05-train-tfidf", ["seed=["], "expected NAME=VALUE"),
        ("05-train-tfidf", ["seed=1,2", "profile=demo"], "profile must be 'paper'"),
        ("05-train-tfidf", ["model=word2vec"], "choose one of"),
        ("06-results", ["seed=1"], "expected the parameter file of a training run"),
    ],
)
def test_a_bad_grid_is_one_sentence_and_writes_nothing(source, name, axes, says):
    file = source(name)
    with pytest.raises(StudyError) as error:
        sweep.write_grid(file, sweep.grid(axes))
    assert says in str(error.value) and "\n" not in str(error.value) and list(file.parent.iterdir()) == [file]


def test_another_runs_file_is_left_alone(source):
    file = source("05-train-tfidf")
    (other,) = sweep.write_grid(file, sweep.grid(["settings.min_df=7"]))
    text = other.read_text()
    with pytest.raises(StudyError, match="holds other values"):
        sweep.write_grid(file, sweep.grid(["settings.ngrams=6,7"]))
    assert other.read_text() == text and len(list(file.parent.iterdir())) == 2


def test_ray_runs_the_grid_goes_on_after_a_failure_and_skips_what_is_finished(start, tmp_path):
    shutil.copytree(ROOT / "lib", tmp_path / "lib", ignore=shutil.ignore_patterns("__pycache__", "*.egg-info"))
    shutil.copytree(CLUSTER, tmp_path / "cluster", ignore=shutil.ignore_patterns("__pycache__"))
    parameters = "profile = 'smoke'\nlike = ''\nrun = 'tfidf'\nmodel = 'tfidf'\nsettings = {}\nseed = 42"
    cells = [nbformat.v4.new_code_cell(parameters, metadata={"tags": ["parameters"]})]
    cells += [
        nbformat.v4.new_code_cell("from drgstudy.study import StudyError\nif seed == 1: raise StudyError('bad seed')")
    ]
    metadata = {"kernelspec": {"name": "python3", "display_name": "Python 3", "language": "python"}}
    file = tmp_path / "notebooks" / "params" / "smoke" / "05-train-tfidf.yaml"
    file.parent.mkdir(parents=True)
    shutil.copy(NOTEBOOKS / "studies.yaml", tmp_path / "notebooks")
    nbformat.write(nbformat.v4.new_notebook(cells=cells, metadata=metadata), tmp_path / "notebooks" / "05-train.ipynb")
    file.write_text(yaml.safe_dump({"profile": "smoke", "run": "tfidf", "model": "tfidf"}))

    done = start(tmp_path / "cluster" / "sweep.py", file, "seed=1,2")
    assert done.returncode == 1, done.stderr
    failure, sum_ = done.stderr.splitlines()[-2:]
    assert failure == f"failed: {file.with_stem('05-train-tfidf-s1')}: 05-train-tfidf-s1.yaml: bad seed"
    assert sum_ == "2 runs: 1 finished, 1 failed"
    executed = sorted((tmp_path / "data" / "smoke" / "executed").iterdir())
    assert [notebook.name for notebook in executed] == ["05-train-tfidf-s2.ipynb"]

    planned = start(tmp_path / "cluster" / "sweep.py", file, "seed=1,2", "--dry-run")
    assert planned.stdout.splitlines() == [str(file.with_stem("05-train-tfidf-s1"))] and planned.returncode == 0
    done = start(tmp_path / "cluster" / "sweep.py", file, "seed=2")  # starts no Ray
    assert (done.returncode, done.stderr) == (0, "1 runs: 1 finished, 0 failed\n")


@pytest.mark.parametrize(
    ("task", "code", "says"),
    [("1", 0, "-m drgstudy.study b c.yaml"), ("2", 1, "only 2 parameter files"), (None, 1, "sbatch --array")],
)
def test_a_slurm_array_task_runs_its_own_file(tmp_path, task, code, says):
    (tmp_path / "python").write_text('#!/bin/sh\necho "$@"\n')
    (tmp_path / "python").chmod(0o755)
    environment = {"PATH": f"{tmp_path}:{os.environ['PATH']}"} | ({"SLURM_ARRAY_TASK_ID": task} if task else {})
    command = ["bash", CLUSTER / "sweep.sbatch", "a.yaml", "b c.yaml"]
    done = subprocess.run(command, env=environment, capture_output=True, text=True)
    assert bool(done.returncode) == bool(code) and says in done.stdout + done.stderr


@pytest.fixture(scope="module")
def summaries(tmp_path_factory) -> pyarrow.Table:
    """The synthetic hospital's discharge summaries, as the streaming reader gives them, but some belong to no stay."""
    from drgstudy.synthetic import make_hospital

    folder = tmp_path_factory.mktemp("hospital") / "raw"
    make_hospital(folder, patients=100, seed=7, course_words=80, tail=0.05)
    notes = pyarrow.Table.from_batches(mimic.notes(folder))
    stays = [None if row % 10 == 0 else stay for row, stay in enumerate(notes["hadm_id"].to_pylist())]
    return notes.set_column(notes.schema.get_field_index("hadm_id"), "hadm_id", pyarrow.array(stays, pyarrow.int64()))


def test_ray_data_extracts_the_rows_that_streaming_does_in_the_same_order(start, summaries, tmp_path):
    notes, out, third = tmp_path / "notes", tmp_path / "courses", len(summaries) // 3
    notes.mkdir()
    for part, rows in {"a": 37, "b": 11, "c": 1000}.items():  # three files, cut differently inside
        parquet.write_table(summaries.slice("abc".index(part) * third, third), notes / part, row_group_size=rows)
    done = start(CLUSTER / "extract.py", notes, out)
    assert done.returncode == 0, done.stderr
    made = dataset.dataset(out).to_table()
    assert made.schema.equals(cohort.COURSES) and len(list(out.iterdir())) > 1
    streamed = map(cohort.extract, summaries.slice(0, 3 * third).to_batches(max_chunksize=23))
    assert made.equals(pyarrow.Table.from_batches(streamed))
    assert made["text"].null_count and made["hadm_id"].null_count  # both kinds of gaps were among them

    again = start(CLUSTER / "extract.py", notes, out)
    assert again.returncode == 1 and f"error: {out} is there already" in again.stderr


@pytest.mark.parametrize(
    ("column", "says"),
    [
        ("text", "column text is missing; the columns are note_id, subject_id, hadm_id"),
        (None, "expected a Parquet"),
    ],
)
def test_notes_that_cannot_be_extracted_are_named(summaries, tmp_path, column, says):
    (tmp_path / "notes").mkdir()
    if column:
        parquet.write_table(summaries.drop_columns(column), tmp_path / "notes" / "a.parquet")
    with pytest.raises(StudyError, match=f"{tmp_path}/notes: {says}"):
        extract.extract_notes(tmp_path / "notes", tmp_path / "courses")
    assert not (tmp_path / "courses").exists()


def test_without_ray_one_sentence_says_how_it_is_installed(summaries, tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "ray", None)
    parquet.write_table(summaries, tmp_path / "notes.parquet")
    for start in (
        lambda: extract.extract_notes(tmp_path / "notes.parquet", tmp_path / "out"),
        lambda: sweep.sweep([], 1, 0),
    ):
        with pytest.raises(StudyError, match="Ray is not installed; `make env EXTRAS=cluster`"):
            start()


def documented() -> list[list[str]]:
    """The arguments of each command of the README that starts the sweep."""
    text = (CLUSTER / "README.md").read_text(encoding="utf-8").replace("\\\n", " ")
    found = re.findall(r"python cluster/sweep\.py ([^`\n)]+)", text)
    return [shlex.split(arguments) for arguments in found]


@pytest.mark.parametrize("arguments", documented(), ids=" ".join)
def test_the_documented_commands_are_understood(monkeypatch, arguments):
    asked = []
    monkeypatch.setattr(sweep, "write_grid", lambda source, axes: asked.append((source, axes)) or [])
    assert sweep.main(arguments) == 0
    ((source, axes),) = asked
    assert source.name in arguments[0] and len(axes) == sum("=" in each for each in arguments)
