"""Same in, same out: a whole tiny study in two clean processes, and `make verify`, which compares two reports."""

import copy
import json
import math
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import nbformat
import numpy as np
import pytest

from drgstudy import study, verify
from drgstudy.study import ROOT, StudyError

# --- Two processes

PROCESSES = {  # in what must not matter they differ
    "a": {"PYTHONHASHSEED": "1", "TZ": "UTC", "LC_ALL": "C.UTF-8"},
    "b": {"PYTHONHASHSEED": "2", "TZ": "Asia/Kathmandu", "LC_ALL": "C"},
}
BRIEF = {"max_tokens": 24, "epochs": 1.0, "batch_size": 8}
RUNS = {
    "tfidf": {},
    "caml": BRIEF | {"vector_size": 8, "filters": 8},
    "llama": BRIEF | {"dtype": "float32", "head": "probe", "pooling": "mean", "lora_dropout": 0.1},
    "bert": BRIEF | {"dropout": 0.1},
}
COSTS = {"run.json", "costs.json", "06-results.json"}  # hold seconds beside what must be equal


def run_study(root: Path, llama: str, bert: str) -> None:
    """A tiny study under `root`, notebook by notebook, from the hospital to numbers.json; and the early study's network."""
    from drgstudy import models, report, training
    from drgstudy.synthetic import icu

    # BERT's number type is chosen by a speed measured on the spot, which other work beside this test may turn round.
    training.matrix_speed = lambda dtype: 1.0

    def run(notebook: str, cells: int | None = None, **parameters) -> None:
        names = {"display": lambda *shown: None}
        code = [
            c for c in nbformat.read(study.places.NOTEBOOKS / f"{notebook}.ipynb", 4).cells if c.cell_type == "code"
        ]
        for cell in code[:cells]:
            exec(cell.source.replace("import Markdown, display", "import Markdown"), names)
            if "parameters" in cell.metadata.get("tags", []):
                names |= {"profile": "smoke"} | parameters

    os.umask(0o22 if int(os.environ["PYTHONHASHSEED"]) % 2 else 0o77)
    study.places.ROOT = root
    run("01-hospital", patients=70, course_words=60, tail=0.01)
    run("02-harmonization", cells=4)
    run("03-cohort")
    for name, settings in RUNS.items():
        base = {"llama": {"base": llama}, "bert": {"base": bert}}.get(name, {})
        run("05-train", run=name, model=name, settings=settings | base)
    run("06-results", runs=list(RUNS), resamples_interval=50)
    report.build("smoke")
    hours, y = np.random.default_rng(0).normal(size=(24, 6, 104)).astype("float32"), np.arange(24) % 3
    lstm = models.build("lstm", {"epochs": 2.0, "batch_size": 8, "hidden": 4}, ["a", "b", "c"], root / "lstm", 1)
    lstm.fit(hours, y)
    np.save(root / "lstm.npy", lstm.predict(hours))
    shutil.rmtree(root / "lstm")  # its checkpoints, with their times
    icu.make_icu_hospital(root / "icu", patients=12, seed=1, note_words=50, tail=0.05)


@pytest.fixture(scope="module")
def studies(tmp_path_factory, tiny_llama, tiny_bert) -> list[Path]:
    """The study made side by side by two processes that have nothing in common, not even the folder they start in."""
    roots, started = [], []
    for name, differs in PROCESSES.items():
        root = tmp_path_factory.mktemp(f"study-{name}")
        environment = {k: v for k, v in os.environ.items() if k not in ("RANK", "WORLD_SIZE")} | differs
        environment |= {"PYTHONPATH": str(ROOT / "lib"), "OMP_NUM_THREADS": "1", "DRGSTUDY_PROGRESS": os.devnull}
        environment |= {"DRGSTUDY_PROGRESS_SECONDS": "9"}
        command = [sys.executable, __file__, root, tiny_llama, tiny_bert]
        roots.append(root)
        output = {"stdout": subprocess.DEVNULL, "stderr": subprocess.PIPE, "text": True}
        started.append(subprocess.Popen(command, env=environment, cwd=root if name == "a" else "/", **output))
    for process in started:
        said = process.communicate(timeout=600)[1]
        assert process.returncode == 0, said[-2000:]
    return roots


def without_costs(node):
    if isinstance(node, dict):
        return {key: without_costs(value) for key, value in node.items() if key not in ("cost", "costs")}
    return node


