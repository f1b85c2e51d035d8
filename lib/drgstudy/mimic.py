"""Reading MIMIC's tables: where they lie, which columns they have, and whose data they are.

It knows the tables of MIMIC-IV (2.0 to 3.1), MIMIC-IV-Note and MIMIC-III (1.4) that the two studies need. A file whose
name is in capitals belongs to MIMIC-III, and so does a table that is asked for in capitals ("DRGCODES"). Asked for in
small letters it is MIMIC-IV's, or MIMIC-III's where there is no MIMIC-IV. Long tables are read in batches, so that
memory does not grow with the file.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import pandas as pd
import pandera.pandas as pa
import pyarrow
import pyarrow.compute
import pyarrow.csv

from drgstudy import csv_stream
from drgstudy.csv_stream import explained, stream
from drgstudy.flow import checked
from drgstudy.study import OPENNESS, StudyError, fingerprint, progress, read_json

KINDS = {  # how a column is read: Arrow type, pandas dtype, and whether it may be empty
    "id": (pyarrow.int64(), "Int64", False),
    "number": (pyarrow.int64(), "Int64", True),
    "float": (pyarrow.float64(), "float64", True),
    "text": (pyarrow.string(), "str", False),
    "time": (pyarrow.timestamp("s"), "datetime64[s]", True),
}
_COLUMNS = {  # name:kind; a column without a kind is text
    "patients": "subject_id:id gender anchor_age:id anchor_year:id anchor_year_group dod:time",
    "admissions": "subject_id:id hadm_id:id admittime:time dischtime:time deathtime:time admission_type"
    " admit_provider_id admission_location discharge_location insurance language marital_status race"
    " edregtime:time edouttime:time hospital_expire_flag:id",
    "drgcodes": "subject_id:id hadm_id:id drg_type drg_code description drg_severity:number drg_mortality:number",
    "diagnoses_icd": "subject_id:id hadm_id:id seq_num:id icd_code icd_version:id",
    "procedures_icd": "subject_id:id hadm_id:id seq_num:id chartdate:time icd_code icd_version:id",
    "discharge": "note_id subject_id:id hadm_id:number note_type note_seq:id charttime:time storetime:time text",
}
_MIMIC_III = {
    "admissions": "row_id:id subject_id:id hadm_id:id admittime:time dischtime:time deathtime:time admission_type"
    " admission_location discharge_location insurance language religion marital_status ethnicity edregtime:time"
    " edouttime:time diagnosis hospital_expire_flag:id has_chartevents_data:id",
    "patients": "row_id:id subject_id:id gender dob:time dod:time dod_hosp:time dod_ssn:time expire_flag:id",
    "icustays": "row_id:id subject_id:id hadm_id:id icustay_id:id dbsource first_careunit last_careunit first_wardid:id"
    " last_wardid:id intime:time outtime:time los:float",
    "drgcodes": f"row_id:id {_COLUMNS['drgcodes']}",
    "noteevents": "row_id:id subject_id:id hadm_id:number chartdate:time charttime:time storetime:time category"
    " description cgid:number iserror:number text",
    "chartevents": "row_id:id subject_id:id hadm_id:number icustay_id:number itemid:id charttime:time storetime:time"
    " cgid:number value valuenum:float valueuom warning:number error:number resultstatus stopped",
    "labevents": "row_id:id subject_id:id hadm_id:number itemid:id charttime:time value valuenum:float valueuom flag",
    "outputevents": "row_id:id subject_id:id hadm_id:number icustay_id:number charttime:time itemid:id value:float"
    " valueuom storetime:time cgid:number stopped newbottle iserror:number",
    "d_items": "row_id:id itemid:id label abbreviation dbsource linksto category unitname param_type conceptid:number",
    "d_labitems": "row_id:id itemid:id label fluid category loinc_code",
}


def _kinds(tables: dict[str, str]) -> dict[str, dict[str, str]]:
    split = {table: [entry.partition(":") for entry in columns.split()] for table, columns in tables.items()}
    return {table: {name: kind or "text" for name, _, kind in entries} for table, entries in split.items()}


COLUMNS, MIMIC_III = _kinds(_COLUMNS), _kinds(_MIMIC_III)
"""Each known table's columns in order, with their `KINDS`: in MIMIC-IV and MIMIC-IV-Note, and in MIMIC-III."""
# MIMIC-IV has some more of these tables, which no study reads: so tables of MIMIC-III alone must have names in
# capitals.
FILES = {table: (table, table.upper()) for table in COLUMNS}
FILES |= {table: (table.upper(),) for table in MIMIC_III if table not in FILES}
KEYS = {"patients": "subject_id", "admissions": "hadm_id", "icustays": "icustay_id"}
COUNTED = ("patients", "admissions", "drgcodes", "icustays")  # the notes are read only once, and counted by the flow
MAY_BE_EMPTY = ("noteevents",)  # as it is in MIMIC-III's open demo
LEVELS = 5  # from a folder that holds physionet.org/ down to hosp/
LAYOUT = re.compile(r"physionet\.org|files|.*mimic.*|v?\d+(\.\d+)+|hosp|note", re.IGNORECASE)  # folders `find` enters


