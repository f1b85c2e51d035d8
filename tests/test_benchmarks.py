"""The benchmarks' runner and page on made-up results, and two benchmarks at tiny sizes. No time is asserted."""

import importlib
import re
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor

import pandas as pd
import pytest

from drgstudy import cohort
from drgstudy.study import ROOT, Paths, StudyError, read_json

MACHINE = {"cpu": "A & B", "cores": 2, "memory_gb": 8.0, "system": "Linux", "gpu": "none", "versions": {"python": "3"}}
MACHINE |= {"matrix_gflops": {"float32": 100.0, "bfloat16": 400.0}}
ROW = {"name": "Reading <b>", "data": "5 notes", "unit": "s", "ours": 2.0, "plain": 8.0, "plain_is": "pandas"}
ROW |= {"ratio": 4.0, "goal": "80 times", "met": False, "equal": "to 1e-12", "note": "", "profile": {"a": 3, "b": 1}}
UNKNOWN = ROW | {"name": "7B", "ours": None, "plain": None, "ratio": None, "met": None}
SCRIPTS = {
    "good": "print('█ 1/2', end='\\r', file=sys.stderr); write({rows})",
    "bad": "raise ValueError('no <notes>')",
    "lacking": "write([{{'name': 'x'}}])",
    "silent": "pass",
}


@pytest.fixture
def load(monkeypatch):
    """A benchmark's script as a module, told to run with these arguments."""

    def load(name: str, *arguments: str):
        monkeypatch.setattr(sys, "argv", [name, *map(str, arguments)])
        return importlib.import_module(name)

    return load


@pytest.fixture
def bench(load, monkeypatch, tmp_path):
    """The runner with four made-up scripts, on a machine that others use."""
    bench = load("bench")
    for name, body in SCRIPTS.items():
        write_script(tmp_path, name, body.format(rows=[ROW, UNKNOWN]))
    (tmp_path / "benchmarks.html").write_text((bench.HERE / "benchmarks.html").read_text())
    for name, value in {"HERE": tmp_path, "REPORTS": tmp_path, "ROOT": tmp_path, "machine": lambda: MACHINE}.items():
        monkeypatch.setattr(bench, name, value)
    monkeypatch.setattr(bench, "BENCHMARKS", {name: name.title() for name in [*SCRIPTS, "later"]})
    monkeypatch.setattr(bench.psutil, "cpu_percent", lambda seconds: 40.0)
    return bench


def write_script(folder, name, body):
    start = "import json, sys\ndef write(rows):\n    json.dump(rows, open(sys.argv[2], 'w'))\n"
    (folder / f"{name}.py").write_text(start + body)


def test_a_failing_benchmark_is_shown_and_the_others_go_on(bench, load, tmp_path, capfd):
    load("bench", "--only", *SCRIPTS)
    assert bench.main() == 1
    records = read_json(tmp_path / "benchmarks.json")["benchmarks"]
    assert {name: record["failed"] for name, record in records.items()} == {
        "good": "",
        "bad": "exit status 1: ValueError: no <notes>",
        "lacking": "a measurement lacks data, equal, goal, met, note, ours, plain, plain_is, ratio, unit",
        "silent": "exit status 0: nothing said",
    }
    assert records["good"]["measured"] == [ROW, UNKNOWN] and records["lacking"]["measured"] == []
    said = capfd.readouterr().err
    assert "warning: others use 40 %" in said and "█ 1/2\r" in said and "error: bad failed" in said


def test_only_reruns_some_and_keeps_the_others(bench, load, monkeypatch, tmp_path):
    load("bench", "--only", *SCRIPTS)
    bench.main()
    before = read_json(tmp_path / "benchmarks.json")["benchmarks"]
    write_script(tmp_path, "bad", f"write([{ROW | {'ours': 1.0}}])")
    load("bench", "--only", "bad")
    assert bench.main() == 0
    after = read_json(tmp_path / "benchmarks.json")["benchmarks"]
    assert after.pop("bad")["measured"][0]["ours"] == 1
    before.pop("bad")
    assert after == before
    monkeypatch.setattr(bench, "machine", lambda: MACHINE | {"cpu": "C"})
    with pytest.raises(StudyError, match="another machine"):
        bench.main()


def test_the_page_stands_alone_and_says_what_was_not_measured(bench, load, tmp_path):
    load("bench", "--only", "good", "bad")
    bench.main()
    page = (tmp_path / "benchmarks.html").read_text()
    assert "Reading &lt;b&gt;" in page and "no &lt;notes&gt;" in page and "A &amp; B" in page
    assert "<b>" not in page and "<notes>" not in page
    assert (
        not re.search(r'(src|href)="(?!data:image/svg\+xml;base64,|#|benchmarks\.json")', page) and "url(" not in page
    )
    text = " ".join(re.sub("<[^>]+>", " ", re.split("<main[^>]*>", page)[1]).split())
    assert "Reading &lt;b&gt; 2 s 8 s 4 80 times no On 5 notes · Plain: pandas · Equal: to 1e-12" in text
    assert "7B not measured not measured not measured 80 times not measured" in text
    assert "0 of 2 goals met 1 missed 1 not measured 1 of 2 benchmarks failed" in text
    assert "Later Not measured: python benchmarks/bench.py --only later" in text
    assert "The machine was not quiet: others used 40 %" in text and "a 75% b 25%" in text


