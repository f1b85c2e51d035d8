"""Paths, strict parameters, whole-or-nothing writes, the notebook runner, and the pins."""

import errno
import functools
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path
from types import SimpleNamespace

import nbformat
import pytest
import yaml
from jupyter_client import AsyncKernelManager
from papermill.exceptions import PapermillExecutionError

from drgstudy import study
from drgstudy.study import NOTEBOOKS, ROOT, StudyError, atomic, checked_value, read_json, read_params, write_json

PARAMS = sorted((NOTEBOOKS / "params").glob("*/*.yaml"))


def test_an_interrupted_write_leaves_the_old_file_and_nothing_else(tmp_path):
    target = tmp_path / "numbers.json"
    write_json(target, {"a": 1})
    with pytest.raises(KeyboardInterrupt), atomic(target) as beside:
        beside.write_text("half")
        raise KeyboardInterrupt
    assert read_json(target) == {"a": 1} and list(tmp_path.iterdir()) == [target]


def test_a_folder_is_replaced_whole(tmp_path):
    target = tmp_path / "raw"
    for content in ("old", "new"):
        with atomic(target) as beside:
            beside.mkdir()
            (beside / content).touch()
    assert [file.name for file in target.iterdir()] == ["new"] and list(tmp_path.iterdir()) == [target]


@pytest.mark.parametrize(("text", "says"), [(None, "missing"), ('{"a": ', "not valid JSON")])
def test_bad_json_is_named(tmp_path, text, says):
    if text is not None:
        (tmp_path / "flow.json").write_text(text)
    with pytest.raises(StudyError, match=rf"flow\.json.*{says}"):
        read_json(tmp_path / "flow.json")


@pytest.mark.parametrize("file", PARAMS, ids=lambda f: f"{f.parent.name}/{f.stem}")
def test_every_parameter_file_fits_its_notebook_and_its_model(file):
    values = read_params(file)
    if "model" in values:
        from drgstudy import models

        study.checked_settings(models.module(values["model"]).Settings, values["settings"])
        assert file.stem == f"{study.notebook_of(file).stem}-{values['run']}"


@pytest.fixture
def smoke_params(tmp_path):
    """Write a smoke parameter file of notebook 03 with the given text."""
    folder = tmp_path / "smoke"
    folder.mkdir()

    def write(text, name="03-cohort"):
        file = folder / f"{name}.yaml"
        file.write_bytes(text if isinstance(text, bytes) else text.encode())
        return file

    return write


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("profile: smoke\nmin_wrods: 40", "unknown parameter 'min_wrods'; the parameters are profile, like, min_words"),
        ("profile: smoke\nmin_words: forty", "parameter min_words: expected int, like 40, got 'forty'"),
        ("profile: smoke\nmin_words: 40.5", "expected int"),
        ("profile: smoke\ntest_share: .nan", "finite"),
        ("profile: smoke\nmin_words: true", "expected int"),
        ("profile: demo", "parameter profile must be 'smoke'"),
        ("min_words: 40", "parameter profile must be 'smoke'"),
        ("- profile", "expected lines"),
        ("profile: [smoke", "not valid YAML"),
        (b"profile: \xff", "not UTF-8 text"),
        ("", "expected lines"),
    ],
)
def test_bad_parameters_are_one_sentence_that_names_the_file(smoke_params, text, says):
    file = smoke_params(text)
    with pytest.raises(StudyError, match=re.escape(says)) as error:
        read_params(file)
    assert str(file) in str(error.value) and "\n" not in str(error.value)


@pytest.mark.parametrize("name", ["01-hospital", "02-harmonization", "03-cohort", "06-results"])
def test_by_hand_a_notebook_does_what_the_demo_does(name):
    demo = read_params(NOTEBOOKS / "params" / "demo" / f"{name}.yaml")
    by_default = {
        "01-hospital": {"mimic": "", "mimic_note": ""},
        "02-harmonization": {"open_demo": "", "rules": "ours", "title_table": ""},
        "03-cohort": {"rules": "ours"},
    }.get(name, {})
    assert study.notebook_parameters(NOTEBOOKS / f"{name}.ipynb") == demo | {"mask_below": 11, "like": ""} | by_default