@dataclass(frozen=True)
class Source:
    """Whose data these are.

    Attributes
    ----------
    kind : str
        One of `study.OPENNESS`.
    name : str
        For captions, such as "MIMIC-IV v3.1, MIMIC-IV-Note v2.2 (credentialed)"; it always tells the kind.
    version : str
        Of the tables, such as "3.1" (that of the notes is in `name`); "" if it is not known.
    rows : dict of str to int
        Number of rows by table, for the `COUNTED` tables that are there.
    fingerprint : str
        Made from the bytes of all known tables: 16 hexadecimal digits.
    """

    kind: str
    name: str
    version: str
    rows: dict[str, int]
    fingerprint: str


def find(folder: Path, table: str) -> Path:
    """Path of a table in a folder or below it, as MIMIC is downloaded; .csv.gz is preferred to .csv.

    The folder may be hosp/ or note/, the folder of the version above them, or any folder above that in PhysioNet's
    tree. Only folders with names of that tree (`LAYOUT`) are entered, down to `LEVELS`.

    Parameters
    ----------
    folder : Path
    table : str
        A key of `COLUMNS` or `MIMIC_III`, in capitals if it must be MIMIC-III's.

    Raises
    ------
    StudyError
        If the folder or the table is not there or may not be read, or if several versions of the table are there.
    """
    if path := _dataset(folder, table).get(table.lower()):
        return path
    name = FILES[table.lower()][0] if table.islower() else table
    missing = f"{folder} has no {name}.csv.gz or {name}.csv, neither directly nor in hosp/ or note/ below it"
    for path in (path for place in _places(Path(os.path.abspath(folder))) for path in sorted(place.iterdir())):
        end = path.name.lower().removeprefix(table.lower())
        is_other = path.name != name + end and not (name.isupper() and _in_mimic_iv(path))
        if end in (".csv", ".csv.gz") and is_other and path.is_file():
            missing += f", but {path.name}, which differs in case: rename it {name}{end}"
            missing += (
                ", as all of MIMIC-III's: capitals tell them from MIMIC-IV's tables of the same names" * name.isupper()
            )
            break
    raise StudyError(missing)


