"""How long a user waits before anything happens: for the library's import, and for a `make report` with nothing to do.

python benchmarks/startup.py [--times 5] [--json FILE]
"""

from __future__ import annotations

import argparse
import os
import statistics
import subprocess
import sys
import time
from pathlib import Path

import pandas as pd

from drgstudy.study import ROOT, write_json

PROFILES = ("demo", "smoke")
NEURAL = ("models", "training", "checkpoints")  # modules that import torch, to build and train networks
OUTER = ("MAKEFLAGS", "MFLAGS", "MAKELEVEL", "MAKEOVERRIDES", "PROFILE")  # variables set by a make that runs this


def modules(neural: bool) -> list[str]:
    """Names of the library's modules: those that import torch, or all others."""
    names = (
        ".".join(file.relative_to(ROOT / "lib").with_suffix("").parts) for file in ROOT.glob("lib/drgstudy/**/*.py")
    )
    names = sorted(name.removesuffix(".__init__") for name in names)
    return [name for name in names if neural == (name.partition(".")[2].partition(".")[0] in NEURAL)]


def run(command: list[str], **options) -> subprocess.CompletedProcess:
    """Run a command at the repository's root, in this Python's environment."""
    inherited = {key: value for key, value in os.environ.items() if key not in OUTER}
    return subprocess.run(
        command, cwd=ROOT, env=inherited | {"VIRTUAL_ENV": sys.prefix}, capture_output=True, **options
    )


def up_to_date(profile: str) -> bool:
    """Whether the profile's `make report` has nothing to do."""
    question = run(["make", "--question", f"reports/{profile}/index.html", f"PROFILE={profile}"])
    return question.returncode == 0


def seconds(command: list[str], times: int) -> float:
    """Median wall-clock seconds of a command, run in a fresh process each time."""
    taken = []
    for _ in range(times):
        start = time.perf_counter()
        run(command, check=True)
        taken.append(time.perf_counter() - start)
    return statistics.median(taken)


def main() -> None:
    """Measure and print a table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--times", type=int, default=5, help="fresh processes behind each median")
    parser.add_argument("--json", type=Path, help="write the measurements here")
    chosen = parser.parse_args()
    measured = []

    def measure(name: str, data: str, ours: list[str] | None, plain: list[str] | None, limit: float | None, note: str):
        """Add a measurement of two commands; a command that is None is not measured."""
        taken, eager = (command and seconds(command, chosen.times) for command in (ours, plain))
        about = {"name": name, "data": data, "unit": "s", "ours": taken, "plain": eager, "equal": "", "note": note}
        about |= {"plain_is": "imported with torch and transformers" if plain else ""}
        about |= {"goal": f"under {limit:g} s" if limit else "", "met": taken < limit if taken and limit else None}
        measured.append(about | {"ratio": eager / taken if plain else None})

    def importing(names: list[str]) -> list[str]:
        return [sys.executable, "-c", f"import {', '.join(names)}"]

    light, neural = modules(neural=False), importing(modules(neural=True))
    median = f"median of {chosen.times} fresh processes, Python's own start included"
    measure("import drgstudy", "the package", importing(["drgstudy"]), neural, 0.5, median)
    measure("import all but models and training", f"{len(light)} modules", importing(light), None, None, median)
    profile = next(filter(up_to_date, PROFILES), None)
    report = profile and ["make", "report", f"PROFILE={profile}"]
    note = median if profile else f"no profile is up to date: make report PROFILE={PROFILES[0]}"
    measure("make report, nothing to do", f"profile {profile}" if profile else "", report, None, 3, note)
    print(
        pd.DataFrame(measured)[["name", "data", "ours", "plain", "unit", "ratio", "goal", "met"]].to_string(index=False)
    )
    if chosen.json:
        write_json(chosen.json, measured)


if __name__ == "__main__":
    main()
