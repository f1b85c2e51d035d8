"""``make verify``: does a fresh report agree with the one in git? Compared table by table, with stated tolerances.

Two runs on one machine are equal bit for bit. Another processor, number of threads or numeric type orders or rounds
sums differently, so that training ends with a slightly different model. Therefore a number in ``numbers.json``, or in
``tables/``, may differ

- by rounding alone, 1e-9 of itself (in a table, which has six digits, 1e-5), if no trained model takes part: cohorts, settings, what was measured (`FIXED`);
- by its spread, if it has one: half its 95 % interval, two standard deviations, or 1/√n of n stays (at least two
  standard errors of a share), whichever is largest. The test stays can't tell such models apart;
- by any amount, if it has no spread (p values, sentences, counts of errors, medians of a few DRGs), but only if a
  number with a spread, or what the report was made with, differs too: all follow from the same predictions.

Versions and fingerprints of files say what a report was made with. They are printed, not judged. Costs are left out. Of a
table the numbers are compared, not how they are printed.
"""

from __future__ import annotations

import io
import json
import math
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pandas as pd

from drgstudy.study import Paths, StudyError, places, read_json, run_and_exit

ROUNDING = 1e-9
OF_TABLES = 1e-5  # they have six digits
COSTS = ("cost", "time-gains")  # tables of what no rerun repeats; of the claims, those on times
MADE_WITH = re.compile(r"\b(versions\..*|\w*fingerprint|predictions)$")
FIXED = re.compile(  # whole topics and tables; then names of numbers in all of them
    r"^tables\.[\w-]*published\b|"
    r"^(early_cohort|measurements|hardness\.(about|shape|criteria)|(results|early_results)\.(dataset|models|runs))\b"
    r"|^text\.(train_|test_|top_|words_p|median_cases|above_)"
    r"|\b(bins|seed|payment|base_payment|resamples\w*|sample|draws|published_tokens|run|runs\..*|single|drg_set|models"
    r"|compared\..*|known_\w+|stays|stays\.\w+|test_stays|(n|percent)_\w+(\.value)?|(cmi|dollars)_true)$"
)
SPREAD_OF_OTHERS = {"p", "p_holm", "sentence", "verdict", "note"}  # the spread beside these is not theirs


def at_head(profile: str) -> dict:
    """The numbers of the report at git's HEAD, and of its tables; raises StudyError if there is none."""
    file = f"reports/{profile}/numbers.json"
    try:
        if _git("rev-parse", "HEAD").returncode:
            raise StudyError(
                f"{places.ROOT} is no git checkout (a downloaded zip has no history): clone the repository instead"
            )
        shown = _git("show", f"HEAD:./{file}")
    except FileNotFoundError:
        raise StudyError("git is not installed, and only git has the report to compare with") from None
    if shown.returncode:
        raise StudyError(f"git holds no {file} at HEAD, so there is nothing to compare with; commit a report first")
    listed = _git("ls-tree", "--name-only", "HEAD", f"./reports/{profile}/tables/").stdout.split()
    return json.loads(shown.stdout) | rows_of({Path(file): _git("show", f"HEAD:./{file}").stdout for file in listed})


def rows_of(files: dict[Path, str]) -> dict:
    """The rows of tables as `leaves` takes them, under "tables", from the files' texts; without costs. {} if there are none."""
    files = {file.stem: text for file, text in files.items() if file.suffix == ".csv" and file.stem not in COSTS}
    if not files:
        return {}
    from drgstudy.claims import TIMES  # which loads a lot

    found = {}
    for name, text in files.items():
        rows = [row.dropna() for _, row in pd.read_csv(io.StringIO(text)).drop(columns="dataset").iterrows()]
        found[name] = {str(i): row.to_dict() for i, row in enumerate(rows) if row.get("id") not in TIMES}
    return {"tables": found}


def _git(*arguments: str) -> subprocess.CompletedProcess:
    return subprocess.run(["git", *arguments], cwd=places.ROOT, capture_output=True, encoding="utf-8")


def leaves(node, place: str = "", spread: float | None = None) -> Iterator[tuple[str, object, float | None]]:
    """Place ("results.seed"), value and spread of every number, text and null; a list's spread holds for its values."""
    if not isinstance(node, dict | list):
        yield place, node, None if place.rpartition(".")[2] in SPREAD_OF_OTHERS else spread
        return
    for key, inner in node.items() if isinstance(node, dict) else enumerate(node):
        beside = _spread(node, key) if isinstance(node, dict) else spread
        yield from leaves(inner, f"{place}.{key}".lstrip("."), beside)


