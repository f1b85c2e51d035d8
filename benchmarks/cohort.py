"""From the notes' file to stays.parquet: time against decompressing the file, memory, and speed against pandas and re.

    python benchmarks/cohort.py [--profile gpu] [--notes N] [--json FILE]

Each step runs in its own process, so that memory is measured for it alone. Times are taken after the imports. The plain
alternative reads the file with `pandas.read_csv`, maps the same patterns over its rows, and applies the same rules.
"""

import argparse
import csv
import gzip
import itertools
import json
import re
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

from drgstudy.flow import write_rows
from drgstudy.notes import HEADING, OPENING, Note
from drgstudy.study import Paths, StudyError, fingerprint, peak_memory_gb, read_json, write_json

PLAIN_GB = 14.0  # a little more than pandas needs for the notes of that hospital
CUT = 60_000  # notes, if less memory is free


def decompress(source: dict, mapping: Path, out: Path) -> int:
    """Decompress the file of notes in blocks of 8 MiB, and do nothing else."""
    from drgstudy import mimic

    with gzip.open(mimic.find(source["note_folder"], "discharge")) as file:
        while file.read(1 << 23):
            pass
    return 0


def ours(source: dict, mapping: Path, out: Path) -> int:
    """What notebook 03 does, up to its files."""
    from drgstudy import cohort, mimic

    return _finish(map(cohort.extract, mimic.notes(source["note_folder"])), source, mapping, out)


class PlainNote(Note):
    """A note whose lines are all tried, by the patterns alone."""

    def opening(self, start: int) -> re.Match | None:
        return OPENING.search(self.text, start)

    def lines(self, start: int) -> Iterator[re.Match]:
        return HEADING.finditer(self.text, start)


def plain_course(text: str) -> str | None:
    """What `notes.hospital_course` must find."""
    return PlainNote(text).course()


def plain(source: dict, mapping: Path, out: Path) -> int:
    """The whole table in memory, the patterns applied row by row."""
    import pandas as pd
    import pyarrow

    from drgstudy import cohort, mimic

    notes = pd.read_csv(
        mimic.find(source["note_folder"], "discharge"),
        usecols=["subject_id", "hadm_id", "text"],
        dtype={"subject_id": "int64", "hadm_id": "Int64", "text": "str"},
        keep_default_na=False,
        na_values={"hadm_id": [""]},
    )
    notes["text"] = notes["text"].map(plain_course)
    notes["words"] = notes["text"].fillna("").map(lambda text: len(text.split()))
    notes["digest"] = pd.util.hash_pandas_object(notes["text"], index=False).to_numpy().view("int64")
    courses = pyarrow.RecordBatch.from_pandas(notes[cohort.COURSES.names], cohort.COURSES, preserve_index=False)
    return _finish([courses], source, mapping, out)


def _finish(courses, source: dict, mapping: Path, out: Path) -> int:
    import pandas as pd

    from drgstudy import cohort, harmonize, mimic

    rows = mimic.read(source["folder"], "drgcodes", cohort.DRG_COLUMNS)
    billed = pd.read_parquet(mapping) if mapping.is_file() else harmonize.harmonize(rows[cohort.is_ms_drg(rows)])
    stays, flow = cohort.build_cohort(courses, rows, billed, clinicians=mimic.clinicians(source["folder"]))
    write_rows(stays, out / "stays.parquet", cohort.STAYS, by="03-cohort")
    write_json(out / "flow.json", flow)
    return flow["notes"][0]["kept"]


STEPS = {step.__name__: step for step in (decompress, ours, plain)}


def run(step: str, source: dict, mapping: Path, out: Path) -> None:
    """Run one step in this process, and write its time and memory into `out`."""
    from drgstudy import cohort, harmonize, mimic  # noqa: F401 - imported before the clock starts

    start, cpu = time.perf_counter(), time.process_time()
    notes = STEPS[step](source, mapping, out)
    seconds, cpu = time.perf_counter() - start, time.process_time() - cpu
    written = [fingerprint(path) for path in sorted(out.iterdir())]
    took = {"seconds": seconds, "cpu": cpu, "gb": peak_memory_gb(), "notes": notes, "written": written}
    write_json(out / "took.json", took)