def test_a_run_goes_by_its_files_name(smoke_params):
    with pytest.raises(StudyError, match="parameter run is 'bert', but the file's name says another run"):
        read_params(smoke_params("profile: smoke\nrun: bert\nmodel: bert", "05-train-bert-again"))


def test_unknown_notebook_and_missing_file_are_named(smoke_params, tmp_path):
    with pytest.raises(StudyError, match="no notebook's name begins"):
        read_params(smoke_params("profile: smoke", "99-none"))
    with pytest.raises(StudyError, match="does not exist"):
        read_params(tmp_path / "03-cohort.yaml")


def test_an_integer_will_do_for_a_float():
    assert checked_value("x", 3, 1.0) == 3.0 and isinstance(checked_value("x", 3, 1.0), float)


def test_command_line_says_one_sentence_and_exits_with_1(smoke_params):
    file = smoke_params("profile: smoke\nmin_wrods: 40")
    done = subprocess.run([sys.executable, "-m", "drgstudy.study", str(file)], capture_output=True, text=True, cwd=ROOT,
                          env={"PYTHONPATH": str(ROOT / "lib"), "PATH": ""})  # fmt: skip
    assert done.returncode == 1
    assert done.stderr.startswith("error: ") and "min_wrods" in done.stderr and "Traceback" not in done.stderr


def stored(folder, monkeypatch, *sources):
    """Make a study without data in `folder`, whose notebook 03 has these cells."""
    monkeypatch.setattr(study.places, "ROOT", folder)
    monkeypatch.setattr(study.places, "NOTEBOOKS", folder / "notebooks")
    cells = [nbformat.v4.new_code_cell('profile = "smoke"', metadata={"tags": ["parameters"]})]
    cells += map(nbformat.v4.new_code_cell, sources)
    metadata = {"kernelspec": {"name": "python3", "display_name": "Python 3", "language": "python"}}
    (folder / "notebooks").mkdir()
    shutil.copy(ROOT / "notebooks" / "studies.yaml", folder / "notebooks")
    nbformat.write(nbformat.v4.new_notebook(cells=cells, metadata=metadata), folder / "notebooks" / "03-cohort.ipynb")


def test_a_kernel_at_rest_is_not_interrupted(smoke_params, tmp_path, monkeypatch, capfd):
    stored(tmp_path, monkeypatch, "1 + 1")
    monkeypatch.setattr(AsyncKernelManager, "_async_interrupt_kernel", None)  # it would log that as an error
    assert study.run_notebook(smoke_params("profile: smoke")).exists()
    assert re.fullmatch(
        r"smoke/03-cohort …\nsmoke/03-cohort done in \d+ s, with at most \d\.\d GB of memory\n", capfd.readouterr().err
    )


def test_a_long_tmpdir_and_a_home_that_is_not_writable_do_no_harm(smoke_params, tmp_path, monkeypatch):
    far = tmp_path / ("x" * 100)  # a socket's path has 107 characters at most
    far.mkdir()
    stored(tmp_path, monkeypatch, "import tempfile; print(tempfile.gettempdir())")
    monkeypatch.setattr(tempfile, "tempdir", None)
    monkeypatch.setenv("TMPDIR", str(far))
    monkeypatch.setenv("HOME", "/proc/nobody")
    for name in ("XDG_RUNTIME_DIR", "JUPYTER_RUNTIME_DIR", "IPYTHONDIR"):
        monkeypatch.delenv(name, raising=False)
    made = nbformat.read(study.run_notebook(smoke_params("profile: smoke")), as_version=4)
    assert made.cells[-1].outputs[0].text == f"{far}\n" and not list(far.iterdir())


def test_where_no_socket_can_be_made_one_sentence_says_so(smoke_params, tmp_path, monkeypatch):
    def bind(self, address):
        raise OSError(errno.EOPNOTSUPP, os.strerror(errno.EOPNOTSUPP))  # as on some network file systems

    stored(tmp_path, monkeypatch, "1")
    monkeypatch.setattr(socket, "socket", type("Socket", (socket.socket,), {"bind": bind}))
    with pytest.raises(StudyError, match=r"needs sockets, and none can be made .* set TMPDIR"):
        study.run_notebook(smoke_params("profile: smoke"))
    assert not list(tmp_path.glob("data/**/*.ipynb"))