def test_two_processes_write_the_same_bytes(studies):
    names = [sorted(str(path.relative_to(root)) for path in root.rglob("*") if path.is_file()) for root in studies]
    assert names[0] == names[1]
    compared = [name for name in names[0] if Path(name).name not in COSTS and not name.endswith(".made.json")]
    compared = [name for name in compared if Path(name).name not in ("source.json", "README.md")]  # say where they lie
    different = [name for name in compared if len({(root / name).read_bytes() for root in studies}) > 1]
    assert different == []
    kinds = ["numbers.json", "stays.parquet", "drgs.parquet", "flow.json", "lstm.npy", "table-1.csv", "figure-2a.png"]
    kinds += [
        "figure-2a.svg",
        "figure-2a.pdf",
        "discharge.csv.gz",
        "CHARTEVENTS.csv.gz",
        "adapter_config.json",
        "vocabulary.json",
    ]
    assert set(kinds) <= {Path(name).name for name in compared}
    assert sum(name.endswith("predictions.npz") for name in compared) == len(RUNS)


def test_two_processes_write_the_same_records_of_runs_but_for_what_they_cost(studies):
    for run in RUNS:
        a, b = (without_costs(study.read_json(root / "data" / "smoke" / "runs" / run / "run.json")) for root in studies)
        assert a["predictions"] == b["predictions"] and a["settings"] == b["settings"] and a["seed"] == b["seed"]


def test_no_page_of_the_committed_report_shows_an_address_in_memory():
    pages = sorted((ROOT / "reports" / "demo").rglob("*.html"))
    assert len(pages) > 20
    assert [page.name for page in pages if re.search(r" at 0x[0-9a-f]{6,}", page.read_text(encoding="utf-8"))] == []


# --- make verify

INTERVAL = {"value": 0.5, "sd": 0.03, "lower": 0.44, "upper": 0.56}
DIFFERENCE = {"difference": 0.1, "lower": 0.0, "upper": 0.2, "p": 0.3, "sentence": "A is above B (+0.100)."}
HELD = {
    "early_cohort": {
        "flow": {"ms": [{"step": "rows", "kept": 700}]},
        "mean_words": 70.0,
        "dataset": {"fingerprint": "a"},
    },
    "early_results": {
        "table_2": {"caml": {"All": {"acc": {"each": [0.3, 0.4], "n_stays": 100, "percent_stays": 99.0, "sd": 0.001}}}}
    },
    "errors": {"wrong": 111, "run": "llama"},
    "regression": {"scores": {"ms": {"top": {"mae_mean": 0.8, "mae_std": 0.02, "rmse_mean": 1.1}}}},
    "results": {
        "differences": {"bert": {"acc": DIFFERENCE}},
        "models": {"llama": {"predictions": "8ea0", "settings": {"epochs": 2.5, "layers": None}}},
        "seed": 42,
        "table_1": {"llama": {"All": {"acc": INTERVAL, "auc": {"value": None}, "n_cases": {"value": 247}}}},
        "versions": {"numpy": "2.4.6"},
    },
    "text": {"spline_r2": 0.2, "train_stays": 2214},
}
ACC, WORDS = "results.table_1.llama.All.acc", "early_cohort.mean_words"
GONE = object()


def changed(**places) -> dict:
    """`HELD` with other values at these places, written with ``__`` for a dot."""
    numbers = copy.deepcopy(HELD)
    for place, value in places.items():
        *path, last = (int(part) if part.isdigit() else part for part in place.split("."))
        node = numbers
        for part in path:
            node = node[part]
        if value is GONE:
            del node[last]
        else:
            node[last] = value
    return numbers


def beyond(held: dict, fresh: dict) -> set[str]:
    values = verify.compare(held, fresh)
    return set(values.index[values["share"] > 1])


def test_an_equal_report_is_equal_bit_for_bit_and_nan_is_nan():
    values = verify.compare(HELD, copy.deepcopy(HELD))
    assert not values["differs"].any() and (values["share"] == 0).all()
    assert not verify.compare({"a": math.nan}, {"a": -math.nan})["differs"].any()
    assert values.loc[f"{ACC}.sd", "table"] == "results.table_1" and values.loc["text.spline_r2", "table"] == "text"


