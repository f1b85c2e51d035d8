"""What make is about to do: which steps are due, how long each took last time, and how much is left.

`announce` is called once, before make's first step. Each step then says which of how many it is (`said`), and notes how
long it took. Where a step has not run here, the times of the committed report are taken.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Iterable
from pathlib import Path

from drgstudy.study.files import read_json, write_json
from drgstudy.study.places import Paths
from drgstudy.study.registry import studies


def announce(profile: str, goals: str, file: str, trained: str = "") -> None:
    """Print what make will do for its goals, and write it to `file` for `said`: each step that is due, and its seconds.

    Parameters
    ----------
    profile : str
    goals : str
        As they are typed.
    file : str
    trained : str
        "figures" if trainings are left out.
    """
    from drgstudy.study import graph  # which make runs by itself: it must not have been imported with the package

    among = graph.steps(profile)
    asked = [name for goal in goals.split() for name in _wanted(among, goal)]
    coming = due(profile, among, graph.waits_for(among, asked), without_training=trained == "figures")
    took = times(Paths(profile))
    write_json(Path(file), {name: took.get(name) for name in coming})
    if not coming:
        return
    known = [took[name] for name in coming if name in took]
    about = f", which took {_minutes(sum(known))} last time" if known else ""
    about += f" ({len(coming) - len(known)} of them have not run before)" if known and len(known) < len(coming) else ""
    print(f"{profile}: {len(coming)} of {len(among)} steps are due{about}", file=sys.stderr)


def _wanted(among: dict, goal: str) -> list[str]:
    from drgstudy.study import graph

    goals = {"all": [study.goal for study in studies()], "figures": [study.goal for study in studies()]}.get(
        goal, [goal]
    )
    return [name for each in goals for name in graph.wanted(among, each)]


def due(profile: str, among: dict, names: Iterable[str], without_training: bool = False) -> list[str]:
    """Those of some steps (`among`: as `graph.steps`) that make will run: what they read is newer than they are, or will be."""
    from drgstudy.study import graph

    found: dict[str, bool] = {}

    def is_due(name: str) -> bool:
        if name not in found:
            others, files = graph.needed(among[name], among)
            made = Paths(profile).executed / f"{name}.ipynb"
            when = made.stat().st_mtime if made.is_file() else 0
            waits = [is_due(other) for other in sorted(others)]
            skipped = without_training and graph.needs_training(among[name])
            newer = any(file.stat().st_mtime > when for file in files | among[name].files() if file.is_file())
            found[name] = not skipped and (not when or any(waits) or newer)
        return found[name]

    return [name for name in sorted(names) if is_due(name)]


def times(paths: Paths) -> dict[str, float]:
    """Seconds that each step of a profile took when it last ran: here, or else for the committed report."""
    costs = paths.report / "costs.json"
    committed = read_json(costs).get("seconds", {}) if costs.is_file() else {}
    return committed | {file.stem: read_json(file) for file in paths.seconds.glob("[!.]*.json")}


def note(step: str, paths: Paths, seconds: float) -> None:
    """Note how long a step took. A training that was taken as it is says nothing of how long it takes."""
    file = paths.seconds / f"{step}.json"
    longest = read_json(file) if file.is_file() and "-train-" in step else 0.0
    write_json(file, max(longest, round(seconds, 1)))


def said(step: str, paths: Paths) -> str:
    """Which step this is of how many, and how much is left, as long as make says so; otherwise "…"."""
    file = Path(os.environ.get("MAKE_OUTLOOK", ""))
    coming = read_json(file) if file.is_file() else {}
    if step not in coming:
        return "…"
    began = float(os.environ["MAKE_BEGAN"])
    made = [n for n in coming if (e := paths.executed / f"{n}.ipynb").is_file() and e.stat().st_mtime > began]
    left = [coming[name] for name in coming if name not in made]
    about = "" if None in left else f", about {_minutes(sum(left))} left"
    return f"(step {len(made) + 1} of {len(coming)}{about}) …"


def taken_as_they_are(steps: Iterable[str]) -> None:
    """Note of some steps that are due that they will take no time, for their trainings are done."""
    file = Path(os.environ.get("MAKE_OUTLOOK", ""))
    if file.is_file():
        coming = read_json(file)
        write_json(file, coming | {name: 0.0 for name in steps if name in coming})


def _minutes(seconds: float) -> str:
    return f"{seconds:.0f} s" if seconds < 90 else f"{seconds / 60:.0f} minutes"
