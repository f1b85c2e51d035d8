"""How a cohort comes about: rows pass one step after another, and are counted. Tables are checked on write and read."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterable
from pathlib import Path

import pandas as pd
import pandera.pandas as pa
import pyarrow
import pyarrow.parquet

from drgstudy import provenance
from drgstudy.study import Paths, StudyError, one_line, quoted

RULES = ("ours", "published")
"""Whose rules build the cohorts: ours, or those of the papers' published code. ``DEVIATIONS.md`` has the differences."""


def is_published(rules: str) -> bool:
    """Whether `rules`, one of `RULES`, is "published"; raises StudyError for anything else."""
    if rules not in RULES:
        raise StudyError(f"parameter rules: expected 'ours' or 'published', got {rules!r}")
    return rules == "published"


def sieve(frame: pd.DataFrame, steps: dict[str, Callable]) -> tuple[pd.DataFrame, list[dict]]:
    """Keep the rows that pass one step after another, and count them.

    Parameters
    ----------
    frame : DataFrame
    steps : dict of str to callable
        By name of the step, a function that takes the rows left so far and returns a bool Series: which of them pass.

    Returns
    -------
    DataFrame
        The rows that passed all steps.
    list of {"step", "kept", "removed"}
        Numbers of rows, in the order of the steps.
    """
    counts = []
    for step, passes in steps.items():
        kept = passes(frame)
        counts.append({"step": step, "kept": int(kept.sum()), "removed": int((~kept).sum())})
        frame = frame[kept]
    return frame, counts


def check_flow(flow: dict) -> None:
    """Raise StudyError unless the counts agree.

    In each chain, kept and removed of a step must add up to what the step before kept, and the last step must keep the
    cohort's stays. The two parts of each split must add up to the cohort, and neither may be empty.
    """
    for chain, steps in flow.items():
        if not isinstance(steps, list):
            continue
        for before, step in itertools.pairwise(steps):
            if step["kept"] + step["removed"] != before["kept"]:
                raise StudyError(f"flow, {chain}: the counts of the step '{step['step']}' do not add up")
        if steps[-1]["kept"] != flow.get("stays", steps[-1]["kept"]):
            raise StudyError(f"flow, {chain}: {steps[-1]['kept']} are left, but the cohort has {flow['stays']} stays")
    for split, parts in flow.get("splits", {}).items():
        sizes = parts["train_stays"], parts["test_stays"]
        if not all(sizes) or sum(sizes) + parts.get("other_stays", 0) != flow["stays"]:
            raise StudyError(f"flow, {split}: {sizes[0]} and {sizes[1]} stays are not the cohort's {flow['stays']}")


def read_flow(paths: Paths) -> dict:
    """Read flow.json, if it is as it was written, adds up, and ends with the stays that lie beside it.

    Raises
    ------
    StudyError
        As `provenance.verified` and `check_flow`, or if the cohort's table has another number of stays.
    """
    flow = provenance.read_json(paths.flow)
    check_flow(flow)
    for chain in (name for name, steps in flow.items() if isinstance(steps, list)):
        stays = next((file for file in (paths.cohort(chain), paths.stays) if file.is_file()), None)
        left = flow[chain][-1]["kept"]
        if stays and (n := pyarrow.parquet.read_metadata(stays).num_rows) != left:
            raise StudyError(
                f"{provenance.relative(paths.flow)}, {chain}: {left} stays are left, but {stays.name} has {n}"
            )
    return flow


def checked(frame: pd.DataFrame, schema: pa.DataFrameSchema, path: Path) -> pd.DataFrame:
    """Return the frame if it fits the pandera schema, or raise a StudyError that names file, column, row and rule."""
    try:
        return schema.validate(frame, lazy=True)
    except pa.errors.SchemaErrors as error:
        first = error.failure_cases.iloc[0]
        column = "" if pd.isna(first["column"]) else f", column {first['column']}"
        row = "" if pd.isna(first["index"]) else f", row {first['index']}"
        value = quoted(first["failure_case"])
        raise StudyError(f"{path}{column}{row}: {value} breaks the rule {first['check']}") from None


def write_rows(
    rows: pd.DataFrame, path: Path, schema: pa.DataFrameSchema, *, by: str, inputs: Iterable[Path] = ()
) -> None:
    """Check a table against its schema and write it as parquet; `by` and `inputs` are as in `provenance.written`."""
    checked(rows, schema, path)
    with provenance.written(path, by, inputs) as beside:
        rows.to_parquet(beside, index=False)


def read_rows(path: Path, schema: pa.DataFrameSchema) -> pd.DataFrame:
    """Read what `write_rows` wrote and check it against its record and schema.

    Raises
    ------
    StudyError
        If the file is missing or damaged, or if it or one of its inputs was changed (`provenance.verified`).
    """
    try:
        return checked(pd.read_parquet(provenance.verified(path)), schema, path)
    except FileNotFoundError:
        raise StudyError(f"{path} is missing; the notebook that builds the cohort writes it") from None
    except (OSError, pyarrow.ArrowException) as error:
        raise StudyError(
            f"{path} is not a readable parquet file ({one_line(error)}); delete it and run make again"
        ) from None