@pytest.mark.parametrize(
    ("place", "within", "outside"),
    [
        (f"{ACC}.value", 0.559, 0.561),  # half the interval: 0.06, as wide as two of its sd
        (f"{ACC}.upper", 0.501, 0.485),
        ("early_results.table_2.caml.All.acc.each.0", 0.399, 0.401),  # 1/√100, above two sd
        ("regression.scores.ms.top.mae_mean", 0.839, 0.841),  # two standard deviations of its own
        (WORDS, 70.0 * (1 + 5e-10), 70.0 * (1 + 2e-9)),  # no model takes part: rounding
        ("results.differences.bert.acc.difference", 0.001, -0.001),
    ],
)
def test_a_number_may_differ_by_its_spread_and_no_more(place, within, outside):
    assert verify.compare(HELD, changed(**{place: within})).loc[place, "differs"]
    assert beyond(HELD, changed(**{place: within})) == set()
    assert beyond(HELD, changed(**{place: outside})) == {place}


@pytest.mark.parametrize(
    ("place", "value"),
    [
        ("early_cohort.flow.ms.0.kept", 701),
        ("early_cohort.flow.ms.0.step", "lines"),
        ("results.seed", 43),
        ("results.table_1.llama.All.n_cases.value", 248),
        ("early_results.table_2.caml.All.acc.percent_stays", 99.05),
        ("results.models.llama.settings.epochs", 2.6),
        ("results.models.llama.settings.layers", 10),
        ("results.models.llama.settings.layers", GONE),
        ("results.models.llama.settings.bits", 16),
        ("text.train_stays", 2215),
        (f"{ACC}.value", None),
        (f"{ACC}.value", math.nan),
        (f"{ACC}.value", "0.5"),
        (f"{ACC}.value", GONE),
        ("results.table_1", GONE),
        ("early_cohort.flow.ms", []),
    ],
)
def test_what_no_training_changes_and_what_is_missing_or_new_is_beyond_tolerance(place, value):
    fresh = changed(**{place: value, f"{ACC}.sd": 0.031} if place != "results.table_1" else {place: value})
    found = beyond(HELD, fresh)
    assert found and all(one.startswith(place) for one in found)
    assert {one for one in beyond(fresh, HELD) if one.startswith(place)} == found  # seen from the other side too


@pytest.mark.parametrize(
    ("place", "value"),
    [
        ("text.spline_r2", 0.21),
        ("errors.wrong", 112),
        ("errors.swapped", 5),
        ("results.differences.bert.acc.p", 0.9),
        ("results.differences.bert.acc.sentence", "A and B can't be told apart."),
        ("regression.scores.ms.top.rmse_mean", 1.2),
    ],
)
def test_what_has_no_spread_may_move_with_the_predictions_and_not_alone(place, value):
    assert beyond(HELD, changed(**{place: value})) == {place}
    assert beyond(HELD, changed(**{place: value, WORDS: 70.0 * (1 + 5e-10)})) == {place}  # no model has changed
    assert beyond(HELD, changed(**{place: value, f"{ACC}.value": 0.5000001})) == set()
    assert beyond(HELD, changed(**{place: value, "results.models.llama.predictions": "9c0f"})) == set()


@pytest.fixture
def repository(tmp_path, monkeypatch):
    """A repository that holds `HELD` as the report of the profile `tiny`; a function that writes a fresh one."""
    if subprocess.run(["git", "--version"], capture_output=True).returncode:
        pytest.skip("git is not installed")
    monkeypatch.setattr(study.places, "ROOT", tmp_path)
    monkeypatch.setenv("GIT_CEILING_DIRECTORIES", str(tmp_path.parent))
    report = tmp_path / "reports" / "tiny"

    def write(numbers: dict, fresh: bool = True) -> None:
        (report / "numbers").mkdir(parents=True, exist_ok=True)
        (report / "numbers.json").write_text(json.dumps(numbers))
        if fresh:
            (report / "numbers" / "06-results.json").write_text("{}")

    write(HELD, fresh=False)
    who = ["-c", "user.name=a", "-c", "user.email=a@example.org", "-c", "commit.gpgsign=false"]
    for command in (["init", "-q"], ["add", "reports"], [*who, "commit", "-q", "-m", "a report"]):
        subprocess.run(["git", *command], cwd=tmp_path, check=True)
    return write