def test_ctrl_c_lets_a_cell_tidy_up(smoke_params, tmp_path, monkeypatch):
    began, tidied = tmp_path / "began", tmp_path / "tidied"
    work = f"import pathlib, time\ntry:\n    pathlib.Path({str(began)!r}).touch()\n    time.sleep(60)\n"
    stored(tmp_path, monkeypatch, f"{work}finally:\n    pathlib.Path({str(tidied)!r}).touch()")

    def ctrl_c():
        while not began.exists():
            time.sleep(0.1)
        signal.raise_signal(signal.SIGINT)

    threading.Thread(target=ctrl_c, daemon=True).start()
    before = signal.signal(signal.SIGINT, signal.default_int_handler)  # a worker of pytest-xdist ignores it
    try:
        with pytest.raises(KeyboardInterrupt):
            study.run_notebook(smoke_params("profile: smoke"))
    finally:
        signal.signal(signal.SIGINT, before)
    assert tidied.exists() and not list((tmp_path / "data" / "smoke" / "executed").iterdir())


def test_a_failing_notebook_leaves_nothing_and_says_its_sentence(smoke_params, tmp_path, monkeypatch):
    stored(tmp_path, monkeypatch, "from drgstudy.study import StudyError; raise StudyError('no such table')")
    with pytest.raises(StudyError, match=r"03-cohort\.yaml: no such table$"):
        study.run_notebook(smoke_params("profile: smoke"))
    assert not list((tmp_path / "data" / "smoke" / "executed").iterdir())


@pytest.mark.parametrize(
    ("kind", "said"), [("synthetic", " (no such\nthing: dyspnea)"), ("credentialed", ""), (None, "")]
)
def test_a_traceback_may_quote_a_note_and_stays_in_an_ignored_folder(smoke_params, tmp_path, monkeypatch, kind, said):
    monkeypatch.setattr(study.places, "ROOT", tmp_path)
    if kind:
        write_json(study.Paths("smoke").source, {"kind": kind, "name": "x"})
    cell = nbformat.v4.new_code_cell("1", execution_count=1)
    error = PapermillExecutionError(7, 7, "read(note)", "KeyError", "no such\nthing: dyspnea", ["in read", "dyspnea"])
    outcome = iter([error, nbformat.v4.new_notebook(cells=[cell])])

    def execute(*_given, **_more):
        if isinstance(made := next(outcome), Exception):
            raise made
        return made

    monkeypatch.setattr("papermill.execute_notebook", execute)
    with pytest.raises(StudyError) as found:
        study.run_notebook(smoke_params("profile: smoke"))
    failed = tmp_path / "data" / "smoke" / "failed" / "03-cohort.txt"
    sentence = f"03-cohort.yaml: 03-cohort.ipynb failed in cell 7 with KeyError{' '.join(said.split(chr(10)))}; the traceback is in data/smoke/failed/03-cohort.txt"
    assert str(found.value) == sentence and found.value.__cause__ is None and "dyspnea" in failed.read_text()
    executed = tmp_path / "data" / "smoke" / "executed"
    assert not list(executed.iterdir())
    study.run_notebook(tmp_path / "smoke" / "03-cohort.yaml")
    assert not failed.exists() and nbformat.read(executed / "03-cohort.ipynb", 4).metadata["drgstudy"] == (
        {"kind": kind, "name": "x"} if kind else {"kind": "credentialed", "name": "unknown"}
    )


