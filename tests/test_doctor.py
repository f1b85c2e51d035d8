"""`make doctor` on machines that are made up: what is missing is named with a remedy, and nothing stops it."""

import ast
import os
import re
import subprocess
import sys
import time

import pytest

from drgstudy import doctor

SOURCE = doctor.ROOT / "lib" / "drgstudy" / "doctor.py"


@pytest.fixture
def machine(tmp_path, monkeypatch):
    """A checkout with nothing installed, on whose PATH is what `has` puts there: commands that print a text."""
    root, path = tmp_path / "checkout", tmp_path / "bin"
    for folder in (root / "data", root / "reports", root / "notebooks" / "params" / "paper", path):
        folder.mkdir(parents=True)
    (root / "requirements.lock").write_text("# pins\nPy_Yaml==6.0\ntorch==2.1\nother==1 ; sys_platform == 'plan9'\n")
    (root / "pyproject.toml").touch()
    monkeypatch.setattr(doctor, "ROOT", root)
    monkeypatch.setattr(doctor.tempfile, "tempdir", "/tmp")
    monkeypatch.setenv("PATH", str(path))
    monkeypatch.setenv("HOME", str(tmp_path))

    def has(name, prints):
        place = path / name if "/" not in name else root / name
        place.parent.mkdir(parents=True, exist_ok=True)
        place.write_text(f"#!/bin/sh\n{prints}\n")
        place.chmod(0o755)

    machine.has, machine.root, machine.env = has, root, root / ".venv"
    return machine


def line(machine, name: str) -> tuple[str, str, str]:
    return doctor.CHECKS[name](machine.env)


def test_a_python_that_is_new_enough_is_found_behind_an_old_one(machine):
    assert line(machine, "Python")[:2] == ("MISSING", "none of 3.11, 3.12 and 3.13 (none)")
    machine.has("python3", "echo 3.9.2")
    state, found, remedy = line(machine, "Python")
    assert (state, found) == ("MISSING", "none of 3.11, 3.12 and 3.13 (3.9.2)") and "python3-venv" in remedy
    machine.has("python3.12", "echo 3.12.1")
    assert line(machine, "Python") == ("ok", "3.12.1, python3.12", "")
    machine.has(".venv/bin/python", "echo 3.13.0")
    assert line(machine, "Python") == ("ok", "3.13.0, of the environment", "")


def test_the_makefile_tries_the_same_pythons():
    for name in ("Makefile", "lib/environment.mk"):
        assert f"for python in {' '.join(doctor.PYTHONS)};" in (SOURCE.parents[2] / name).read_text()


def test_debian_without_venv_and_an_environment_without_pip(machine):
    machine.has("python3", 'case "$*" in *ensurepip*) exit 1;; *) echo 3.11.2;; esac')
    assert line(machine, "venv")[0] == "MISSING" and "apt-get install python3-venv" in line(machine, "venv")[2]
    assert line(machine, "pip")[0] == "ok"
    machine.has(".venv/bin/python", 'case "$*" in *pip*) exit 1;; *) echo 3.11.2;; esac')
    assert line(machine, "pip")[0] == "note" and "make brings it" in line(machine, "pip")[2]
    machine.has(".venv/bin/python", "echo pip 24.0 from /elsewhere/site-packages")
    assert line(machine, "pip") == ("ok", "24.0", "")


def test_an_environment_is_missing_gone_incomplete_old_or_complete(machine):
    assert line(machine, "environment")[:2] == ("note", "none yet")
    (machine.env / "bin").mkdir(parents=True)
    (machine.env / "bin" / "python").symlink_to("/nowhere/python3.10")
    assert line(machine, "environment")[1] == "its Python is gone"
    (machine.env / "bin" / "python").unlink()
    machine.has(".venv/bin/python", "echo 3.12.1")
    packages = machine.env / "lib" / "python3.12" / "site-packages"
    for name in ("PyYAML", "torch-2.1+cpu.dist-info"):
        (packages / name).mkdir(parents=True)
    assert line(machine, "environment")[1] == "1 of 2 pinned packages are not in it as pinned: py-yaml==6.0"
    (packages / "py_yaml-5.9.dist-info").mkdir()
    assert line(machine, "environment")[0] == "note"
    (packages / "py_yaml-6.0.dist-info").mkdir()
    assert "older than what pins them" in line(machine, "environment")[1]
    (machine.env / ".drgstudy-installed").touch()
    assert line(machine, "environment") == ("ok", "complete and up to date: 2 pinned packages", "")
    os.utime(machine.root / "pyproject.toml", (2**31, 2**31))
    assert "`make env`" in line(machine, "environment")[2]


def test_programs_gpu_and_browser(machine):
    assert line(machine, "programs") == ("MISSING", "no make; not there: make, bash, git", "install make, bash, git")
    assert line(machine, "GPU")[:2] == ("ok", "none that CUDA can use") and line(machine, "Chromium")[0] == "note"
    for name in ("make", "bash", "git", "google-chrome"):
        machine.has(name, "echo GNU Make 3.81")
    machine.has("nvidia-smi", "echo 'NVIDIA H200, 143771 MiB'")
    assert line(machine, "programs") == ("ok", "GNU Make 3.81; bash, git", "")
    assert line(machine, "GPU") == ("ok", "NVIDIA H200, 143771 MiB", "")
    assert line(machine, "Chromium") == ("ok", "google-chrome", "")
    machine.has("nvidia-smi", "echo 'NVIDIA-SMI has failed'; exit 9")
    assert line(machine, "GPU")[1] == "none that CUDA can use"