def test_verify_says_table_by_table_how_far_apart_the_reports_are(repository, capsys):
    repository(HELD)
    assert verify.main("tiny") == 0
    said = capsys.readouterr().out
    assert re.search(r"^results.table_1 +6 +0 .* equal", said, re.MULTILINE) and "bit for bit" in said
    repository(changed(**{f"{ACC}.value": 0.53, "results.versions.numpy": "3.0"}))
    assert verify.main("tiny") == 0
    said = capsys.readouterr().out
    assert re.search(rf"^results.table_1 +6 +1 +0.03 +0.057 +0.5 +within +{ACC}.value$", said, re.MULTILINE)
    assert "made with another results.versions.numpy: 2.4.6 → 3.0" in said
    assert said.endswith("2 of 32 values differ, none of them beyond tolerance.\n")
    repository(changed(**{f"{ACC}.value": 0.57, "results.seed": GONE}))
    assert verify.main("tiny") == 1
    said = capsys.readouterr().out
    assert re.search(rf"^results.table_1 .* BEYOND +{ACC}.value$", said, re.MULTILINE)
    assert f"beyond {ACC}.value: 0.5 → 0.57" in said and "beyond results.seed: 42 → nothing" in said
    assert said.endswith("2 of 32 values differ, 2 of them beyond tolerance.\n")


def test_verify_compares_the_numbers_of_tables_but_not_how_they_are_printed_nor_costs(repository, tmp_path, capsys):
    folder = tmp_path / "reports" / "tiny" / "tables"
    (folder / "printed").mkdir(parents=True)

    def write(accuracy: str, rank: int, minutes: float, days: int, printed: str) -> None:
        spread = "metric,value,sd,dataset\nacc_at_1," + accuracy + ",0.01,x\nn_stays,250,,x\n"
        texts = {"table-1": spread, "by-drg": f"rank,drg,dataset\n{rank},008,x\n", "cost": f"minutes\n{minutes}\n"}
        texts["table-1-published"] = "value,dataset\n0.52,x\n"
        texts |= {"claims": f"id,value,dataset\nlonger-costs,{days},x\n", "printed/table-1": printed}
        for name, text in texts.items():
            (folder / f"{name}.csv").write_text(text)

    write("0.5", 1, 3.5, 4, "0.500")
    who = ["-c", "user.name=a", "-c", "user.email=a@example.org", "-c", "commit.gpgsign=false"]
    for command in (["add", "reports"], [*who, "commit", "-q", "-m", "tables"]):
        subprocess.run(["git", *command], cwd=tmp_path, check=True)
    repository(HELD)
    write("0.5", 1, 9.9, 7, "half")
    assert verify.main("tiny") == 0 and "bit for bit" in capsys.readouterr().out
    write("0.519", 2, 3.5, 4, "0.500")  # two standard deviations are 0.02; the rank follows
    assert verify.main("tiny") == 0
    assert re.search(
        r"^tables.table-1 +5 +1 +0.019 .* within +tables.table-1.0.value$", capsys.readouterr().out, re.MULTILINE
    )
    write("0.521", 1, 3.5, 4, "0.500")
    assert verify.main("tiny") == 1
    assert "beyond tables.table-1.0.value: 0.5 → 0.521" in capsys.readouterr().out
    write("0.5", 2, 3.5, 4, "0.500")
    assert verify.main("tiny") == 1 and "beyond tables.by-drg.0.rank: 1 → 2" in capsys.readouterr().out
    write("0.5", 1, 3.5, 4, "0.500")
    (folder / "table-1-published.csv").write_text("value,dataset\n0.53,x\n")
    assert verify.main("tiny") == 1 and "beyond tables.table-1-published.0.value" in capsys.readouterr().out


def test_verify_says_what_is_missing(repository, tmp_path, monkeypatch):
    with pytest.raises(StudyError, match="profile tiny has no fresh report; run `make all PROFILE=tiny` first"):
        verify.main("tiny")  # what a clone has is the report that git holds
    repository(HELD)
    (tmp_path / "reports" / "other").symlink_to("tiny")
    with pytest.raises(StudyError, match=r"git holds no reports/other/numbers.json at HEAD"):
        verify.main("other")
    (tmp_path / ".git").rename(tmp_path / "moved")
    with pytest.raises(StudyError, match="no git checkout"):
        verify.main("tiny")
    monkeypatch.setenv("PATH", "")
    with pytest.raises(StudyError, match="git is not installed"):
        verify.main("tiny")


def test_the_command_ends_with_a_sentence():
    environment = os.environ | {"PYTHONPATH": str(ROOT / "lib")}
    command = [sys.executable, "-m", "drgstudy.verify", "nowhere"]
    done = subprocess.run(command, env=environment, capture_output=True, text=True)
    assert done.returncode == 1
    assert done.stderr == "error: profile nowhere has no fresh report; run `make all PROFILE=nowhere` first\n"


if __name__ == "__main__":
    run_study(Path(sys.argv[1]), *sys.argv[2:])