def test_of_an_executed_notebook_only_results_stay():
    stream = functools.partial(nbformat.v4.new_output, "stream")
    view = nbformat.v4.new_output("display_data", {"application/vnd.jupyter.widget-view+json": {"model_id": "1"}})
    shown = {"text/html": "<table></table>", "text/plain": "<Styler at 0x7fb50cb14f10>"}
    table = nbformat.v4.new_output("display_data", shown)
    outputs = [
        table,
        stream(name="stderr", text="/home/me/x.py: UserWarning"),
        stream(name="stdout", text="42 stays"),
        view,
    ]
    source = '# Parameters\nprofile = "smoke"\nmimic = "/home/me/\\"mimic"\nsettings = {"base": "~/llama", "rank": 8}\nreview = "data/review.csv"\n'
    given = {"profile": "smoke", "mimic": '/home/me/"mimic', "settings": {"base": "~/llama", "rank": 8}}
    about = {
        "parameters": given,
        "input_path": "/home/me/a.ipynb",
        "start_time": "2026-11-22",
        "environment_variables": {},
    }
    notebook = nbformat.v4.new_notebook(
        metadata={"papermill": about, "widgets": {"state": {}}, "language_info": {"name": "python"}}
    )
    times = {"papermill": {"duration": 1.5}, "execution": {"iopub.status.busy": "2026"}}
    notebook.cells = [
        nbformat.v4.new_markdown_cell("the path /home/me of prose stays"),
        nbformat.v4.new_code_cell(source, metadata=times | {"tags": ["injected-parameters"]}),
        nbformat.v4.new_code_cell("1", metadata=times, outputs=outputs),
    ]
    study.results_only(notebook)
    nbformat.validate(notebook)
    assert notebook.metadata == {
        "language_info": {"name": "python"},
        "papermill": {"parameters": {"profile": "smoke", "mimic": "…", "settings": {"base": "…", "rank": 8}}},
    }
    assert [cell.metadata for cell in notebook.cells] == [{}, {"tags": ["injected-parameters"]}, {}]
    assert notebook.cells[1].source.splitlines()[2:] == [
        'mimic = "…"',
        'settings = {"base": "…", "rank": 8}',
        'review = "data/review.csv"',
    ]
    table, said = notebook.cells[2].outputs
    assert said.text == "42 stays" and table.data == {"text/html": "<table></table>"}


def test_two_notebooks_may_run_at_once(smoke_params, tmp_path):
    cells = [nbformat.v4.new_code_cell('profile = "smoke"', metadata={"tags": ["parameters"]})]
    cells += [nbformat.v4.new_code_cell("import time; time.sleep(2); profile")]
    metadata = {"kernelspec": {"name": "python3", "display_name": "Python 3", "language": "python"}}
    (tmp_path / "notebooks").mkdir()
    shutil.copy(ROOT / "notebooks" / "studies.yaml", tmp_path / "notebooks")
    nbformat.write(nbformat.v4.new_notebook(cells=cells, metadata=metadata), tmp_path / "notebooks" / "03-cohort.ipynb")
    run = "import sys; from pathlib import Path; from drgstudy import study; root, notebooks, file = map(Path, sys.argv[1:]); "
    run += "study.places.ROOT, study.places.NOTEBOOKS = root, notebooks; study.run_notebook(file)"
    file, environment = smoke_params("profile: smoke"), os.environ | {"PYTHONPATH": str(ROOT / "lib")}
    both = [
        subprocess.Popen([sys.executable, "-c", run, tmp_path / name, tmp_path / "notebooks", file], env=environment)
        for name in ("one", "two")
    ]
    assert [process.wait(50) for process in both] == [0, 0]
    one, two = (file.read_text() for file in tmp_path.glob("*/data/smoke/executed/03-cohort.ipynb"))
    assert one == two and '"kind": "credentialed"' in one and str(tmp_path) not in one  # whose data, nobody knows


HOSTILE = {  # files of a user's home, and what they say
    ".ipython/profile_default/startup/a.py": "print('from a startup file')",
    ".ipython/profile_default/ipython_kernel_config.py": "c.InlineBackend.figure_formats = {'svg'}",
    ".ipython/profile_default/ipython_config.py": "c.InteractiveShellApp.exec_lines = ['print(7)']",
    ".jupyter/jupyter_config.py": "raise SystemExit",
    ".jupyter/jupyter_notebook_config.json": "{",
    ".config/matplotlib/matplotlibrc": "lines.linewidth: 9\nbackend: pdf\nfont.size: 30",
    ".local/share/jupyter/nbconvert/templates/basic/index.html.j2": "a template of the user's",
    "kernels/kernels/python3/kernel.json": '{"argv": ["false"], "display_name": "x", "language": "python"}',
    "start.py": "print('from PYTHONSTARTUP')",
}