def test_the_machine_is_described(load):
    here = load("bench").machine()
    assert set(here) == set(MACHINE) and here["cores"] >= 1 and here["matrix_gflops"]["bfloat16"] > 0


def test_a_page_without_any_comparison(bench):
    record = {"failed": "", "busy_percent": 1.0, "load": 0.1, "began": "today", "seconds": 1.0, "measured": [UNKNOWN]}
    page = bench.page({"machine": MACHINE, "benchmarks": {"good": record}})
    assert "<img" not in page and "not quiet" not in page and "failed" not in page


@pytest.mark.parametrize(
    ("goal", "ratio"),
    [
        ("at most 5 s; 80 times", 80),
        ("at least twice the examples per second", 2),
        ("at most 3 times the decompression", 1 / 3),
        ("under 0.5 s", None),
        ("", None),
    ],
)
def test_goals_that_are_ratios_are_drawn(bench, goal, ratio):
    assert bench.goal_ratio(goal) == ratio


def test_numbers_for_people(bench):
    assert [bench.number(x, "s") for x in (1234.5, 99.97, 0.0234, None)] == [
        "1,234 s",
        "100 s",
        "0.0234 s",
        "not measured",
    ]


def test_table_1_at_a_tiny_size(load, monkeypatch, tmp_path, bench):
    table1 = load("table1", "--stays", 300, "--drgs", 40, "--resamples", 3, 5, "--json", tmp_path / "table1.json")
    monkeypatch.setattr(table1, "ProcessPoolExecutor", lambda workers, mp_context: ThreadPoolExecutor(workers))
    table1.main()
    few, many, memory = read_json(tmp_path / "table1.json")
    assert set(few) & set(many) & set(memory) >= bench.KEYS
    assert few["data"] == "300 stays × 40 DRGs" and many["ratio"] == many["plain"] / many["ours"]
    assert few["plain"] / 4 == pytest.approx(many["plain"] / 6) and memory["unit"] == "GB"
    plain = table1.plain
    monkeypatch.setattr(table1, "plain", lambda *data: [value + 1e-11 for value in plain(*data)])
    with pytest.raises(AssertionError, match="All DRGs"):
        table1.main()


def test_only_models_and_training_import_torch(load):
    startup = load("startup")
    light, neural = startup.modules(neural=False), startup.modules(neural=True)
    assert {"drgstudy", "drgstudy.report", "drgstudy.synthetic.icu"} <= set(light) and "drgstudy.models.llama" in neural
    heavy = "{'torch', 'transformers'} & set(sys.modules)"
    code = f"import sys, {', '.join(light)}; sys.exit(str({heavy}) if {heavy} else 0)"
    done = subprocess.run([sys.executable, "-c", code], env={"PYTHONPATH": str(ROOT / "lib")}, capture_output=True)
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize("ready", ["smoke", None])
def test_startup_measures_make_where_a_profile_is_up_to_date(load, monkeypatch, tmp_path, bench, ready):
    startup, commands = load("startup", "--json", tmp_path / "startup.json"), []
    monkeypatch.setattr(startup, "up_to_date", lambda profile: profile == ready)
    monkeypatch.setattr(startup, "seconds", lambda command, times: commands.append(command) or 0.1 * len(commands))
    startup.main()
    package, modules, make = read_json(tmp_path / "startup.json")
    assert set(package) & set(modules) & set(make) >= bench.KEYS
    assert package["met"] is True and package["ratio"] == pytest.approx(2) and modules["met"] is None
    if ready:
        assert commands[-1] == ["make", "report", "PROFILE=smoke"] and make["met"] is True and make["plain"] is None
    else:
        assert make["ours"] is make["met"] is None and "no profile is up to date" in make["note"]


def test_settings_of_the_smoke_study_are_searched_on_training_stays_alone_and_with_equal_budgets(study, load):
    settings = load("settings")
    assert {len(settings.trials(run, 5)) for run in settings.SEARCH} == {5}
    assert all(settings.trials(run, 1) == [{}] for run in settings.SEARCH)
    changed = {"strength": 100.0}
    training, early = settings.training_of("smoke", "tfidf", changed), settings.training_of("smoke", "lstm-ms", {})
    assert training.about["settings"]["strength"] == 100
    texts, _, (asked, true) = training.learn()
    train, test = cohort.parts(pd.read_parquet(Paths("smoke").stays), "split")
    assert sorted(texts + asked) == sorted(train["text"]) and not {*texts, *asked} & {*test["text"]}
    assert len(true) == pytest.approx(settings.SHARE * len(train), rel=0.05)
    before = {*training.folder.parent.iterdir(), *early.folder.parent.iterdir()}
    trial = settings.judged(training, changed, [])
    assert (
        trial["changed"] == changed
        and 0 < trial["accuracy"] < 1
        and trial["stays"] == pytest.approx(len(true) * 2 / 3, abs=1)
    )
    assert settings.judged(training, changed, [trial | {"seconds": -1}])["seconds"] == -1
    assert 0 <= settings.judged(early, {}, [trial])["accuracy"] < 1
    assert {*training.folder.parent.iterdir(), *early.folder.parent.iterdir()} == before