def measured(step: str, source: dict, mapping: Path, folder: Path) -> dict:
    """Time and memory of a step that runs in its own process."""
    out = Path(tempfile.mkdtemp(dir=folder))
    subprocess.run([sys.executable, __file__, "--step", json.dumps([step, source, str(mapping), str(out)])], check=True)
    took = read_json(out / "took.json")
    print(f"{step:12s} {took['seconds']:7.1f} s {took['cpu']:7.1f} s of processor {took['gb']:6.2f} GB")
    return took


def first_notes(source: dict, n: int, folder: Path) -> dict:
    """The same source, with a file of its first `n` notes in `folder`."""
    from drgstudy import mimic

    csv.field_size_limit(1 << 30)
    (cut := folder / f"first-{n}").mkdir()
    with (
        gzip.open(mimic.find(source["note_folder"], "discharge"), "rt", encoding="utf-8", newline="") as file,
        gzip.open(cut / "discharge.csv.gz", "wt", 6, encoding="utf-8", newline="") as shorter,
    ):
        csv.writer(shorter).writerows(itertools.islice(csv.reader(file), n + 1))
    return source | {"note_folder": str(cut)}


def main() -> None:
    import psutil

    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--profile", default="gpu", help="whose data; made by `make cohort PROFILE=...`")
    parser.add_argument("--notes", type=int, help="only the first so many, for a quick trial")
    parser.add_argument("--json", type=Path, help="where the measurements go")
    parser.add_argument("--step", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.step:
        step, source, mapping, out = json.loads(arguments.step)
        return run(step, source, Path(mapping), Path(out))
    paths = Paths(arguments.profile)
    source = read_json(paths.source)
    with tempfile.TemporaryDirectory(dir=paths.data) as folder:
        folder = Path(folder)
        if arguments.notes:
            source = first_notes(source, arguments.notes, folder)
        unpacking, streamed = (measured(step, source, paths.drgs, folder) for step in ("decompress", "ours"))
        beside, note = streamed, ""
        if not arguments.notes and psutil.virtual_memory().available < PLAIN_GB * 1e9:
            source, note = first_notes(source, CUT, folder), f"on the first {CUT:,} notes, for want of memory"
            beside = measured("ours", source, paths.drgs, folder)
        pandas = measured("plain", source, paths.drgs, folder)
    if pandas["written"] != beside["written"]:
        raise StudyError("stays.parquet or flow.json of the plain alternative differ from ours")
    times = streamed["seconds"] / unpacking["seconds"]
    data = f"{streamed['notes']:,} discharge summaries"
    compared = {"plain_is": "pandas.read_csv, re row by row", "equal": "every byte of stays.parquet and flow.json"}
    whole = not arguments.notes
    measurements = [
        {
            "name": "Cohort: files to stays, against decompression", "data": data, "unit": "s",
            "ours": streamed["seconds"], "plain": unpacking["seconds"], "plain_is": "decompressing the file, one core",
            "ratio": 1 / times, "goal": "at most 3 times the decompression", "met": times <= 3 if whole else None,
            "equal": "", "note": f"{times:.2f} times; {streamed['cpu']:.0f} s of processor time",
        },
        {
            "name": "Cohort: peak memory", "data": data, "unit": "GB", "ours": streamed["gb"], "plain": pandas["gb"],
            "ratio": pandas["gb"] / streamed["gb"], "goal": "at most 2 GB", "met": streamed["gb"] <= 2 if whole else None,
            "note": note or "one process, no children", **compared,
        },
        {
            "name": "Cohort: files to stays", "data": f"{beside['notes']:,} discharge summaries", "unit": "notes/s",
            "ours": beside["notes"] / beside["seconds"], "plain": pandas["notes"] / pandas["seconds"],
            "ratio": pandas["seconds"] / beside["seconds"], "goal": "faster than pandas and re",
            "met": beside["seconds"] < pandas["seconds"], "note": note, **compared,
        },
    ]  # fmt: skip
    for one in measurements:
        print(
            f"{one['name']:48s} ours {one['ours']:.3g} plain {one['plain']:.3g} {one['unit']}; {one['goal']}: {one['met']}"
        )
    if arguments.json:
        write_json(arguments.json, measurements)


if __name__ == "__main__":
    main()
