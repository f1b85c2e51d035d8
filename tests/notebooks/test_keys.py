"""No run is trained again unless somebody means it: what identifies the trainings is held in ``keys.json``.

A change of the code that shapes a training, of a run's settings, or of what the hospital writes costs every author
hours. Where it is meant, ``python tests/notebooks/test_keys.py`` writes the file anew, after `make report early
PROFILE=smoke`; say in CHANGELOG.md what is to be trained again.
"""

import hashlib
import json
from pathlib import Path

import pandas as pd

from drgstudy import runs
from drgstudy.study import NOTEBOOKS, Paths, notebook_of, notebook_parameters, read_json, read_params, write_json

HELD = Path(__file__).with_name("keys.json")


def digest(*what) -> str:
    return hashlib.sha256(json.dumps(what).encode()).hexdigest()[:16]


def of_runs() -> dict[str, str]:
    """What identifies each run of the demo, but for the stays."""
    found = {}
    for file in sorted((NOTEBOOKS / "params" / "demo").glob("*-train-*.yaml")):
        given = notebook_parameters(notebook_of(file)) | read_params(file)
        more = "inputs" if "system" in given else "labels.TwoLabels" if given["labels"] == "two" else ""
        kept = {name: value for name, value in given.items() if name not in ("profile", "like", "mask_below")}
        kept = {name: value for name, value in kept.items() if value or name not in ("until", "as_many")}
        kept["settings"] = runs._settings(given["model"], given["settings"])
        found[given["run"]] = digest(kept, runs.code_of(given["model"], more))
    return found


def of_stays() -> dict[str, str]:
    """What the smoke study reads of its stays: texts, labels and parts."""
    early = Paths("smoke", "early")
    tables = {"stays": Paths("smoke").stays, "notes": early.notes} | {
        name: early.cohort(name) for name in ("ms", "apr")
    }
    return {name: digest(pd.read_parquet(file).astype(str).to_numpy().tolist()) for name, file in tables.items()}


def test_no_runs_key_has_changed(study):
    held, found = read_json(HELD), {"runs": of_runs(), "stays": of_stays()}
    for part, of in found.items():
        changed = sorted(name for name in of.keys() & held[part].keys() if of[name] != held[part][name])
        assert not changed, (
            f"other {part} than keys.json holds: {', '.join(changed)}; if that is meant, see this file's head"
        )
        assert of.keys() == held[part].keys()


if __name__ == "__main__":
    write_json(HELD, {"runs": of_runs(), "stays": of_stays()})