def test_nothing_in_a_users_home_or_environment_has_a_say(smoke_params, tmp_path):
    """A step and its page come out equal byte for byte under other settings of IPython, Jupyter and matplotlib."""
    home = tmp_path / "home"
    for name, text in HOSTILE.items():
        (home / name).parent.mkdir(parents=True, exist_ok=True)
        (home / name).write_text(text)
    cells = [
        nbformat.v4.new_markdown_cell("# Why?"),
        nbformat.v4.new_code_cell('profile = "smoke"', metadata={"tags": ["parameters"]}),
    ]
    draw = "import sys\nfrom drgstudy.plots.style import plt\nprint(sys.prefix, plt.get_backend())\n_ = plt.plot([1, 3, 2])"
    cells.append(nbformat.v4.new_code_cell(draw))
    for number, cell in enumerate(cells):
        cell.id = f"c{number}"
    metadata = {"kernelspec": {"name": "python3", "display_name": "Python 3", "language": "python"}}
    (tmp_path / "notebooks").mkdir()
    shutil.copy(ROOT / "notebooks" / "studies.yaml", tmp_path / "notebooks")
    nbformat.write(nbformat.v4.new_notebook(cells=cells, metadata=metadata), tmp_path / "notebooks" / "03-cohort.ipynb")
    run = "import sys; from pathlib import Path; from drgstudy import report, study; root, notebooks, file = map(Path, sys.argv[1:])\n"
    run += "study.places.ROOT, study.places.NOTEBOOKS = root, notebooks; made = study.run_notebook(file)\n"
    run += "(root / 'page.html').write_text(report._body(made))"
    hostile = {"MPLBACKEND": "Agg", "JUPYTER_PATH": str(home / "kernels"), "PYTHONSTARTUP": str(home / "start.py")}
    hostile |= {
        "HOME": str(home),
        "XDG_CONFIG_HOME": str(home / ".config"),
        "XDG_CACHE_HOME": os.environ.get("XDG_CACHE_HOME", os.path.expanduser("~/.cache")),
    }
    hostile |= {"MATPLOTLIBRC": str(home / ".config" / "matplotlib")}
    made = {}
    for name, more in {"plain": {}, "hostile": hostile}.items():
        command = [sys.executable, "-c", run, tmp_path / name, tmp_path / "notebooks", smoke_params("profile: smoke")]
        subprocess.run(command, env=os.environ | {"PYTHONPATH": str(ROOT / "lib")} | more, check=True, cwd=tmp_path)
        executed = tmp_path / name / "data" / "smoke" / "executed" / "03-cohort.ipynb"
        made[name] = executed.read_bytes(), (tmp_path / name / "page.html").read_bytes()
    assert made["plain"] == made["hostile"]
    outputs = nbformat.read(executed, 4).cells[-1].outputs
    assert (
        outputs[0].text == f"{sys.prefix} module://matplotlib_inline.backend_inline\n"
        and "image/png" in outputs[1].data
    )


def pins(lines) -> set[str]:
    return {line.strip().removeprefix("- ") for line in lines if "==" in line}


def test_lock_and_environment_carry_the_same_exact_pins():
    lock = pins((ROOT / "requirements.lock").read_text().splitlines())
    environment = yaml.safe_load((ROOT / "environment.yml").read_text())
    (conda_pip,) = [entry["pip"] for entry in environment["dependencies"] if isinstance(entry, dict)]
    assert lock == pins(conda_pip) and len(lock) > 100 and "torch==2.13.0" in lock
    assert all(re.fullmatch(r"[\w.-]+==[\w.!]+", pin) for pin in lock)


def test_the_lock_pins_whatever_the_project_asks_for():
    import tomllib

    wanted = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["dependencies"]
    names = {re.split("==", pin)[0].lower().replace("_", "-") for pin in pins((ROOT / "requirements.lock").open())}
    assert {name.lower() for name in wanted} <= names


@pytest.mark.parametrize("file", sorted(NOTEBOOKS.glob("*.ipynb")), ids=lambda f: f.stem)
def test_notebooks_are_stored_clean_and_in_short_cells(file):
    notebook = nbformat.read(file, as_version=4)
    nbformat.validate(notebook)
    first, *_rest = notebook.cells
    assert re.match(r"# .*\?", first.source), "the title is a question"
    code = [cell for cell in notebook.cells if cell.cell_type == "code"]
    assert not any(cell.outputs or cell.execution_count for cell in code)
    assert max(len(cell.source.splitlines()) for cell in code) <= 16
    assert "profile" in study.notebook_parameters(file)


