"""What of a profile is made, and how long each notebook takes: the table of notebook 00-index."""

from __future__ import annotations

import os

import pandas as pd

from drgstudy.study import outlook, places
from drgstudy.study.parameters import notebook_of
from drgstudy.study.places import Paths


def steps(profile: str) -> pd.DataFrame:
    """A row for each notebook of a profile: whether its steps are made here, and the seconds that they took.

    Returns
    -------
    DataFrame
        Indexed by notebook. ``steps``, how many parameter files it has; ``made``, how many of them were executed here;
        ``seconds``, what those took last of which that is known, here or for the committed report.
    """
    took, paths = outlook.times(Paths(profile)), Paths(profile)
    files = sorted((places.NOTEBOOKS / "params" / profile).glob("*.yaml"))
    rows = [
        (notebook_of(file).stem, (paths.executed / f"{file.stem}.ipynb").is_file(), took.get(file.stem))
        for file in files
    ]
    table = pd.DataFrame(rows, columns=["notebook", "made", "seconds"]).astype({"seconds": float})
    return table.groupby("notebook").agg(
        steps=("made", "size"), made=("made", "sum"), seconds=("seconds", lambda each: each.sum(min_count=1))
    )


def shown(profile: str):
    """The table of `steps` with links to the notebooks; in a run by make, whose page would soon be wrong, a sentence."""
    from IPython.display import Markdown

    if "DRGSTUDY_PROGRESS" in os.environ:
        return Markdown("Run this notebook by hand to see which steps are made, and how long each took.")
    lines = ["| notebook | made | minutes |", "|---|---|---|"]
    for name, row in steps(profile).iterrows():
        done = {0: "missing", row["steps"]: "✓"}.get(row["made"], f"{row['made']:.0f} of {row['steps']:.0f}")
        took = f"{row['seconds'] / 60:.1f}" if row["seconds"] == row["seconds"] else "–"
        lines.append(f"| [{name}]({name}.ipynb) | {done} | {took} |")
    return Markdown("\n".join(lines))


def plain(value) -> str:
    """A parameter's value for readers: of several, one after the other."""
    if isinstance(value, dict):
        return "; ".join(f"{key} {plain(each)}" for key, each in value.items()) or "none"
    if isinstance(value, list):
        return ", ".join(map(plain, value)) or "none"
    return ("no", "yes")[value] if isinstance(value, bool) else str(value) or "none"