def _spread(row: dict, key: str) -> float | None:
    numbers = {name: value for name, value in row.items() if _is_number(value)}
    own = re.sub("_mean$", "_std", key) if key.endswith(("_mean", "_std")) else "sd"
    found = [2 * numbers[own]] if own in numbers else []
    if {"lower", "upper"} <= numbers.keys():
        found.append((numbers["upper"] - numbers["lower"]) / 2)
    if numbers.get("n_stays"):
        found.append(1 / math.sqrt(numbers["n_stays"]))
    return max(found, default=None)


def _is_number(value) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)


def compare(held: dict, fresh: dict) -> pd.DataFrame:
    """Every value of either report, by place.

    Returns
    -------
    DataFrame
        Indexed by place: table ("results.table_1"), held and fresh (the values; "nothing" where missing), kind (what it
        is judged by: "made with", "fixed", "spread" or "follows"), differs, absolute and relative (the difference), and
        share (the difference as a share of its tolerance, beyond which it is above 1).
    """
    old, new = ({place: rest for place, *rest in leaves(numbers)} for numbers in (held, fresh))
    rows = []
    for place in sorted(old.keys() | new.keys()):
        (a, spread), (b, other) = (values.get(place, ("nothing", None)) for values in (old, new))
        spread = spread or other
        differs, absolute, size = not (a == b or (a != a and b != b)), 0.0, 1.0
        if numbers := _is_number(a) and _is_number(b):
            absolute, size = abs(a - b), max(abs(a), abs(b)) or 1.0
        kind = "follows" if spread is None else "spread"
        kind = "made with" if MADE_WITH.search(place) else "fixed" if FIXED.search(place) else kind
        rounding = OF_TABLES if place.startswith("tables.") else ROUNDING
        tolerance = max(rounding * size, spread if kind == "spread" else 0.0)
        share = 0.0 if not differs or kind == "made with" else absolute / tolerance if numbers else math.inf
        topic, *below = place.split(".")
        table = f"{topic}.{below[0]}" if len(below) > 2 else topic
        rows.append((place, table, a, b, kind, differs, absolute, absolute / size, share))
    columns = ["place", "table", "held", "fresh", "kind", "differs", "absolute", "relative", "share"]
    values = pd.DataFrame(rows, columns=columns).set_index("place")
    if values.loc[values["kind"].isin(["made with", "spread"]), "differs"].any():
        values.loc[values["kind"] == "follows", "share"] = 0.0
    return values


def main(profile: str) -> int:
    """Print the comparison table by table; return 0 if everything is within its tolerance, otherwise 1."""
    report = Paths(profile).report
    if not any(report.glob("numbers/*.json")):  # a numbers.json without these is the one from git
        raise StudyError(f"profile {profile} has no fresh report; run `make all PROFILE={profile}` first")
    fresh = rows_of({file: file.read_text(encoding="utf-8") for file in sorted(report.glob("tables/[!.]*.csv"))})
    values = compare(at_head(profile), read_json(report / "numbers.json") | fresh)
    changed, beyond = values[values["differs"]], values[values["share"] > 1]
    groups = values.groupby("table")
    shown = groups[["absolute", "relative", "share"]].max().map("{:.2g}".format)
    shown.insert(0, "values", groups.size())
    shown.insert(1, "differ", groups["differs"].sum())
    shown["verdict"] = "equal"
    shown.loc[changed["table"], "verdict"] = "within"
    shown.loc[beyond["table"], "verdict"] = "BEYOND"
    largest = changed.sort_values(["share", "relative"]).reset_index().groupby("table")["place"].last()
    shown["largest at"] = largest.reindex(shown.index, fill_value="")
    print(shown.rename(columns={"share": "of its tolerance"}).rename_axis(None).to_string())
    for heading, rows in {"made with another": changed[changed["kind"] == "made with"], "beyond": beyond[:20]}.items():
        for place, row in rows.iterrows():
            print(f"{heading} {place}: {row['held']} → {row['fresh']}")
    if changed.empty:
        print(f"All {len(values):,} values are those that git holds, bit for bit.")
    else:
        print(f"{len(changed):,} of {len(values):,} values differ, {len(beyond) or 'none'} of them beyond tolerance.")
    return int(not beyond.empty)


if __name__ == "__main__":
    run_and_exit(main, *sys.argv[1:])
