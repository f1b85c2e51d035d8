"""How each file of the study was made. A file is refused if it, or one of its inputs, was changed since it was written.

``stays.made.json`` beside ``stays.parquet`` is the file's record: its fingerprint, the step that wrote it, its inputs
with their fingerprints, and whose data it shows. The record is written just before the file takes its name, so every
file has one. If writing is cut off between the two, the old file does not fit the new record, and is refused until make
has run the step again. The record of a run is its ``run.json``.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterable
from pathlib import Path

from drgstudy import study
from drgstudy.study import StudyError, atomic, fingerprint, places

USED: dict[Path, None] = {}
"""The recorded files that this process has read or written, in the order of their first use."""


def record_of(path: Path) -> Path:
    """Where the record of a file lies."""
    return path.with_suffix(".made.json")


@contextlib.contextmanager
def written(path: Path, by: str, inputs: Iterable[Path] = (), source: dict | None = None):
    """As `study.atomic`, for a single file, which gets a record.

    Parameters
    ----------
    path : Path
    by : str
        Name of the parameter file whose step writes the file, such as "03-cohort".
    inputs : iterable of Path
        The files it is made from. Of those without a record, such as raw tables, size and time of change are noted too.
    source : dict, optional
        Whose data the file shows: kind and name. By default those of the least open recorded input.
    """
    known, recorded = {}, filter(Path.is_file, map(record_of, inputs := list(inputs)))
    for file in inputs:
        state = os.stat(file)
        known[os.path.relpath(file, path.parent) if file.is_relative_to(places.ROOT) else str(file)] = (
            {"fingerprint": fingerprint(file)}
            if record_of(file).is_file()
            else {"fingerprint": fingerprint(file), "bytes": state.st_size, "modified_ns": state.st_mtime_ns}
        )
    source = source or study.least_open([study.read_json(record)["source"] for record in recorded])
    about = {"by": by, "inputs": known, "source": {key: source[key] for key in ("kind", "name")}}
    with atomic(path) as beside:
        yield beside
        study.write_json(record_of(path), about | {"fingerprint": fingerprint(beside)})
    USED[path] = None


def write_json(path: Path, content, by: str, inputs: Iterable[Path] = (), source: dict | None = None) -> None:
    """As `study.write_json`, with a record."""
    with written(path, by, inputs, source) as beside:
        study.write_json(beside, content)


def read_json(path: Path):
    """As `study.read_json`, for a recorded file, which is `verified` first."""
    return study.read_json(verified(path) if path.is_file() else path)


def verified(path: Path) -> Path:
    """Return `path` if the file is as it was written, and its inputs are as they were then.

    Inputs that are no longer there are not compared: raw tables may be archived, or a folder copied in part.

    Raises
    ------
    FileNotFoundError
        If there is no such file.
    StudyError
        If the file has no record or does not fit it, or if an input, or an input's input, has changed since.
    """
    name, found = relative(path), fingerprint(path)
    if not record_of(path).is_file():
        raise StudyError(f"{name} has no {record_of(path).name} beside it: it was not made here; run its step again")
    record = study.read_json(record_of(path))
    again = f"touch the parameter file {record['by']}.yaml and run make again"
    if found != record["fingerprint"]:
        raise StudyError(f"{name} was changed after it was written; {again}")
    for place, known in record["inputs"].items():
        file = Path(os.path.normpath(path.parent / place))
        if not file.is_file():
            continue
        if record_of(file).is_file():
            verified(file)
        elif [known.get("bytes"), known.get("modified_ns")] == [(state := os.stat(file)).st_size, state.st_mtime_ns]:
            continue
        if fingerprint(file) != known["fingerprint"]:
            raise StudyError(f"{relative(file)} has changed since {name} was made from it; {again}")
    USED[path] = None
    return path


def relative(path: Path) -> str:
    """A path as messages show it, from the repository's root."""
    return str(path.relative_to(places.ROOT) if path.is_relative_to(places.ROOT) else path)
