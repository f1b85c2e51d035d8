"""The Makefile by dry runs on a copy of what git holds: which environment it uses, and what it thinks is to be done."""

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from drgstudy.study import ROOT


@pytest.fixture
def copy(tmp_path):
    """The files that git holds, as a fresh clone has them: all of one age, nothing generated."""
    listed = subprocess.run(["git", "ls-files"], cwd=ROOT, capture_output=True, text=True)
    if listed.returncode:
        pytest.skip("not a git checkout")
    for name in listed.stdout.split("\n")[:-1]:
        target = tmp_path / name
        target.parent.mkdir(parents=True, exist_ok=True)
        if (ROOT / name).exists():
            shutil.copy(ROOT / name, target)
    for name in ("requirements.lock", "pyproject.toml"):
        os.utime(tmp_path / name, (0, 0))  # older than the environment in use, into which nothing is to be installed
    return tmp_path


def make(folder: Path, *arguments, **environment) -> str:
    """Output of make in `folder` with only this environment active, by default the one that runs this test."""
    clean = {k: v for k, v in os.environ.items() if not k.startswith(("VIRTUAL_ENV", "CONDA", "MAKE", "PYTHONPATH"))}
    environment = environment or {"VIRTUAL_ENV": sys.prefix}
    done = subprocess.run(["make", *arguments], cwd=folder, env=clean | environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_a_fresh_clone_does_all_the_work_although_the_report_is_committed(copy):
    (copy / "reports" / "demo").mkdir(parents=True, exist_ok=True)
    for name in ("index.html", "numbers.json"):
        (copy / "reports" / "demo" / name).touch()
    plan = make(copy, "--dry-run", "report")
    steps = {file.stem for file in (copy / "notebooks" / "params" / "demo").glob("*.yaml")}
    early = {step for step in steps if step[0] in "23"}
    ran = re.findall(r"study notebooks/params/demo/([\w-]+)\.yaml ", plan)
    assert set(ran) == steps - early
    assert ran.index("05-train-probe") < ran.index("05-train-llama") < ran.index("06-results")
    assert "drgstudy.report demo" in plan
    ran = re.findall(r"study notebooks/params/demo/([\w-]+)\.yaml ", make(copy, "--dry-run", "early"))
    assert set(ran) == early and len(ran) == len(early)
    for order in (
        ["20-icu", "21-early-cohort", "22-measurements", "23-early-train-lstm-ms", "24-early-results"],
        ["21-early-cohort", "23-early-train-caml-ms", "25-case-mix"],
        ["23-early-train-caml-apr-weight", "26-regression"],
        ["23-early-train-caml-ms-known", "28-early-splits"],
    ):
        assert [ran.index(step) for step in order] == sorted(ran.index(step) for step in order)
    assert set(re.findall(r"study notebooks/params/demo/([\w-]+)\.yaml ", make(copy, "--dry-run", "all"))) == steps


def test_the_profile_for_one_gpu_is_a_whole_study_of_its_own(copy):
    ran = re.findall(r"study notebooks/params/gpu/([\w-]+)\.yaml ", make(copy, "--dry-run", "report", "PROFILE=gpu"))
    assert set(ran) == {file.stem for file in (copy / "notebooks" / "params" / "gpu").glob("*.yaml")}
    order = [
        "03-cohort",
        "05-train-probe",
        "05-train-llama",
        "06-results",
        "05-train-llama-small",
        "08-size-and-length",
    ]
    assert [ran.index(step) for step in order] == sorted(ran.index(step) for step in order)


@pytest.mark.parametrize(
    ("environment", "prefix"),
    [
        ({}, ".venv"),
        ({"VIRTUAL_ENV": "/envs/mine"}, "/envs/mine"),
        ({"CONDA_DEFAULT_ENV": "drgstudy", "CONDA_PREFIX": "/conda/envs/drgstudy"}, "/conda/envs/drgstudy"),
        ({"CONDA_DEFAULT_ENV": "base", "CONDA_PREFIX": "/conda"}, ".venv"),
    ],
)
def test_an_active_environment_is_used_and_condas_base_is_none(copy, environment, prefix):
    plan = make(copy, "--dry-run", "report", **environment or {"HOME": "/"})
    assert f'"{prefix}/bin/python" -m pip install -r requirements.lock' in plan
    assert f'"{prefix}/bin/python" -m drgstudy.guard' in plan and ("venv --clear .venv" in plan) == (prefix == ".venv")
    assert not (copy / ".venv").exists() and not (copy / ".make").exists()  # a dry run installs nothing


def test_help_explains_every_target(copy, **environment):
    named = re.search(r"^\.PHONY: (help.*)", (copy / "Makefile").read_text(), re.MULTILINE)[1].split()
    explained = re.findall(r"^  (\w+) +\S", make(copy, **environment), re.MULTILINE)
    assert sorted(explained) == sorted(named)


def test_clean_removes_what_make_made_and_nothing_else(copy, **environment):
    subprocess.run(["git", "init", "-q"], cwd=copy, check=True)
    made = ["data/demo/stays.parquet", "data/smoke/raw/x.csv.gz", "reports/smoke/index.html"]
    kept = [
        "data/demo/review/harmonization.csv",
        "data/demo/review.csv",
        "data/models/m/model.safetensors",
        "data/mine/notes.csv",
        "reports/demo/index.html",
        "mine.txt",
    ]
    for name in made + kept:
        (copy / name).parent.mkdir(parents=True, exist_ok=True)
        (copy / name).touch()
    make(copy, "clean", **environment)
    assert not any((copy / name).exists() for name in made) and all((copy / name).exists() for name in kept)


def unprivileged(*command) -> list:
    """A command for which file permissions count, also when root runs it."""
    if os.geteuid():
        return command
    if not shutil.which("setpriv"):
        pytest.skip("root is stopped by no permission, and there is no setpriv to do without its rights")
    return ["setpriv", "--bounding-set=-all", "--inh-caps=-all", *command]


@pytest.mark.parametrize(
    ("active", "says"), [(True, r"nothing can be written into \S*/\.make"), (False, "not writable")]
)
def test_a_read_only_checkout_is_one_sentence(copy, active, says):
    environment = dict(os.environ, PYTHONPATH="", PYTHONDONTWRITEBYTECODE="1", VIRTUAL_ENV=sys.prefix if active else "")
    for folder in (copy, *filter(Path.is_dir, copy.rglob("*"))):
        folder.chmod(0o555)
    try:
        command = unprivileged("make", "report")
        done = subprocess.run(command, cwd=copy, env=environment, capture_output=True, text=True)
    finally:
        for folder in (copy, *filter(Path.is_dir, copy.rglob("*"))):
            folder.chmod(0o755)
    first, *rest = [line for line in done.stderr.splitlines() if "No such file or directory" not in line]
    assert done.returncode and re.match(f"error: .*{says}", first) and all(line.startswith("make") for line in rest)


def test_jupyterlab_starts_as_root_too_and_takes_arguments(copy):
    plan = make(copy, "--dry-run", "notebook", "ARGS=--ip=0.0.0.0 --no-browser")
    assert plan.rstrip().endswith("--ip=0.0.0.0 --no-browser") and ("--allow-root" in plan) == (os.geteuid() == 0)


@pytest.mark.parametrize("tools", ["busybox", "original-awk"])
def test_help_and_clean_need_no_gnu_tools(copy, tools, tmp_path_factory):
    """With busybox for every tool, its shell too, or with the awk of BSD and macOS."""
    if not (found := shutil.which(tools)):
        pytest.skip(f"{tools} is not installed")
    folder = tmp_path_factory.mktemp("tools")
    applets = ["awk"] if tools != "busybox" else subprocess.check_output([found, "--list"], text=True).split()
    for name in applets:
        (folder / name).symlink_to(found)
    for name in ("make", "git", "python3"):
        (folder / name).symlink_to(shutil.which(name))
    environment = {"PATH": str(folder) if tools == "busybox" else f"{folder}:{os.environ['PATH']}"}
    environment |= {"VIRTUAL_ENV": sys.prefix, "MAKEFLAGS": f"SHELL={folder}/sh" if tools == "busybox" else ""}
    test_help_explains_every_target(copy, **environment)
    test_clean_removes_what_make_made_and_nothing_else(copy, **environment)
    assert "drgstudy.guard demo" in make(copy, "--dry-run", "report", **environment)


def test_no_recipe_has_what_only_gnu_tools_know():
    gnu = r"sed -\w*[rE]|\\t/|date -[rd]|find .*-(m..depth|mmin|printf)|grep -\w*P|readlink -f|xargs -r|stat -c|\[\[|&>|mktemp"
    lines = [line for name in ("Makefile", "lib/environment.mk") for line in (ROOT / name).read_text().splitlines()]
    found = [line for line in lines if re.search(gnu, line)]
    assert not found and re.search(gnu, r"@sed -nE 's/^a/\1\t/p'")


def test_whatever_writes_pages_ends_with_the_guard(copy):
    goals = ["data", "cohort", "hospital", "train", "headline", "report", "early"]
    lines = make(copy, "--dry-run", *goals).splitlines()
    guards = [number for number, line in enumerate(lines) if "drgstudy.guard demo" in line]
    steps = [number for number, line in enumerate(lines) if "drgstudy.study notebooks" in line]
    assert len(guards) == len(goals) and min(steps) < guards[0] and max(steps) < guards[-1]


def test_figures_make_no_page_before_the_released_runs_lie_there(copy):
    """Such a page would drop the committed pages of their trainings."""
    first, second, *_ = make(copy, "--dry-run", "figures").splitlines()
    before = make(copy, "--dry-run", *first.partition(" make ")[2].split())
    assert "drgstudy.study notebooks" in before and "drgstudy.report" not in before and "release place" in second
