"""Kill -9, full disks and two at once, with real processes: what is there stays whole, and what was killed goes on."""

import contextlib
import gzip
import os
import shutil
import signal
import subprocess
import sys
import textwrap
import time
from pathlib import Path

import joblib
import nbformat
import numpy as np
import pandas as pd
import pytest

from drgstudy import study, training
from drgstudy.study import ROOT, StudyError, atomic, locked, read_json, write_json

ENVIRONMENT = os.environ | {"PYTHONPATH": str(ROOT / "lib"), "OMP_NUM_THREADS": "1"}
HERE = os.uname().nodename


@contextlib.contextmanager
def python(code: str, *arguments, **environment):
    """A process that runs `code`, with what it says; killed at the end of the block if it still lives."""
    command = [sys.executable, "-c", textwrap.dedent(code), *map(str, arguments)]
    pipes = dict(stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    with subprocess.Popen(command, env=ENVIRONMENT | environment, **pipes) as process:
        try:
            yield process
        finally:
            process.kill()


def files(folder: Path) -> list[str]:
    return sorted(str(file.relative_to(folder)) for file in folder.rglob("*") if not file.is_dir())


# ---- kill -9


@pytest.mark.parametrize("moment", ["while the new one is written", "while the old one is removed"])
def test_a_killed_write_leaves_a_whole_folder_and_is_swept_away_by_the_next(tmp_path, moment):
    target = tmp_path / "raw"
    target.mkdir()
    for name in "abc":
        (target / name).write_text("old")
    code = """
        import os, shutil, sys
        from pathlib import Path
        from drgstudy.study import atomic
        def die(*_):
            os.kill(os.getpid(), 9)
        def remove(folder, **_):
            next(Path(folder).iterdir()).unlink()
            die()
        shutil.rmtree = remove
        with atomic(Path(sys.argv[1])) as beside:
            beside.mkdir()
            for name in "abc":
                (beside / name).write_text("new")
                if "written" in sys.argv[2]:
                    die()
    """
    with python(code, target, moment) as process:
        assert process.wait(30) == -signal.SIGKILL
    whole = "old" if "written" in moment else "new"
    assert [(target / name).read_text() for name in "abc"] == [whole] * 3 and len(list(tmp_path.iterdir())) == 2
    with atomic(target) as beside:
        beside.mkdir()
    assert list(tmp_path.iterdir()) == [target]


def test_a_living_neighbours_half_file_is_left_alone_and_so_is_another_machines(tmp_path):
    target, elsewhere = tmp_path / "flow.json", tmp_path / ".unfinished-1@another-flow.json"
    elsewhere.touch()
    code = """
        import sys
        from pathlib import Path
        from drgstudy.study import atomic
        with atomic(Path(sys.argv[1])) as beside:
            beside.write_text('"theirs"')
            print("half", flush=True)
            input()
    """
    with python(code, target) as process:
        assert process.stdout.readline() == "half\n"
        write_json(target, "ours")
        assert read_json(target) == "ours"
        process.communicate("go on\n", 30)
        assert process.returncode == 0 and read_json(target) == "theirs"
    assert set(tmp_path.iterdir()) == {target, elsewhere}


# ---- two at once


@pytest.fixture
def step(tmp_path):
    """A study of one notebook, and a function that starts it: its one cell is the code given, with `log`, a file."""
    (tmp_path / "notebooks" / "params" / "smoke").mkdir(parents=True)
    params = tmp_path / "notebooks" / "params" / "smoke" / "03-cohort.yaml"
    params.write_text("profile: smoke")
    shutil.copy(ROOT / "notebooks" / "studies.yaml", tmp_path / "notebooks")
    metadata = {"kernelspec": {"name": "python3", "display_name": "Python 3", "language": "python"}}
    run = """
        import sys
        from pathlib import Path
        from drgstudy import study
        study.places.ROOT = Path(sys.argv[1])
        study.places.NOTEBOOKS = study.places.ROOT / "notebooks"
        from drgstudy.study.__main__ import main
        sys.exit(main(sys.argv[2:]))
    """

    def start(code: str, *arguments, **environment):
        cells = [nbformat.v4.new_code_cell('profile = "smoke"', metadata={"tags": ["parameters"]})]
        setup = f"import os, time\nfrom pathlib import Path\nlog = Path({str(tmp_path / 'log')!r})\n"
        setup += "def say(what):\n    with log.open('a') as file:\n        print(what, file=file)\n"
        cells.append(nbformat.v4.new_code_cell(setup + textwrap.dedent(code)))
        notebook = nbformat.v4.new_notebook(cells=cells, metadata=metadata)
        nbformat.write(notebook, tmp_path / "notebooks" / "03-cohort.ipynb")
        return python(run, tmp_path, params, *arguments, **environment)

    return start


def wait_for(file: Path, text: str) -> None:
    for _ in range(600):
        if file.exists() and text in file.read_text():
            return
        time.sleep(0.05)
    raise AssertionError(f"{file} never said {text!r}")


ONCE = "say('begin'); time.sleep(1); say('end')"


@pytest.mark.parametrize("changed", [False, True])
def test_of_two_makes_the_second_waits_and_makes_again_only_what_has_changed(step, tmp_path, changed):
    target, source = tmp_path / "data" / "smoke" / "executed" / "03-cohort.ipynb", tmp_path / "source"
    source.touch()
    given, began = ("--unless-made", target, source), str(time.time() - 1)
    with step(ONCE, *given, MAKE_BEGAN=began) as first:
        wait_for(tmp_path / "log", "begin")
        if changed:
            os.utime(source, times=(time.time() + 60,) * 2)
        with step(ONCE, *given, MAKE_BEGAN=began) as second:
            said = second.communicate(timeout=60)[0]
        assert first.wait(60) == second.returncode == 0
    assert f"smoke/03-cohort: waiting for process {first.pid} on {HERE}\n" in said
    assert (tmp_path / "log").read_text().split() == ["begin", "end"] * (2 if changed else 1)
    assert ("smoke/03-cohort was made by another process" in said) != changed
    assert files(tmp_path / "data") == ["smoke/executed/03-cohort.ipynb", "smoke/seconds/03-cohort.json"]


def test_what_this_make_finds_old_is_made_again(step, tmp_path):
    """Under make -B, or by hand, no file is new enough."""
    target = tmp_path / "data" / "smoke" / "executed" / "03-cohort.ipynb"
    target.parent.mkdir(parents=True)
    target.touch()
    with step(ONCE, "--unless-made", target, MAKE_BEGAN=str(time.time() + 1)) as process:
        assert process.wait(60) == 0
    assert (tmp_path / "log").read_text().split() == ["begin", "end"]


def test_a_killed_runs_kernel_is_waited_for(step, tmp_path):
    """Code in C that keeps Python's lock also keeps the kernel from noticing that its parent was killed."""
    orphan = "import ctypes; say('begin'); ctypes.PyDLL(None).sleep(4); say('end')"
    with step(orphan) as first:
        wait_for(tmp_path / "log", "begin")
        first.send_signal(signal.SIGKILL)
        first.wait(30)
    with step("say('again')") as second:
        said = second.communicate(timeout=60)[0]
        assert second.returncode == 0, said
    assert f"waiting for process {first.pid}" in said
    assert (tmp_path / "log").read_text().split() == ["begin", "end", "again"]
    assert files(tmp_path / "data") == ["smoke/executed/03-cohort.ipynb", "smoke/seconds/03-cohort.json"]


def test_processes_of_one_distributed_run_do_not_wait_for_each_other(step, tmp_path):
    meet = """
        say(os.environ["RANK"])
        while len(log.read_text().split()) < 2:
            time.sleep(0.1)
    """
    with step(meet, RANK="0") as first, step(meet, RANK="1") as second:
        assert [process.wait(60) for process in (first, second)] == [0, 0]


def test_pages_are_written_by_one_process_at_a_time(paths):
    (study.places.ROOT / "notebooks" / "params" / "tiny").mkdir(parents=True)
    shutil.copy(ROOT / "notebooks" / "studies.yaml", study.places.ROOT / "notebooks")
    code = """
        import sys
        from pathlib import Path
        from drgstudy import report, study
        study.places.ROOT = Path(sys.argv[1])
        study.places.NOTEBOOKS = Path(sys.argv[1]) / "notebooks"
        report.build("tiny")
    """
    with contextlib.ExitStack() as stack:
        with locked(paths.running / "pages", "tiny/pages"):
            process = stack.enter_context(python(code, study.places.ROOT))
            assert process.stdout.readline() == f"tiny/pages: waiting for process {os.getpid()} on {HERE}\n"
            assert not (paths.report / "index.html").exists()
        assert process.communicate(timeout=60)[0] == "" and process.returncode == 0
    assert (paths.report / "index.html").is_file() and not list(paths.running.iterdir())


def test_where_the_file_system_knows_no_locks_nobody_is_held_up(tmp_path, monkeypatch):
    def flock(*_):
        raise OSError(37, "No locks available")

    monkeypatch.setattr("fcntl.flock", flock)
    with locked(tmp_path / "a", "a"):
        assert (tmp_path / "a").read_text() == f"process {os.getpid()} on {HERE}"
    assert not (tmp_path / "a").exists()


# ---- make


@pytest.fixture
def make(tmp_path):
    """Make of the smoke study, where each step only leaves its files, and a list of the steps that were run."""
    for name in ("Makefile", "notebooks", "data/reference", "requirements.lock", "pyproject.toml"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).symlink_to(ROOT / name)
    shutil.copytree(ROOT / "lib", tmp_path / "lib", ignore=shutil.ignore_patterns("__pycache__"))
    for file in (tmp_path / "lib").rglob("*.py"):
        os.utime(file, (1e9, 1e9))
    stand_in = """\
        #!/bin/bash
        [[ $1 = -m ]] || exec "$INTERPRETER" "$@"
        mkdir -p data/smoke/executed reports/smoke/numbers
        if [[ $2 = drgstudy.study.graph ]]; then exec "$INTERPRETER" "$@"; fi
        if [[ $2 = drgstudy.report ]]; then [[ -z $PAGES_FAIL ]] && touch reports/smoke/index.html; exit; fi
        [[ $2 = drgstudy.study ]] || exit 0
        step=$(basename "$3" .yaml)
        echo "$step" >> ran
        [[ $step = *train* ]] || touch "reports/smoke/numbers/$step.json"
        [[ $step = "$KILLED" ]] && kill -9 $PPID $$
        touch "$5"
    """
    (tmp_path / "env" / "bin").mkdir(parents=True)
    (tmp_path / "env" / "bin" / "python").write_text(textwrap.dedent(stand_in))
    (tmp_path / "env" / "bin" / "python").chmod(0o755)
    (tmp_path / "env" / ".drgstudy-installed").touch()

    def run(**environment) -> tuple[int, list[str]]:
        (tmp_path / "ran").write_text("")
        clean = {key: value for key, value in os.environ.items() if not key.startswith("MAKE")}
        environment |= {"VIRTUAL_ENV": str(tmp_path / "env"), "INTERPRETER": sys.executable}
        done = subprocess.run(["make", "report", "PROFILE=smoke"], cwd=tmp_path, env=clean | environment, text=True)
        return done.returncode, (tmp_path / "ran").read_text().split()

    return run


def test_an_analysis_killed_after_its_numbers_runs_again(make):
    assert make(KILLED="06-results")[0] == -signal.SIGKILL
    code, ran = make()
    assert code == 0 and ran[0] == "06-results" and make() == (0, [])


def test_a_failing_page_stops_no_step_and_costs_none(make):
    """As beside numbers that earlier code wrote: the page fails until all of them are made again, here to the end."""
    code, ran = make(PAGES_FAIL="1")
    assert code == 2 and set(ran) == {
        file.stem for file in (ROOT / "notebooks" / "params" / "smoke").glob("[01]*.yaml")
    }
    assert make() == (0, [])


def test_where_the_report_was_removed_the_analyses_run_again_and_nothing_is_trained(make, tmp_path):
    steps = {file.stem for file in (ROOT / "notebooks" / "params" / "smoke").glob("[01]*.yaml")}
    assert set(make()[1]) == steps
    shutil.rmtree(tmp_path / "reports")
    analyses = {step for step in steps if step >= "04" and "train" not in step and not step.startswith("13")}
    assert (ran := make())[0] == 0 and sorted(ran[1]) == sorted(analyses)


# ---- a full disk


def _png(path: Path) -> None:
    import matplotlib.pyplot as plt

    plt.figure().savefig(path)


def _gzip(path: Path) -> None:
    with gzip.open(path, "wb") as file:
        file.write(b"a")


FRAME = pd.DataFrame({"a": range(9)})
WRITERS = {
    "a.json": lambda path: path.write_text("{}"),
    "a.parquet": FRAME.to_parquet,
    "a.csv": FRAME.to_csv,
    "a.csv.gz": FRAME.to_csv,
    "a.gz": _gzip,
    "a.npz": lambda path: np.savez_compressed(path, a=np.zeros(9)),
    "a.png": _png,
    "a.svg": _png,
    "a.joblib": lambda path: joblib.dump(np.zeros(9), path),
    "a.ipynb": lambda path: nbformat.write(nbformat.v4.new_notebook(), path),
}


def full_disk(path: Path) -> None:
    """Make this process's temporary file for `path` the device that is always full."""
    if not Path("/dev/full").exists():
        pytest.skip("this system has no /dev/full")
    path.parent.mkdir(parents=True, exist_ok=True)
    path.with_name(f".unfinished-{os.getpid()}@{HERE}-{path.name}").symlink_to("/dev/full")


@pytest.mark.parametrize("name", WRITERS)
def test_a_full_disk_is_one_sentence_that_names_the_file_and_leaves_what_was_there(tmp_path, name):
    path = tmp_path / name
    path.write_text("old")
    full_disk(path)
    with (
        pytest.raises(StudyError, match=f"no space left while writing {path}; free some") as error,
        atomic(path) as beside,
    ):
        WRITERS[name](beside)
    assert "\n" not in str(error.value)
    assert path.read_text() == "old" and list(tmp_path.iterdir()) == [path]
    with atomic(path) as beside:
        WRITERS[name](beside)
    assert path.read_bytes() != b"old"


def test_a_full_disk_is_known_by_what_writers_in_rust_and_torch_say(tmp_path, monkeypatch):
    def save(error):
        with atomic(tmp_path / "a"):
            raise error

    rust = Exception("Error while serializing: I/O error: No space left on device (os error 28)")
    torch = RuntimeError("[enforce fail at inline_container.cc:672] . unexpected pos 64 vs 0")
    with pytest.raises(StudyError, match="no space left"):
        save(rust)
    with pytest.raises(RuntimeError, match="unexpected pos"):
        save(torch)
    usage = shutil.disk_usage(tmp_path)._replace(free=4096)
    monkeypatch.setattr("shutil.disk_usage", lambda folder: usage)
    with pytest.raises(StudyError, match="no space left"):
        save(torch)


def test_an_executed_notebook_for_which_there_is_no_room_is_not_there(tmp_path, monkeypatch, step):
    monkeypatch.setattr(study.places, "ROOT", tmp_path)
    monkeypatch.setattr(study.places, "NOTEBOOKS", tmp_path / "notebooks")
    with step("say('ran')"):
        pass
    executed = tmp_path / "data" / "smoke" / "executed" / "03-cohort.ipynb"
    full_disk(executed)
    with pytest.raises(StudyError, match=f"no space left while writing {executed}"):
        study.run_notebook(tmp_path / "notebooks" / "params" / "smoke" / "03-cohort.yaml")
    assert files(tmp_path / "data") == []


def test_a_checkpoint_for_which_there_is_no_room_is_removed(tmp_path, monkeypatch):
    import torch

    class Net(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.layer = torch.nn.Linear(1, 2)

        def forward(self, input_ids, labels=None, **_):
            logits = self.layer(input_ids[:, :1].float())
            return {"loss": torch.nn.functional.cross_entropy(logits, labels), "logits": logits}

    def full(*_):
        raise OSError(28, os.strerror(28))

    monkeypatch.setenv("DRGSTUDY_PROGRESS", os.devnull)
    monkeypatch.setenv("DRGSTUDY_PROGRESS_SECONDS", "1")
    data = training.TokenDataset([[n] for n in range(8)], np.arange(8) % 2)
    given = (training.PadRight(0), data, training.NeuralSettings(epochs=2, checkpoint_steps=2), tmp_path, 0)
    with monkeypatch.context() as patch:
        patch.setattr("transformers.Trainer._save_rng_state", full)
        with pytest.raises(StudyError, match=r"no space left while writing .*checkpoint-2; free some"):
            training.train(Net(), *given)
        assert not list(tmp_path.glob("*/checkpoint-*"))
    assert training.train(Net(), *given)["train_steps"] == 4
