"""Writing a hospital part by part: some patients at a time, made side by side and appended in their order.

Memory therefore does not grow with the number of patients, and the bytes do not depend on the number of workers.
"""

from __future__ import annotations

import contextlib
import csv
import gzip
import io
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import numpy as np
from joblib import Parallel, delayed

from drgstudy.study import StudyError, atomic, fingerprint, progress, write_json
from drgstudy.synthetic.tables import GROUPER

VERSION = 2  # of what is written for given parameters
PATIENTS_PER_PART = 1000
SHARES = ("tail", "unseen", "drift")
LIMITS = {  # the lowest and the highest value of each parameter
    "patients": (1, 800_000),
    "seed": (0, 2**63),
    "course_words": (40, 1000),
    "note_words": (40, 10_000),
    **dict.fromkeys(SHARES, (0, 1)),
    "workers": (1, 999),
}


def write_in_parts(
    folder: Path,
    columns: Mapping[str, Sequence[str]],
    make_part: Callable[..., tuple[dict[str, bytes], int]],
    patients: int,
    workers: int,
    dials: dict,
) -> None:
    """Check the parameters, write the tables of a hospital, and describe them in ``hospital.json``.

    Parameters
    ----------
    folder : Path
        Replaced as a whole if it exists.
    columns : mapping of str to sequence of str
        The columns of each table, by the path of its file without ``.csv.gz``.
    make_part : callable
        Given a range of patients' numbers and the dials, returns the rows of these patients, packed as by
        `gzip_csv`, by table, and the number of their stays. Worker processes must be able to import it.
    patients, workers : int
        Number of patients, and of the processes that share the work.
    dials : dict
        All other parameters, by name.

    Raises
    ------
    StudyError
        If a parameter is outside its `LIMITS`.
    """
    for name, value in {"patients": patients, **dials, "workers": workers}.items():
        kinds, (low, high) = (int, float) if name in SHARES else int, LIMITS[name]
        if type(value) is bool or not isinstance(value, kinds) or not low <= value <= high:
            noun = "a number" if name in SHARES else "a whole number"
            raise StudyError(f"{name} is {value!r}; a synthetic hospital needs {noun} from {low} to {high}")
    starts = range(0, patients, PATIENTS_PER_PART)
    parts = Parallel(n_jobs=min(workers, len(starts)), return_as="generator")(
        delayed(make_part)(range(start, min(start + PATIENTS_PER_PART, patients)), **dials) for start in starts
    )
    n_stays = 0
    with atomic(Path(folder)) as beside:
        paths = {name: beside / f"{name}.csv.gz" for name in columns}
        for path in paths.values():
            path.parent.mkdir(parents=True, exist_ok=True)
        with contextlib.ExitStack() as stack:
            files = {name: stack.enter_context(open(path, "wb")) for name, path in paths.items()}
            for name, header in columns.items():
                files[name].write(gzip_csv([header]))
            for tables, stays in progress(
                parts, total=len(starts), desc=f"{PATIENTS_PER_PART} patients each", unit="part"
            ):
                n_stays += stays
                for name, packed in tables.items():
                    files[name].write(packed)
        about = {"source": "synthetic", "version": VERSION, "grouper": f"MS-DRG {GROUPER}", "stays": n_stays}
        about["files"] = {f"{name}.csv.gz": fingerprint(path) for name, path in paths.items()}
        write_json(beside / "hospital.json", {**about, "patients": patients, **dials})


def patient_generator(seed: int, number: int) -> np.random.Generator:
    """The random generator of one patient, which depends on nothing but the seed and the patient's number."""
    return np.random.default_rng(np.random.SeedSequence(seed, spawn_key=(number,)))


def gzip_csv(rows: Sequence[Sequence]) -> bytes:
    """Rows as a complete gzip file of CSV; several such files in succession are again a valid gzip file."""
    text = io.StringIO()
    csv.writer(text, lineterminator="\n").writerows(rows)
    return gzip.compress(text.getvalue().encode(), compresslevel=6, mtime=0)