def test_no_machine_path_in_what_git_holds():
    files = subprocess.run(["git", "ls-files"], cwd=ROOT, capture_output=True, text=True)
    if files.returncode:
        pytest.skip("not a git checkout")
    place = re.compile(r"(?<![\w.])/(?:work|root|farm|tmp|home/\w+)/")
    texts = {
        name: Path(ROOT, name)
        for name in files.stdout.split()
        if not name.endswith((".png", ".svg", ".npz", ".parquet"))
    }
    assert not [
        n for n, p in texts.items() if p.is_file() and n != "tests/test_study.py" and place.search(p.read_text())
    ]


@pytest.mark.parametrize(("bar", "shown"), [("", ""), ("half a bar", "half a bar\n"), ("a bar\n", "a bar\n")])
def test_what_follows_a_progress_bar_begins_a_line(bar, shown, capsys, tmp_path):
    with study.notebook._relayed_progress(tmp_path), open(os.environ["DRGSTUDY_PROGRESS"], "a") as channel:
        channel.write(bar)
    assert capsys.readouterr().err == shown


def test_a_command_line_ends_with_its_functions_word_and_what_a_user_can_mend_is_one_sentence():
    def ended(command, *arguments):
        with pytest.raises(SystemExit) as stop:
            study.run_and_exit(command, *arguments)
        return stop.value.code  # None and 0 are success, a text is printed and means 1

    def refuse(path):
        raise StudyError(f"{path} is missing")

    assert ended(lambda: None) is None and ended(int, "3") == 3
    assert ended(refuse, "demo.yaml") == "error: demo.yaml is missing"
    with pytest.raises(ZeroDivisionError):  # a fault of ours keeps its traceback
        study.run_and_exit(lambda: 1 / 0)


@pytest.mark.parametrize(
    ("value", "shown"),
    [
        ("/data/models/llama-7b/", "llama-7b"), ("~/m/llama", "llama"), ("../m/llama", "llama"), ("C:\\m\\llama", "llama"),
        ("\\\\host\\share\\llama", "llama"), ("huggyllama/llama-7b", "llama-7b"), ("minilm-l6", "minilm-l6"), (0.1, 0.1), ("", ""),
        ({"base": "/a/b", "rank": 8, "more": ["/c/d", 1]}, {"base": "b", "rank": 8, "more": ["d", 1]}),
        ("The principal diagnosis (with CC/MCC) was", "The principal diagnosis (with CC/MCC) was"),
    ],
)  # fmt: skip
def test_of_a_place_only_the_last_part_is_shown(value, shown):
    assert study.without_places(value) == shown


def test_fsdp_without_a_gpu_is_refused(monkeypatch, capsys):
    monkeypatch.setenv("ACCELERATE_USE_FSDP", "true")
    monkeypatch.setattr("drgstudy.study.__main__._has_gpu", lambda: False)
    from drgstudy.study.__main__ import main

    assert main(["notebooks/params/smoke/05-train-llama.yaml"]) == 1
    assert "FSDP was asked for, but no GPU is found" in capsys.readouterr().err


def test_a_log_gets_a_line_every_fifteen_seconds_however_often_a_loss_is_known(tmp_path, monkeypatch):
    from drgstudy.checkpoints import Clock

    monkeypatch.setenv("DRGSTUDY_PROGRESS", str(log := tmp_path / "log"))
    monkeypatch.setenv("DRGSTUDY_PROGRESS_SECONDS", "15")
    clock, state = Clock(tmp_path), SimpleNamespace(max_steps=200, global_step=0)
    clock.on_train_begin(None, state, None)
    for step in range(200):
        clock.on_step_end(None, state, None)
        clock.on_log(None, state, None, logs={"loss": 2.0 - step / 200})
    clock.on_train_end(None, state, None)
    lines = re.split(r"[\r\n]+", log.read_text().strip())
    assert len(lines) == 2 and "200/200" in lines[-1] and "loss=1.005" in lines[-1]
