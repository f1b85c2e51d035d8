"""A grid of runs: a parameter file for each point of the grid, and Ray to run them side by side.

    python cluster/sweep.py notebooks/params/paper/05-train-llama.yaml settings.max_tokens=340,512,1024 seed=1,2,3

The files are written beside the one that they name by `like`, and hold what differs. They are runs of the profile like
any other: `make` knows them, a finished one is not run again, and a killed one goes on from its last checkpoint. With
--dry-run the files are only written, and those still to be run are listed, for any other engine that can run
``python -m drgstudy.study FILE`` (Slurm: sweep.sbatch).
"""

from __future__ import annotations

import argparse
import os
import re
import subprocess
import sys
from pathlib import Path

import yaml
from sklearn.model_selection import ParameterGrid

from drgstudy import models
from drgstudy.study import Paths, StudyError, atomic, checked_settings, notebook_of, over, plain_yaml, read_params


def grid(axes: list[str]) -> dict[str, list]:
    """Values by parameter, in the given order: "seed=1,2" gives {"seed": [1, 2]}. Values are written as in YAML."""
    values = {}
    for axis in axes:
        name, _, listed = axis.partition("=")
        try:
            values[name] = plain_yaml(f"[{listed}]")
        except ValueError:
            values[name] = []
        if not values[name]:
            raise StudyError(f"{axis}: expected NAME=VALUE,VALUE,… with values as in YAML")
    return values


def point_name(point: dict) -> str:
    """What is added to a run's name: "-512-s1" for 512 tokens and seed 1. A path or model id adds its last part."""
    prefix = {"seed": "s", "folds": "fold"}
    values = {name: re.sub(r"[^\w-]+", "_", str(value).split("/")[-1]).strip("_") for name, value in point.items()}
    return "".join(f"-{prefix.get(name, '')}{value}" for name, value in values.items())


def write_grid(source: Path, axes: dict[str, list]) -> list[Path]:
    """Write the parameter files of a grid beside `source`, unless they are there, and return all of them.

    After an error, none of the new ones is left.

    Raises
    ------
    StudyError
        If `source` trains no model, a parameter or setting is unknown or of the wrong type, or a file of one of these
        names holds other values.
    """
    if not {"run", "model"} <= read_params(source).keys():
        raise StudyError(f"{source}: expected the parameter file of a training run, with `run` and `model`")
    files, written = [], []
    try:
        for chosen in ParameterGrid(axes):
            point = {name: chosen[name] for name in axes}
            file = source.with_name(f"{source.stem}{point_name(point)}.yaml")
            run = file.stem.removeprefix(f"{notebook_of(source).stem}-")
            given = {"profile": source.parent.name, "run": run, "like": source.stem} if point else {}
            for name, value in point.items():
                setting = name.removeprefix("settings.")
                (given if setting == name else given.setdefault("settings", {}))[setting] = value
            if not file.exists():
                written.append(file)
                with atomic(file) as beside:
                    beside.write_text(yaml.safe_dump(given, sort_keys=False), encoding="utf-8")
            if (values := read_params(file)) != over(read_params(source), given):
                raise StudyError(f"{file} holds other values than those of this grid; remove or rename it")
            try:
                checked_settings(models.module(values["model"]).Settings, values.get("settings", {}))
            except StudyError as error:
                raise StudyError(f"{file}: {error}") from None
            files.append(file)
    except BaseException:
        for file in written:
            file.unlink(missing_ok=True)
        raise
    return list(dict.fromkeys(files))


def finished(file: Path) -> bool:
    """Whether a run's executed notebook is there and newer than its parameter file."""
    executed = Paths(file.resolve().parent.name).executed / f"{file.stem}.ipynb"
    return executed.exists() and executed.stat().st_mtime > file.stat().st_mtime


def run(file: str) -> str:
    """Run one parameter file in its own process, and return what went wrong, or ""."""
    said = ""
    command = [sys.executable, "-m", "drgstudy.study", file]
    with subprocess.Popen(command, stderr=subprocess.PIPE, text=True, errors="replace") as process:
        for line in process.stderr:
            print(line, end="", file=sys.stderr, flush=True)  # Ray shows it where the sweep was started
            if line.startswith("error: "):
                said = line.removeprefix("error: ").strip()
    return "" if process.returncode == 0 else said or f"ended with exit code {process.returncode}"


def sweep(files: list[Path], cpus: float, gpus: float) -> dict[Path, str]:
    """Run parameter files on Ray, each as soon as its share of processors is free.

    If RAY_ADDRESS names a cluster, it is used; all its machines must see this folder under the same path. Otherwise Ray
    is started on this machine. `cpus` and `gpus` are for each run.

    Returns
    -------
    dict of Path to str
        Why each of the failed runs failed.
    """
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    try:
        import ray
    except ModuleNotFoundError:
        raise StudyError("Ray is not installed; `make env EXTRAS=cluster` installs it") from None

    ray.init(include_dashboard=False)
    if "RAY_ADDRESS" not in os.environ and any(
        ray.cluster_resources().get(kind, 0) < share for kind, share in (("CPU", cpus), ("GPU", gpus))
    ):
        raise StudyError(f"each run was to have {cpus:g} CPUs and {gpus:g} GPUs; this machine has fewer")
    # A killed run is not tried again: the same command resumes the sweep.
    task = ray.remote(num_cpus=cpus, num_gpus=gpus, max_retries=0)(run)
    failed, running = {}, {file: task.remote(str(file.resolve())) for file in files}
    for file, reference in running.items():
        try:
            said = ray.get(reference)
        except ray.exceptions.RayError as error:
            said = f"its Ray worker was lost ({type(error).__name__})"
        if said:
            failed[file] = said
    ray.shutdown()
    return failed


def main(arguments: list[str]) -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument(
        "file", nargs="+", help="parameter files of training runs, and the grid's axes NAME=VALUE,VALUE,…"
    )
    parser.add_argument("--cpus", type=float, default=1, help="CPU cores for each run (1)")
    parser.add_argument("--gpus", type=float, default=0, help="GPUs for each run (0)")
    parser.add_argument("--dry-run", action="store_true", help="write the files, and list those not yet run")
    options = parser.parse_intermixed_args(arguments)  # the axes may stand behind the options, as in the README
    if not (sources := [Path(file) for file in options.file if "=" not in file]):
        parser.error("no parameter file is given")
    try:
        axes = grid([axis for axis in options.file if "=" in axis])
        files = [file for source in sources for file in write_grid(source, axes)]
        waiting = [file for file in files if not finished(file)]
        if options.dry_run:
            print(*waiting, sep="\n")
            return 0
        failed = sweep(waiting, options.cpus, options.gpus) if waiting else {}
    except StudyError as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("stopped; the same command goes on where the runs were", file=sys.stderr)
        return 130
    for file, said in failed.items():
        print(f"failed: {file}: {said}", file=sys.stderr)
    print(f"{len(files)} runs: {len(files) - len(failed)} finished, {len(failed)} failed", file=sys.stderr)
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