def _dataset(folder: Path, table: str) -> dict[str, Path]:
    """Paths of the tables below a folder, by name: the discharge notes alone if `table` is these, else all others.

    If `table` must be MIMIC-III's, the others are MIMIC-III's alone; if not, MIMIC-III's are passed over where there
    are MIMIC-IV's.
    """
    third = table.isupper() or table not in COLUMNS
    roots: dict[Path, dict[str, Path]] = {}
    for place in _places(Path(os.path.abspath(folder))):
        present = set(os.listdir(place))  # in their own case, also on a file system that ignores case
        for known in FILES:
            names = [f"{name}.csv{end}" for name in FILES[known] for end in (".gz", "")]
            paths = (place / name for name in names if name in present and os.path.isfile(place / name))
            path = next((path for path in paths if _in_capitals(path) or not third), None)
            if path and (known == "discharge") == (table == "discharge"):
                roots.setdefault(_root(path), {}).setdefault(known, path)
    if len(roots) > 1 and not third:
        roots = {root: paths for root, paths in roots.items() if not _of_mimic_iii(paths.values())} or roots
    if len(roots) > 1:
        raise StudyError(f"{folder} holds several versions of {table}: {', '.join(map(str, roots))}; name one of them")
    return next(iter(roots.values()), {})


def _in_mimic_iv(path: Path) -> bool:
    """Whether the table lies in a folder that MIMIC-III does not have."""
    return path.parent.name.lower() in ("hosp", "note")


def _in_capitals(path: Path) -> bool:
    return path.name[0].isupper() and not _in_mimic_iv(path)


def _of_mimic_iii(paths: Iterable[Path]) -> bool:
    """Whether one of these tables is in capitals or begins with MIMIC-III's row_id, whatever its name is."""
    for path in paths:
        with contextlib.suppress(StudyError):
            if _in_capitals(path) or (not _in_mimic_iv(path) and csv_stream.columns(path)[:1] == ["row_id"]):
                return True
    return False


def _places(folder: Path) -> Iterator[Path]:
    """The folder, and those below it that belong to PhysioNet's layout; each only once, so that loops of links end."""
    if not os.path.isdir(folder):
        raise StudyError(f"the folder {folder} does not exist or is out of reach; give the one with hosp/ or note/")
    level, seen = [folder], set()
    for _ in range(LEVELS + 1):
        below = []
        for place in level:
            if os.path.isdir(place) and (real := os.path.realpath(place)) not in seen:
                seen.add(real)
                if not os.access(place, os.R_OK | os.X_OK):
                    raise StudyError(f"the folder {place} may not be read; change its permissions or name another")
                yield place
                below += [place / name for name in sorted(os.listdir(place)) if LAYOUT.fullmatch(name)]
        level = below


def _root(path: Path) -> Path:
    """The folder of a table's dataset: the one above hosp/ or note/, or the table's own."""
    return path.parents[1] if _in_mimic_iv(path) else path.parent


def source(folder: Path, note_folder: Path | None = None, *, third: bool = False) -> Source:
    """Find out from the files themselves whose data they are; what is not known to be open counts as credentialed.

    A synthetic hospital says so in ``hospital.json``, with the fingerprints of its tables. An open demo has an open
    licence and at most 100 patients. If tables and notes are two datasets, the less open one decides. The version is
    that in the name of the dataset's folder ("2.2", "mimic-iv-2.2"), or the highest one in its CHANGELOG.txt.

    Parameters
    ----------
    folder : Path
        Where `find` finds the tables.
    note_folder : Path, optional
        Where `find` finds the notes of MIMIC-IV; `folder` if it is not given.
    third : bool
        Whether MIMIC-III is meant, also where MIMIC-IV lies beside it.

    Raises
    ------
    StudyError
        As `find` and `read`, and if a table beside ``hospital.json`` is not the one that was written with it.
    """
    paths = _tables(folder, note_folder, third)
    if paths.keys() <= {"discharge"}:
        find(folder, "DRGCODES" if third else "drgcodes")  # says what is missing
    if note_folder:
        find(note_folder, "discharge")
    rows = {name: sum(map(len, _batches(paths[name], name, ["subject_id"]))) for name in COUNTED if name in paths}
    digest = hashlib.sha256()
    roots: dict[Path, list[Path]] = {}
    for table in FILES:
        if path := paths.get(table):
            roots.setdefault(_root(path), []).append(path)
            with explained(path):
                digest.update(fingerprint(path).encode())
    kinds, names, versions = zip(*(_identity(root, files, rows) for root, files in roots.items()), strict=True)
    kind = max(kinds, key=OPENNESS.index)
    name = ", ".join(dict.fromkeys(names)) + " (credentialed)" * (kind == "credentialed")
    return Source(kind, name, versions[0], rows, digest.hexdigest()[:16])


