"""The hospital courses of a whole hospital system's notes, by Ray Data: Parquet in, Parquet out.

    python cluster/extract.py NOTES OUT

NOTES is a Parquet file or a folder of them, with subject_id, hadm_id and text; OUT becomes a folder with a row a note, in
the same order, as `drgstudy.cohort.COURSES`. On a cluster (RAY_ADDRESS) both lie where all its machines see them.
"""

from __future__ import annotations

import os
import sys
from pathlib import Path

import pyarrow
import pyarrow.dataset

from drgstudy.cohort import extract
from drgstudy.study import StudyError, atomic

COLUMNS = ["subject_id", "hadm_id", "text"]


def extract_notes(notes: Path, out: Path) -> None:
    """Write the hospital courses of `notes` to `out`, which appears only when it is whole.

    Raises
    ------
    StudyError
        If `notes` is no Parquet, lacks a column, or `out` is there already.
    """
    try:
        found = pyarrow.dataset.dataset(notes, format="parquet")
    except (OSError, pyarrow.ArrowInvalid):
        found = None
    if not (found and found.files):
        raise StudyError(f"{notes}: expected a Parquet file, or a folder of them")
    if missing := [column for column in COLUMNS if column not in found.schema.names]:
        raise StudyError(f"{notes}: column {missing[0]} is missing; the columns are {', '.join(found.schema.names)}")
    if out.exists():
        raise StudyError(f"{out} is there already; remove it, or name another folder")
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    try:
        import ray
    except ModuleNotFoundError:
        raise StudyError("Ray is not installed; `make env EXTRAS=cluster` installs it") from None

    ray.init(include_dashboard=False)
    context = ray.data.DataContext.get_current()
    # The order matters, for the first note of a stay is kept. Ray's newer Parquet reader packs row groups in any order.
    context.use_datasource_v2, context.execution_options.preserve_order = False, True
    with atomic(out.resolve()) as beside:
        files = [os.path.abspath(file) for file in found.files]
        read = ray.data.read_parquet(files, columns=COLUMNS, file_extensions=None)  # with any name
        read.map_batches(extract, batch_format="pyarrow").write_parquet(str(beside))
        if not beside.exists():
            raise StudyError(f"{notes}: there are no notes in it")


def main(arguments: list[str]) -> int:
    try:
        notes, out = map(Path, arguments)
    except ValueError:
        print(__doc__, file=sys.stderr)
        return 2
    try:
        extract_notes(notes, out)
    except StudyError as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
