"""MIMIC as an author has it: a small synthetic hospital and its ICU, laid out as PhysioNet does and as odd as real files.

The folders, the files beside the tables and the numbering are PhysioNet's. No mark says that the data are synthetic.
What real tables have and synthetic ones lack is added: further columns and tables, empty values, rows marked as errors,
Windows line ends, titles with typing errors, MIMIC-III's dense ids. (Births some 300 years back are there already.)
"""

import gzip
import hashlib
from pathlib import Path

import numpy as np
import pandas as pd

LICENSE = "PhysioNet Credentialed Health Data License\nVersion 1.5.0\n\nCopyright (c) MIT Laboratory for Computational Physiology\n"
OTHERS = {  # tables that no study reads
    "mimiciv/2.2/hosp/d_icd_diagnoses.csv.gz": "icd_code,icd_version,long_title\n0010,9,Cholera due to vibrio cholerae\n",
    "mimiciv/2.2/hosp/labevents.csv.gz": "labevent_id,subject_id,hadm_id,itemid,charttime,value,valuenum\n1,7,,50861,,,\n",
    "mimiciv/2.2/icu/icustays.csv.gz": "subject_id,hadm_id,stay_id,first_careunit,intime,outtime,los\n",
    "mimic-iv-note/2.2/note/radiology.csv.gz": "note_id,subject_id,hadm_id,note_type,text\n7-RR-1,7,,RR,No effusion.\n",
    "mimiciii/1.4/PRESCRIPTIONS.csv.gz": "ROW_ID,SUBJECT_ID,HADM_ID,DRUG\n1,7,,Aspirin\n",
}
FIRST_ID = {"SUBJECT_ID": 2, "HADM_ID": 100_001, "ICUSTAY_ID": 200_001}  # of MIMIC-III, whose ids are dense


def lay_out(hospital: Path, icu: Path, folder: Path, seed: int = 3) -> Path:
    """Write the tables of a hospital and an ICU below `folder`; the path of physionet.org/files, the folder above all."""
    files, rng = folder / "physionet.org" / "files", np.random.default_rng(seed)
    for table in sorted(hospital.rglob("*/*.csv.gz")):
        place = "mimic-iv-note/2.2/note" if table.parent.name == "note" else "mimiciv/2.2/hosp"
        _write(_odd_iv(table.name, _read(table), rng), files / place / table.name)
    known: dict[str, dict[str, str]] = {}
    for table in sorted(icu.glob("[A-Z]*.csv.gz")):
        rows = _read(table)
        for column, first in FIRST_ID.items():
            if column in rows:
                ids = known.setdefault(column, {})
                new = sorted({value for value in rows[column] if value} - ids.keys(), key=int)
                ids |= {value: str(first + len(ids) + place) for place, value in enumerate(new)}
                rows[column] = rows[column].map(ids | {"": ""})
        _write(_odd_iii(table.name, rows, rng), files / "mimiciii/1.4" / table.name)
    for name, text in OTHERS.items():
        (files / name).parent.mkdir(parents=True, exist_ok=True)
        (files / name).write_bytes(gzip.compress(text.encode()))
    for version in ("mimiciv/2.2", "mimic-iv-note/2.2", "mimiciii/1.4"):
        root = files / version
        (root / "LICENSE.txt").write_text(LICENSE)
        (root / "CHANGELOG.txt").write_text(f"# Change log\n\n## v{root.name}\n\n- Corrected rows.\n")
        (root / "index.html").write_text(f"<html><body>Index of /files/{version}/</body></html>\n")
        sums = [f"{hashlib.sha256(file.read_bytes()).hexdigest()} {file.relative_to(root)}" for file in _files(root)]
        (root / "SHA256SUMS.txt").write_text("\n".join(sums) + "\n")
    return files


def _files(root: Path) -> list[Path]:
    return sorted(file for file in root.rglob("*") if file.is_file())


def _read(table: Path) -> pd.DataFrame:
    return pd.read_csv(table, dtype=str, keep_default_na=False)


def _write(rows: pd.DataFrame, table: Path) -> None:
    """With a further column at the end, and in every other table with Windows line ends."""
    table.parent.mkdir(parents=True, exist_ok=True)
    windows = "\r\n" if len(table.name) % 2 else "\n"
    rows.assign(**{"X_BATCH" if table.name[0].isupper() else "x_batch": "1"}).to_csv(
        table, index=False, lineterminator=windows
    )


def _blank(rows: pd.DataFrame, share: float, rng: np.random.Generator, *columns: str) -> None:
    for column in columns:
        rows.loc[rng.random(len(rows)) < share, column] = ""


def _odd_iv(name: str, rows: pd.DataFrame, rng: np.random.Generator) -> pd.DataFrame:
    if name == "admissions.csv.gz":
        _blank(rows, 0.1, rng, "insurance", "language", "marital_status", "admit_provider_id", "discharge_location")
    if name == "drgcodes.csv.gz":
        _blank(rows, 0.3, rng, "drg_severity", "drg_mortality")
        billed = rows["drg_type"] == "HCFA"
        some = rng.random(len(rows))
        rows.loc[billed & (some < 0.05), "description"] = rows["description"].str.lower()
        typed = billed & (some > 0.97)  # two letters changed places: for a physician to decide
        rows.loc[typed, "description"] = rows["description"].str.replace(r"^(.{4})(.)(.)", r"\1\3\2", regex=True)
    if name == "discharge.csv.gz":
        _blank(rows, 0.02, rng, "hadm_id")
    return rows


def _odd_iii(name: str, rows: pd.DataFrame, rng: np.random.Generator) -> pd.DataFrame:
    if name in ("LABEVENTS.csv.gz", "CHARTEVENTS.csv.gz", "OUTPUTEVENTS.csv.gz"):
        _blank(rows, 0.2 if name == "LABEVENTS.csv.gz" else 0.01, rng, "HADM_ID")
    if name == "CHARTEVENTS.csv.gz":
        rows.loc[rng.random(len(rows)) < 0.01, "ERROR"] = "1"
        _blank(rows, 0.02, rng, "VALUENUM")
    if name == "NOTEEVENTS.csv.gz":
        rows.loc[rng.random(len(rows)) < 0.02, "ISERROR"] = "1"
        _blank(rows, 0.02, rng, "HADM_ID")
    return rows