def files(folder: Path, note_folder: Path | None = None, *, third: bool = False) -> list[Path]:
    """All known tables of a source, and a synthetic hospital's ``hospital.json`` and ``truth.csv.gz``."""
    tables = list(_tables(folder, note_folder, third).values())
    beside = [root / name for root in dict.fromkeys(map(_root, tables)) for name in ("hospital.json", "truth.csv.gz")]
    return [*tables, *filter(Path.is_file, beside)]


def _tables(folder: Path, note_folder: Path | None, third: bool) -> dict[str, Path]:
    if third:
        return _dataset(folder, "DRGCODES")
    return _dataset(folder, "drgcodes") | _dataset(note_folder or folder, "discharge")


def _identity(root: Path, files: Sequence[Path], rows: dict[str, int]) -> tuple[str, str, str]:
    """Kind, name and version of the dataset in one folder."""
    if (root / "hospital.json").is_file():
        hospital = read_json(root / "hospital.json")
        if isinstance(hospital, dict) and hospital.get("source") == "synthetic":
            written = hospital["files"] if isinstance(hospital.get("files"), dict) else {}
            others = [path for path in files if written.get(path.relative_to(root).as_posix()) != fingerprint(path)]
            if others:
                own = f"if it is your own, remove {root / 'hospital.json'}, and it counts as credentialed"
                raise StudyError(f"{others[0]} is not as the synthetic hospital wrote it; {own}; else make it anew")
            return "synthetic", f"synthetic hospital, seed {hospital.get('seed')}", ""
    named = re.fullmatch(r"(?:.*mimic.*-)?v?(\d+(?:\.\d+)+)", Path(os.path.realpath(root)).name, re.IGNORECASE)
    listed = re.findall(r"\bv(\d\.\d+)\b", _text(root / "CHANGELOG.txt"))
    version = named[1] if named else max(listed, default="")
    notes_only = all(path.name.startswith("discharge") for path in files)
    name = "MIMIC-III" if _in_capitals(files[0]) else "MIMIC-IV-Note" if notes_only else "MIMIC-IV"
    is_open = "OPEN DATABASE LICENSE" in _text(root / "LICENSE.txt")[:500].upper()
    is_demo = is_open and not notes_only and rows.get("patients", 101) <= 100
    caption = name + " demo" * is_demo + f" v{version}" * bool(version)
    return "open demo" if is_demo else "credentialed", caption, version


def _text(path: Path) -> str:
    with explained(path):
        return path.read_text(encoding="utf-8", errors="replace") if path.is_file() else ""


def read(folder: Path, table: str, columns: Sequence[str] | None = None) -> pd.DataFrame:
    """Read one whole table, checked against its schema; column names are in lower case.

    Parameters
    ----------
    folder : Path
        What `find` accepts.
    table : str
        What `find` accepts.
    columns : sequence of str, optional
        The columns to read; all by default. A step names those that it uses: no other column can stop it.

    Returns
    -------
    DataFrame
        Columns by their `KINDS`: "id" as int64, "number" as Int64, "float" as float64, "time" as datetime64[s] (each NA
        where empty, which no id may be), "text" as str ("" where empty). Rows are in the file's order.

    Raises
    ------
    StudyError
        For a file that is missing, empty, truncated or not UTF-8, lacks a column, or holds a value of another kind.
    """
    path, table = find(folder, table), table.lower()
    kinds = _columns(path, table)
    frame = pd.concat(_batches(path, table, columns or list(kinds)))
    checked(frame, _schema(path, table, frame.columns), path)
    ids = [name for name in frame.columns if kinds[name] == "id"]
    return frame.astype(dict.fromkeys(ids, "int64")).reset_index(drop=True)