def test_memory_disk_and_processor(machine, monkeypatch):
    monkeypatch.setattr(doctor.os, "sysconf", {"SC_PAGE_SIZE": 4096, "SC_PHYS_PAGES": 10**6}.get)
    assert line(machine, "memory")[:2] == ("note", "4 GB")
    monkeypatch.setattr(doctor.shutil, "disk_usage", lambda place: type("Usage", (), {"free": 5e9}))
    assert line(machine, "disk") == ("note", "5 GB free", "free 10 GB or more")
    said = "flags : sse avx2 avx512f amx_bf16 amx_tile"
    monkeypatch.setattr(doctor.Path, "read_text", lambda file, **how: said)
    monkeypatch.setattr(doctor.os.path, "exists", lambda place: place == "/proc/cpuinfo")
    assert line(machine, "processor")[1].endswith("AMX, AVX-512, AVX2") and line(machine, "processor")[2] == ""
    said = "flags : sse"
    monkeypatch.setattr(doctor.platform, "machine", lambda: "x86_64")
    assert line(machine, "processor")[0] == "note" and "without AVX2" in line(machine, "processor")[1]


@pytest.mark.parametrize("closed", ["the checkout", "its data/", "its reports/"])
def test_places_that_are_closed(machine, monkeypatch, closed):
    assert line(machine, "places")[0] == "ok"
    monkeypatch.setattr(
        doctor.os, "access", lambda place, mode: not f"{place}/".endswith(closed.split()[1].rstrip("/") + "/")
    )
    assert line(machine, "places")[:2] == ("MISSING", f"{closed}: not writable")


def test_a_long_tmpdir_blanks_and_a_closed_home(machine, monkeypatch):
    with monkeypatch.context() as patch:
        patch.setattr(doctor.os, "access", lambda place, mode: place != os.path.expanduser("~"))
        assert line(machine, "places")[1] == "the home folder is not writable"
    monkeypatch.setattr(doctor.tempfile, "tempdir", "/" + "t" * 99)
    assert line(machine, "places")[:2] == ("note", "TMPDIR has 100 characters")
    monkeypatch.setattr(doctor, "ROOT", machine.root.parent / "my checkout")
    assert line(machine, "places")[1] == "the checkout's path has blanks"


def test_the_folders_of_mimic_that_parameters_name(machine):
    params = machine.root / "notebooks" / "params" / "paper"
    (params / "01-hospital.yaml").write_text("profile: paper\nmimic: ~/iv  # change\nmimic_note: '../data/note'\n")
    (params / "20-icu.yaml").write_text('like: other/20-icu\nmimic3: ""\nmask_below: 11\n')
    found = line(machine, "MIMIC")
    assert [(state, said) for state, said, _ in found] == [
        ("note", "mimic of paper/01-hospital.yaml: there is no such folder"),
        ("note", "mimic_note of paper/01-hospital.yaml: there is no such folder"),
    ]
    assert all("notebooks/params/paper/01-hospital.yaml" in remedy for *_, remedy in found)
    hosp = machine.root.parent / "iv" / "2.2" / "hosp"
    hosp.mkdir(parents=True)
    assert line(machine, "MIMIC")[0][1].endswith("no admissions.csv[.gz]")
    (hosp / "admissions.csv.gz").touch()
    assert line(machine, "MIMIC")[0] == ("ok", "mimic of paper/01-hospital.yaml: found", "")


def test_what_hangs_or_fails_is_one_line_and_five_seconds_are_enough(machine, monkeypatch, capsys):
    def fail(env):
        raise PermissionError

    monkeypatch.setattr(doctor, "SECONDS", 0.3)
    monkeypatch.setattr(doctor, "CHECKS", {"slow": lambda env: time.sleep(60), "odd": fail, "disk": doctor.check_disk})
    began = time.monotonic()
    assert doctor.main(".venv") == 0 and time.monotonic() - began < 2
    slow, odd, disk = capsys.readouterr().out.splitlines()
    assert "no answer" in slow and "PermissionError" in odd and "GB free" in disk
    assert doctor.SECONDS < 5


def test_it_runs_under_an_old_python_alone_says_no_place_and_fails_where_something_is_missing(machine, tmp_path):
    ast.parse(SOURCE.read_text(encoding="utf-8"), feature_version=(3, 7))
    imported = re.findall(r"^ *(?:import|from) (\w+)", SOURCE.read_text(encoding="utf-8"), re.MULTILINE)
    assert set(imported) <= sys.stdlib_module_names
    environment = {"PATH": os.environ["PATH"], "HOME": str(tmp_path), "PYTHONHOME": "/nowhere", "LC_ALL": "C"}
    done = subprocess.run([sys.executable, "-I", SOURCE, ".venv"], env=environment, capture_output=True, text=True)
    lines = done.stdout.splitlines()
    assert done.returncode == 1 and len(lines) >= len(doctor.CHECKS) - 1 and not done.stderr
    assert all(said.split()[0] in ("ok", "note", "MISSING") for said in lines)
    assert str(SOURCE.parents[2]) not in done.stdout and str(tmp_path) not in done.stdout


def test_make_runs_it_with_nothing_installed_and_refuses_windows_in_a_sentence(tmp_path):
    made = {"cwd": SOURCE.parents[2], "capture_output": True, "text": True}
    done = subprocess.run(["make", "doctor", f"ENV={tmp_path}/none", "MAKEFLAGS="], **made)
    assert "environment  none yet" in done.stdout and not (tmp_path / "none").exists()
    done = subprocess.run(["make", "doctor", "OS=Windows_NT"], **made)
    assert done.returncode and "on Windows run make inside WSL2" in done.stderr