def notes(folder: Path) -> Iterator[pyarrow.RecordBatch]:
    """Read the discharge summaries in batches, in the file's order; a bar shows how much of the file has been read.

    Yields
    ------
    RecordBatch
        note_id, subject_id, hadm_id (may be null) and text, as `cohort.extract` takes them.

    Raises
    ------
    StudyError
        As `read`, and for a note_id that occurs twice. The error may come after some batches.
    """
    path, seen, row = find(folder, "discharge"), set(), 0
    batches = contextlib.closing(_stream(path, "discharge", ["note_id", "subject_id", "hadm_id", "text"]))
    with progress(total=path.stat().st_size, desc="notes", unit="B", unit_scale=True) as bar, batches as batches:
        for batch, position in batches:
            for note_id, patient in zip(batch["note_id"].to_pylist(), batch["subject_id"].to_pylist(), strict=True):
                row += 1
                if patient is None:
                    raise StudyError(f"{path}, column subject_id, row {row}: nan breaks the rule not_nullable")
                if note_id in seen:
                    raise StudyError(f"{path}, row {row}: the note_id {note_id} occurs twice; each must be unique")
                seen.add(note_id)
            yield batch
            bar.update(position - bar.n)


def _columns(path: Path, table: str) -> dict[str, str]:
    """The columns of a table and their kinds, in MIMIC-III if the file belongs to it, and otherwise in MIMIC-IV."""
    return MIMIC_III[table] if table in MIMIC_III and _in_capitals(path) else COLUMNS[table]


def _schema(path: Path, table: str, columns: Sequence[str]) -> pa.DataFrameSchema:
    schema = {}
    for name in columns:
        _, dtype, nullable = KINDS[_columns(path, table)[name]]
        schema[name] = pa.Column(dtype, nullable=nullable, unique=name == KEYS.get(table))
    return pa.DataFrameSchema(schema)


def batches(folder: Path, table: str, columns: Sequence[str]) -> Iterator[pd.DataFrame]:
    """Read some columns of a table of any length, in batches; nothing else of the file is converted or held.

    Parameters
    ----------
    folder : Path
        What `find` accepts.
    table : str
        What `find` accepts.
    columns : sequence of str
        In lower case.

    Yields
    ------
    DataFrame
        Columns as `read` gives them, but ids are Int64, and may be missing: that is not checked. The index is the
        number of the row in the file; the first row after the header is 1.

    Raises
    ------
    StudyError
        As `read`. The error may come after some batches.
    """
    return _batches(find(folder, table), table.lower(), columns)


def clinicians(folder: Path) -> pd.Series | None:
    """Who admitted each stay ("" if unknown), by hadm_id; None if the table does not say: MIMIC-IV's before 2.2.

    Raises
    ------
    StudyError
        As `read`.
    """
    if "admit_provider_id" not in csv_stream.columns(find(folder, "admissions")):
        return None
    return read(folder, "admissions", ["hadm_id", "admit_provider_id"]).set_index("hadm_id")["admit_provider_id"]


def _batches(path: Path, table: str, columns: Sequence[str]) -> Iterator[pd.DataFrame]:
    row = 1
    for batch, _ in _stream(path, table, columns):
        frame = batch.to_pandas(types_mapper={pyarrow.int64(): pd.Int64Dtype()}.get)
        frame.columns, frame.index = list(columns), pd.RangeIndex(row, row := row + len(frame))
        yield frame
    if row == 1:
        kinds = _columns(path, table)
        yield pd.DataFrame({name: pd.Series(dtype=KINDS[kinds[name]][1]) for name in columns})


def _stream(path: Path, table: str, columns: Sequence[str]) -> Iterator[tuple[pyarrow.RecordBatch, int]]:
    kinds = _columns(path, table)
    types = {name: KINDS[kinds.get(name, "text")][0] for name in columns}  # the reader reports an unknown column
    return stream(path, types, table in MAY_BE_EMPTY)
