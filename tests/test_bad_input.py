"""Every reader against what people feed it: what can't be right is refused in one sentence, what is only odd works.

A case's sentence names the file, column or parameter, is one line of fewer than 500 characters, and quotes no note.
"""

import gzip
import io
import json
import os
import re
import subprocess
import sys
import tempfile
import time
import zipfile
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest

from drgstudy import cohort, errors, harmonize, icu_cohort, measurements, mimic, models, study
from drgstudy.flow import read_rows, write_rows
from drgstudy.predictions import Predictions, read_predictions, write_predictions
from drgstudy.study import NOTEBOOKS, ROOT, StudyError, atomic, read_json, read_params
from drgstudy.synthetic import hardness, make_hospital

SECRET = "Mrs. Secret came in with pain"  # in every note below
ACCEPTED, REFUSED = [], []


def refused(name, act, says, marks=()):
    """A case that must raise a StudyError with these words (a regular expression)."""
    REFUSED.append(pytest.param(act, says, id=name, marks=marks))


def accepted(name, act, value):
    """A case that must give this value."""
    ACCEPTED.append(pytest.param(act, value, id=name))


def put(path, content):
    """Write bytes, text or rows; None is a folder of that name."""
    path.parent.mkdir(parents=True, exist_ok=True)
    if content is None:
        path.mkdir()
    elif isinstance(content, Path):
        path.symlink_to(content)
    else:
        path.write_bytes(content.encode() if isinstance(content, str) else content)
    return path


def zipped(name, content):
    with zipfile.ZipFile(buffer := io.BytesIO(), "w") as archive:
        archive.writestr(name, content)
    return buffer.getvalue()


# --- MIMIC's tables -------------------------------------------------------------------------------------------------
HEAD = "subject_id,hadm_id,drg_type,drg_code,description,drg_severity,drg_mortality\n"
ROW = "10,20,HCFA,039,NECK,,\n"
READ = [[10, 20, "HCFA", "039", "NECK"]]
COLUMNS = ["subject_id", "hadm_id", "drg_type", "drg_code", "description"]


def table(content, name="drgcodes.csv"):
    def act(folder):
        put(folder / "hosp" / name, content)
        return mimic.read(folder, "drgcodes")[COLUMNS].to_numpy().tolist()

    return act


def shuffled(text, *order):
    return "\n".join(",".join(np.array(line.split(","))[list(order)]) for line in text.splitlines()) + "\n"


accepted("table: byte order mark", table("\ufeff" + HEAD + ROW), READ)
accepted("table: quoted header after the mark", table('\ufeff"subject_id"' + HEAD[10:] + ROW), READ)
accepted("table: line ends of Windows", table((HEAD + ROW).replace("\n", "\r\n")), READ)
accepted("table: line ends of old Macs", table((HEAD + ROW).replace("\n", "\r")), READ)
accepted("table: no last line end", table((HEAD + ROW).strip("\n")), READ)
accepted("table: blank lines", table(HEAD + "\n" + ROW + "\n\n"), READ)
accepted("table: capitals", table(HEAD.upper() + ROW), READ)
accepted("table: a column more", table((HEAD + ROW).replace("\n", ",0\n")), READ)
accepted("table: another order", table(shuffled(HEAD + ROW, 4, 2, 6, 1, 0, 5, 3)), READ)
accepted(
    "table: .gz of two members",
    table(gzip.compress(HEAD.encode()) + gzip.compress(ROW.encode()), "drgcodes.csv.gz"),
    READ,
)
accepted("table: a title that reads NaN", table(HEAD + ROW.replace("NECK", "NaN")), [[*READ[0][:4], "NaN"]])
accepted("table: a title of 5,000 letters", table(HEAD + ROW.replace("NECK", "N" * 5000)), [[*READ[0][:4], "N" * 5000]])
accepted(
    "table: right to left", table(HEAD + ROW.replace("NECK", "\u202eרגל\u200b")), [[*READ[0][:4], "\u202eרגל\u200b"]]
)
refused(
    "table: no such column",
    table(HEAD.replace(",hadm_id", "") + ROW),
    r"drgcodes\.csv has no column hadm_id; it has subject",
)
refused(
    "table: column renamed", table(HEAD.replace("drg_code", "code") + ROW), "has no column drg_code; it has .* code,"
)
refused("table: column twice", table(HEAD.replace("\n", ",HADM_ID\n") + ROW), "names a column twice")
refused("table: blank in a name", table(HEAD.replace("hadm_id", " hadm_id") + ROW), "has no column hadm_id")
refused("table: no header", table(ROW * 3), r"drgcodes\.csv has no column subject_id, hadm_id")
refused(
    "table: semicolons", table((HEAD + ROW).replace(",", ";")), "its first line names none; expected names and commas"
)
refused(
    "table: Latin-1", table((HEAD + ROW.replace("NECK", "NÜCK")).encode("latin-1")), "column description is not UTF-8"
)
refused("table: UTF-16", table((HEAD + ROW).encode("utf-16")), r"drgcodes\.csv is not UTF-8")
refused(
    "table: a NUL in a text",
    table(HEAD + ROW.replace("NECK", "N\0CK")),
    r"drgcodes\.csv is damaged: 1 of its bytes are zero",
)
refused(
    "table: a NUL in a number",
    table(HEAD + ROW.replace("20", "2\0")),
    "column hadm_id holds .* expected a whole number",
)
refused("table: nothing but NULs", table(b"\0" * 9999), r"drgcodes\.csv has no column")
refused("table: empty", table(""), r"drgcodes\.csv is empty; expected a CSV table")
refused("table: only line ends", table("\r\n\r\n"), r"drgcodes\.csv is empty")
refused("table: only a header", table(HEAD.strip()), r"drgcodes\.csv is empty")
refused("table: a quote never closed", table(HEAD + ROW + '11,21,HCFA,039,"NECK,,\n'), "not a well-formed CSV table")
refused("table: a row cut short", table(HEAD + ROW + "11,21,HC\n"), "expected 7 columns, got 3")
refused("table: a row too long", table(HEAD + ROW + ROW.replace("\n", ",1\n")), "expected 7 columns, got 8")
refused(
    "table: an id with a fraction",
    table(HEAD + ROW.replace("20", "20.5")),
    "column hadm_id holds '20.5', expected a whole",
)
refused("table: a negative id", table(HEAD + ROW.replace("20", "-20")), "column hadm_id holds a negative number")
refused(
    "table: an id of 5,000 digits",
    table(HEAD + ROW.replace("20", "9" * 5000)),
    "column hadm_id holds a text of 5,002 characters, expected a whole",
)
refused("table: no id", table(HEAD + ROW.replace("20", "")), "column hadm_id, row 1: .* not_nullable")
refused(
    "table: zero-width in an id",
    table(HEAD + ROW.replace("20", "2\u200b0")),
    "column hadm_id holds .* expected a whole",
)
refused("table: a header of 1 MB", table("a" * 1_000_000 + "\n" + ROW), r"drgcodes\.csv has no column")
refused(
    "table: 9 MB in one field", table(HEAD + f'10,20,HCFA,039,"{"N" * 9_000_000}",,\n'), "a row is longer than 4 MiB"
)
refused(
    "table: .gz cut off",
    table(gzip.compress((HEAD + ROW).encode())[:-9], "drgcodes.csv.gz"),
    "csv.gz is truncated or damaged",
)
refused(
    "table: .gz with another header",
    table(gzip.compress((HEAD + ROW).encode()) * 2, "drgcodes.csv.gz"),
    "column subject_id holds 'subject_id'",
)
refused(
    "table: .gz with a tail",
    table(gzip.compress((HEAD + ROW).encode()) + b"tail", "drgcodes.csv.gz"),
    "truncated or damaged",
)
refused("table: .gz that is plain", table(HEAD + ROW, "drgcodes.csv.gz"), r"csv\.gz is truncated or damaged")
refused(
    "table: .gz that is a zip", table(zipped("drgcodes.csv", HEAD + ROW), "drgcodes.csv.gz"), "truncated or damaged"
)
refused(
    "table: .csv that is a zip",
    table(zipped("drgcodes.csv", HEAD + ROW)),
    r"drgcodes\.csv (has no column|is not UTF-8)",
)
refused(
    "table: .csv that is a .gz",
    table(gzip.compress((HEAD + ROW).encode())),
    r"drgcodes\.csv is not UTF-8 .* compressed",
)
refused("table: .gz of nothing", table(b"", "drgcodes.csv.gz"), r"drgcodes\.csv\.gz is (empty|truncated)")
refused("table: a folder", table(None), r"has no drgcodes\.csv\.gz or drgcodes\.csv")
refused("table: a link to itself", table(Path("drgcodes.csv")), r"has no drgcodes\.csv\.gz or drgcodes\.csv")
refused(
    "folder: a file", lambda folder: mimic.find(put(folder / "raw", "x"), "drgcodes"), "raw does not exist or is out of"
)
refused(
    "folder: a link to itself",
    lambda folder: mimic.source(put(folder / "raw", Path("raw"))),
    "raw does not exist or is",
)
refused("folder: a name with NUL", lambda folder: mimic.find("raw\0", "drgcodes"), "does not exist")


# --- MIMIC-IV-Note, as far as the cohort -----------------------------------------------------------------------------
NOTE = "note_id,subject_id,hadm_id,note_type,note_seq,charttime,storetime,text\n"


def note(text, hadm="20", name="10-DS-1", time="2190-05-06 00:00:00"):
    return f'{name},10,{hadm},DS,1,{time},,"{text}"\n'


def courses(content):
    """The hospital courses that `cohort.extract` makes of a file of notes."""

    def act(folder):
        put(folder / "note" / "discharge.csv", content)
        return [course for batch in mimic.notes(folder) for course in cohort.extract(batch)["text"].to_pylist()]

    return act


COURSE = f"x\nBrief Hospital Course:\n{SECRET}"
accepted(
    "notes: NaN, empty and blank",
    courses(NOTE + "".join(note(t, "", f"{i}") for i, t in enumerate(["NaN", "", " \n\t "]))),
    [None] * 3,
)
accepted("notes: no stay", courses(NOTE + note(COURSE, "")), [SECRET])
accepted(
    "notes: 2 million letters",
    courses(NOTE + note(COURSE + "\n" + "pain " * 400_000)),
    [SECRET + "\n" + ("pain " * 400_000).strip()],
)
accepted(
    "notes: 2 million headings",
    courses(NOTE + note("\nHospital Course:\n" * 110_000)),
    [("Hospital Course:\n\n" * 109_999).strip()],
)
accepted(
    "notes: right to left, zero width",
    courses(NOTE + note(COURSE + " \u202eכאב\u200b\u2066")),
    [SECRET + " \u202eכאב\u200b\u2066"],
)
accepted(
    "notes: line ends of Windows",
    courses(NOTE + note(COURSE.replace("\n", "\r\n") + "\r\nDischarge Condition:\r\nwell")),
    [SECRET],
)
refused(
    "notes: an id twice", courses(NOTE + note(COURSE) * 2), r"discharge\.csv, row 2: the note_id 10-DS-1 occurs twice"
)
refused("notes: no patient", courses(NOTE + note(COURSE).replace(",10,", ",,")), "column subject_id, row 1")
refused("notes: a negative stay", courses(NOTE + note(COURSE, "-1")), "column hadm_id holds a negative number")
refused("notes: no header", courses(note(COURSE.replace("\n", " ")) * 2), r"discharge\.csv has no column note_id")
refused(
    "notes: text in the stay's column",
    courses(NOTE + f'1,10,"{SECRET}",DS,1,,,x\n'),
    "column hadm_id holds a text of 31 characters, expected a whole",
)
refused(
    "notes: a quote never closed", courses(NOTE + note(COURSE) + note(COURSE, name="2")[:-2]), "a quote is never closed"
)
refused("notes: Latin-1", courses((NOTE + note(COURSE + "é")).encode("latin-1")), "column text is not UTF-8")
refused("notes: a NUL", courses(NOTE + note(COURSE + "\0")), r"discharge\.csv is damaged")


# --- MIMIC-III: the early study's tables, notes and measurements ---------------------------------------------------
def mimic_iii(folder, **tables):
    """Write tables under MIMIC-III's names and columns, a list of dicts each; what a row does not say is empty."""
    for name, rows in tables.items():
        columns = mimic.MIMIC_III[name]
        made = pd.DataFrame(rows, columns=list(columns), dtype=object).assign(row_id=range(1, len(rows) + 1))
        put(folder / f"{name.upper()}.csv", made.rename(columns=str.upper).to_csv(index=False))
    return folder


ICU = {
    "subject_id": 1,
    "hadm_id": 2,
    "icustay_id": 3,
    "first_wardid": 5,
    "last_wardid": 5,
    "intime": "2190-01-01 10:00:00",
}
EVENT = {
    "subject_id": 1,
    "hadm_id": 2,
    "itemid": 211,
    "charttime": "2190-01-01 12:30:00",
    "value": "80",
    "valuenum": 80,
}
CHARTED = {
    "subject_id": 1,
    "hadm_id": 2,
    "charttime": "2190-01-01 12:00:00",
    "category": "Nursing ",
    "text": "x [**Name**] y",
}
STAYS = pd.DataFrame({"stay_id": [2], "icu_in": pd.to_datetime(["2190-01-01 10:00:00"])})


def icu(**change):
    def act(folder):
        tables = {"icustays": [ICU | change], "patients": [{"subject_id": 1, "dob": "2130-01-01", "expire_flag": 0}]}
        tables["admissions"] = [{"subject_id": 1, "hadm_id": 2, "hospital_expire_flag": 0, "has_chartevents_data": 1}]
        tables["drgcodes"] = [{"subject_id": 1, "hadm_id": 2, "drg_type": "MS", "drg_code": "039"}]
        return icu_cohort.read_tables(mimic_iii(folder, **tables))["icustays"]["intime"].dt.year.tolist()

    return act


def charted(**change):
    return lambda folder: icu_cohort.read_notes(mimic_iii(folder, noteevents=[CHARTED | change]), STAYS)[
        "text"
    ].tolist()


def hourly(*changes):
    """Which of MIMIC-III's chart events were kept, and why the others were not."""

    def act(folder):
        events = [EVENT | change for change in changes]
        batches = mimic.batches(
            mimic_iii(folder, chartevents=events),
            "chartevents",
            ["hadm_id", "itemid", "charttime", "valuenum", "error"],
        )
        values, counts = measurements.hourly((batch.rename(columns={"valuenum": "value"}) for batch in batches), STAYS)
        return np.nanmax(values) if counts["kept"] else {name: n for name, n in counts.items() if n and name != "read"}

    return act


accepted("icu: the year 2190", icu(), [2190])
accepted("icu: the year 9999", icu(intime="9999-12-31"), [9999])
accepted("icu: no time", icu(intime=None), [pytest.approx(np.nan, nan_ok=True)])
refused("icu: no such day", icu(intime="2190-02-30 10:00:00"), r"ICUSTAYS\.csv, column INTIME holds '2190-02-30")
refused("icu: a time in words", icu(intime="noon"), "column INTIME holds 'noon', expected a time such as")
refused("icu: a negative ward", icu(first_wardid=-5), "column FIRST_WARDID holds a negative number")
accepted("charted: a note", charted(), ["x y"])
accepted("charted: only blanks", charted(text=" \n\t"), [])
accepted("charted: a note of 2190, too late", charted(charttime="2190-01-09 12:00:00"), [])
refused("charted: a flag in words", charted(iserror="yes"), r"NOTEEVENTS\.csv, column ISERROR holds 'yes'")
accepted("measured: a value", hourly({}), 80)
accepted("measured: item unknown", hourly({"itemid": 999_999_999}), {"other items": 1})
accepted("measured: no number", hourly({"valuenum": None, "value": "high"}, {"valuenum": "NaN"}), {"no number": 2})
accepted("measured: infinite, negative", hourly({"valuenum": "inf"}, {"valuenum": -80}), {"implausible": 2})
accepted("measured: a unit not ours", hourly({"valueuom": "furlongs"}), 80)
accepted("measured: no time, no stay", hourly({"charttime": None}, {"hadm_id": None}), {"other hours": 1, "no stay": 1})
refused(
    "measured: a number in words",
    hourly({"valuenum": "high"}),
    r"CHARTEVENTS\.csv, column VALUENUM holds 'high', expected a number",
)
refused("measured: an item in words", hourly({"itemid": "HR"}), r"column ITEMID holds 'HR', expected a whole number")


def saved_measurements(**change):
    def act(folder):
        names = measurements.groups().index.to_numpy(str)
        path = folder / "measurements.npz"
        measurements.write_measurements(path, np.array([1]), np.zeros((1, 48, len(names)), np.float32))
        if change:
            with atomic(path) as beside:
                np.savez(beside, **{"stay_ids": np.array([1]), "groups": names, "values": np.zeros(3)} | change)
        else:
            put(path, path.read_bytes()[:400])
        return measurements.read_measurements(path)

    return act


refused("measurements: cut off", saved_measurements(), r"measurements\.npz")
refused("measurements: pickled", saved_measurements(values=np.array([{}])), r"measurements\.npz")


# --- titles, codes and what people fill in ----------------------------------------------------------------------------
def outcome(code, title="HEART FAILURE & SHOCK W MCC"):
    def act(folder):
        made = harmonize.harmonize(pd.DataFrame({"drg_code": [code], "description": [title]})).iloc[0]
        return made["drg_v34"] if made["provenance"] != "excluded" else made["reason"]

    return act


accepted("title: as billed", outcome("291"), "291")
accepted("title: a code that was a number", outcome("291.0"), "291")
accepted("title: a code of no version", outcome("1234"), harmonize.NOT_MS_DRG)
accepted("title: a negative code", outcome("-291"), harmonize.NOT_MS_DRG)
accepted("title: a code and title of no version", outcome("999", "BORED OF WAITING"), harmonize.UNKNOWN)
accepted("title: none", outcome("291", " \u200b"), harmonize.NO_TITLE)
accepted("title: 5,000 characters", outcome("291", "HEART " * 833), harmonize.PERHAPS_CMS_DRG)
accepted("title: right to left", outcome("291", "אי ספיקת לב"), harmonize.NO_TITLE)

SHEET, DECIDED = "code,title,decision,reviewer,remark\n", "065,SOME TITLE,066,Dr A,\n"


def review(content):
    return lambda folder: harmonize.read_review(put(folder / "review.csv", content))["decision"].tolist()


accepted("review: as Excel saves UTF-8", review("\ufeff" + (SHEET + DECIDED).replace("\n", "\r\n")), ["066"])
refused(
    "review: semicolons",
    review("\ufeff" + (SHEET + DECIDED).replace(",", ";")),
    r"review\.csv has no column 'code'.* separated by commas",
)
refused("review: no such column", review(SHEET.replace("decision", "verdict") + DECIDED), "has no column 'decision'")
refused(
    "review: a DRG of no version",
    review(SHEET + DECIDED.replace("066", "1066")),
    "line 2 .*column decision: '1066' is neither",
)
refused(
    "review: 5,000 digits, 5,000 letters",
    review(SHEET + DECIDED.replace("066", "9" * 5000).replace("SOME", "S" * 5000)),
    "column decision: '999",
)
refused(
    "review: a title of two lines",
    review(SHEET + DECIDED.replace("SOME", '"SOME\n').replace("TITLE", 'TITLE"').replace("066", "no")),
    r"\(065 SOME TITLE\)",
)
refused("review: nobody", review(SHEET + DECIDED.replace("Dr A", " ")), "column reviewer: empty")
refused(
    "review: two minds", review(SHEET + DECIDED + DECIDED.replace("066", "067")), "line 3 .* an earlier line decides"
)
refused(
    "review: a line too long",
    review(SHEET + DECIDED + "065,T,066,A,,,,,\n"),
    r"review\.csv is no readable table \(.*line 3",
)
refused(
    "review: Latin-1",
    review((SHEET + DECIDED.replace("Dr A", "Dr Ä")).encode("latin-1")),
    r"review\.csv is no readable table",
)
refused(
    "review: an Excel file",
    review(zipped("xl/workbook.xml", "<x/>")),
    r"review\.csv (is no readable table|has no column)",
)
refused("review: a folder", review(None), r"review\.csv is no readable table \(.*directory")
refused("review: a link to itself", review(Path("review.csv")), r"review\.csv is no readable table")
refused("review: empty", review(""), r"review\.csv is no readable table")


def errors_review(**change):
    """Read the errors' review sheet after a physician has filled it in."""

    def act(folder):
        sheet = pd.DataFrame({"stay_id": [1], "true_drg": ["065"], "predicted_drg": "066"})
        filled = sheet.assign(**dict.fromkeys(errors._FILLED, "")).assign(
            **{"category": next(iter(errors.CATEGORIES))} | change
        )
        put(folder / "errors.csv", filled.to_csv(index=False))
        return errors.reviewed(sheet, folder / "errors.csv")["category"].tolist()

    return act


accepted("errors: a code without its zero", errors_review(true_drg="65"), [next(iter(errors.CATEGORIES))])
refused(
    "errors: an id of 5,000 digits",
    errors_review(stay_id="9" * 5000),
    r"errors\.csv, row 1 .* column stay_id: expected a whole",
)
refused("errors: a category of 5,000 letters", errors_review(category="c" * 5000), "column category: 'ccc.* is none of")


# --- parameters ---------------------------------------------------------------------------------------------------------
def params(content, name="03-cohort"):
    return lambda folder: read_params(put(folder / "smoke" / f"{name}.yaml", content))


P = "profile: smoke\n"
BOMB = "a: &a [lol,lol,lol,lol,lol,lol,lol,lol,lol]\n" + "".join(
    f"{b}: &{b} [{','.join([f'*{a}'] * 9)}]\n" for a, b in zip("abcdefgh", "bcdefghi", strict=True)
)
accepted(
    "params: mark and line ends of Windows",
    params("\ufeff" + (P + "seed: 3\n").replace("\n", "\r\n")),
    {"profile": "smoke", "seed": 3},
)
accepted(
    "params: numbers with exponents",
    lambda folder: [
        params(f"profile: smoke\nmodel: llama\nrun: llama\nsettings: {{learning_rate: {written}}}\n", "05-train-llama")(
            folder
        )["settings"]["learning_rate"]
        for written in ("1e-3", "1.0e-3", "2e-05", "2E-5", ".5e-4", "+1.e-1", "'1e-3'", "1e-3x")
    ],
    [1e-3, 1e-3, 2e-5, 2e-5, 5e-5, 0.1, "1e-3", "1e-3x"],
)
accepted("params: a share of 5e-2", lambda folder: params(P + "test_share: 5e-2")(folder)["test_share"], 0.05)
accepted(
    "params: an integer for a float",
    params(P + "base_payment: 7\ntargets: [0, 0.5]", "11-trust"),
    {"profile": "smoke", "base_payment": 7.0, "targets": [0.0, 0.5]},
)
refused(
    "params: a bomb of aliases",
    params(P + BOMB + "min_words: *i\n"),
    r"03-cohort\.yaml is not valid YAML: anchor, alias or tag.*line 2",
)
refused("params: an alias to itself", params(P + "min_words: &a [*a]\n"), "anchor, alias or tag")
refused("params: a merge", params("x: &x {seed: 1}\n<<: *x\nprofile: smoke\n"), "anchor, alias or tag")
refused(
    "params: an object", params(P + "min_words: !!python/object/apply:os.system ['true']\n"), "anchor, alias or tag"
)
refused("params: a tag", params(P + "min_words: !!timestamp x\n"), "anchor, alias or tag")
refused(
    "params: a key twice", params(P + "seed: 1\nseed: 2\n"), r"03-cohort\.yaml is not valid YAML: a key occurs twice"
)
refused(
    "params: a setting twice",
    params(P + "run: caml\nmodel: caml\nsettings: {kernel: 1, kernel: 3}", "05-train-caml"),
    "a key occurs twice",
)
refused(
    "params: unknown",
    params(P + "min_wrods: 40"),
    "unknown parameter 'min_wrods'; the parameters are profile, like, min_words",
)
refused("params: unknown, of 5,000 letters", params(P + "m" * 100 + ": 40"), "unknown parameter 'mmm")
refused("params: a list for a key", params(P + "? [a]\n: 1"), "is not valid YAML")
refused("params: a word", params(P + "min_words: forty"), "parameter min_words: expected int, like 40, got 'forty'")
refused(
    "params: a text of 90,000 letters",
    params(P + "min_words: " + "f" * 90_000),
    "parameter min_words: expected int, like 40, got 'fff",
)
refused(
    "params: lists in lists",
    params(P + "min_words: " + "[" * 300 + "]" * 300),
    r"parameter min_words: expected int, like 40, got \[",
)
refused(
    "params: a list too deep", params(P + "min_words: " + "[" * 1500 + "]" * 1500), "is not valid YAML: .*recursion"
)
refused("params: yes", params(P + "min_words: yes"), "parameter min_words: expected int, like 40, got True")
refused("params: NaN", params(P + "test_share: .nan"), "parameter test_share: expected a finite number")
refused("params: infinite", params(P + "test_share: -.inf"), "parameter test_share: expected a finite number")
refused("params: negative", params(P + "min_words: -1"), "parameter min_words: expected 0 or more, got -1")
refused("params: 5,000 digits", params(P + "min_words: " + "9" * 5000), "is not valid YAML: Exceeds the limit")
refused(
    "params: 5,000 hexadecimal digits", params(P + "min_words: 0x" + "f" * 5000), "is not valid YAML: Exceeds the limit"
)
refused(
    "params: 2 to the 64th", params(P + f"seed: {2**64}"), r"parameter seed: expected a finite number below 2\*\*63"
)
refused("params: a seed too large", params(P + f"seed: {2**31}"), r"parameter seed: expected less than 2\*\*31")
refused("params: no such day", params(P + "min_words: 2190-02-30"), "is not valid YAML: day is out of range")
refused(
    "params: a list of other things",
    params(P + "runs: [llama, 3]", "06-results"),
    "parameter runs, value 2: expected str",
)
refused("params: a list of lists", params(P + "runs: [[llama]]", "06-results"), "parameter runs, value 1: expected str")
refused("params: a list", params("- profile\n- smoke"), "expected lines of the form `name: value`")
refused("params: a tab", params(P + "\tseed: 1"), "is not valid YAML")
refused("params: empty", params(""), "expected lines of the form")
refused("params: Latin-1", params((P + "# café").encode("latin-1")), r"03-cohort\.yaml is not UTF-8 text")
refused("params: a NUL", params(P + "seed: \0"), "is not valid YAML")
refused("params: a folder", params(None), r"03-cohort\.yaml can't be read \(Is a directory\)")
refused("params: a link to itself", params(Path("03-cohort.yaml")), r"03-cohort\.yaml can't be read")
refused("params: 1 MB", params(P + "# \n" * 300_000), r"03-cohort\.yaml has 900,015 characters")
refused("params: no notebook", params(P, "99-none"), "no notebook's name begins this file's name")
refused(
    "params: another run's name",
    params(P + f"run: {'r' * 5000}\nmodel: caml", "05-train-caml"),
    "parameter run is 'rrr.*another run",
)


# --- settings of models, and the hospitals' dials ---------------------------------------------------------------------
def settings(model="caml", **values):
    return lambda folder: models.build(model, values, ["001", "002"], folder, 0)


refused(
    "settings: a learning rate of NaN",
    settings(learning_rate=float("nan")),
    "setting learning_rate: expected a finite number",
)
refused(
    "settings: a learning rate of 0", settings(learning_rate=0), "setting learning_rate: expected more than 0, got 0"
)
refused(
    "settings: a huge learning rate",
    settings(learning_rate=1e300),
    "setting learning_rate: expected a finite number below",
)
refused("settings: a dropout of 2", settings(dropout=2.0), "setting dropout: expected a share, less than 1, got 2.0")
refused("settings: a negative dropout", settings(dropout=-0.1), "setting dropout: expected 0 or more, got -0.1")
refused("settings: a batch of -4", settings(batch_size=-4), "setting batch_size: expected more than 0, got -4")
refused("settings: no filters", settings(filters=0), "setting filters: expected more than 0")
refused("settings: -1 epochs", settings(epochs=-1), "setting epochs: expected 0 or more")
refused("settings: more dropout than all", settings(dropout=1.0), "setting dropout: expected a share")
refused(
    "settings: keys of two kinds",
    lambda folder: models.build("caml", {1: 2, "x": 3}, ["001"], folder, 0),
    "setting 1: unknown; the settings are",
)
refused("settings: terms of no words", settings("tfidf", ngrams=0), "setting ngrams: expected more than 0")
refused("settings: a cut of one number", settings("llama", cuts=[[1]]), "setting cuts: expected pairs")
refused("settings: a cut of words", settings("llama", cuts=["ab"]), "setting cuts: expected pairs")
refused(
    "settings: a target of numbers", settings("llama", lora_targets=[1]), "setting lora_targets, value 1: expected str"
)
refused("model: none of ours", settings("gpt"), "parameter model: 'gpt' is not a model of this study")


def hospital(**change):
    dials = {"patients": 2, "seed": 1, "course_words": 50, "tail": 0.1}
    return lambda folder: make_hospital(folder / "raw", **dials | change)


refused("hospital: -1 patients", hospital(patients=-1), "patients is -1; .* a whole number from 1 to")
refused("hospital: 10 billion patients", hospital(patients=10**10), "patients is 10000000000; ")
refused("hospital: a tail of NaN", hospital(tail=float("nan")), "tail is nan; .* a number from 0 to 1")
refused(
    "hospital: a truth cut off",
    lambda folder: hardness.read_truth(
        put(folder / "truth.csv.gz", gzip.compress(b"hadm_id,fiscal_year\n1,2015\n")[:-9]).parent
    ),
    r"truth\.csv\.gz is no readable table",
)


# --- what earlier steps wrote --------------------------------------------------------------------------------------------
def record(content):
    return lambda folder: read_json(put(folder / "flow.json", content))


accepted("json: a byte order mark", record('\ufeff{"a": 1}'), {"a": 1})
refused(
    "json: cut off", record('{"a": '), r"flow\.json is not valid JSON \(Expecting value.*delete it and run make again"
)
refused("json: too deep", record("[" * 100_000), r"flow\.json is not valid JSON \(.*recursion")
refused("json: NaN", record('{"a": NaN}'), r"flow\.json is not valid JSON \(NaN is no number\)")
refused("json: 5,000 digits", record("9" * 5000), r"flow\.json is not valid JSON \(Exceeds the limit")
refused("json: Latin-1", record('"café"'.encode("latin-1")), r"flow\.json is not UTF-8 text")
refused("json: a folder", record(None), r"flow\.json can't be read \(Is a directory\)")
refused("json: empty", record(""), r"flow\.json is not valid JSON")

STAY = {
    "stay_id": 1,
    "subject_id": 1,
    "drg_v34": "065",
    "text": SECRET,
    "words": 6,
    "split": "train",
    "split_patients": "train",
}


def stays(spoil):
    """Read stays.parquet after its bytes were spoiled, or its table was."""

    def act(folder):
        path = folder / "stays.parquet"
        whole = pd.DataFrame([STAY, STAY | {"stay_id": 2, "subject_id": 2, "split": "test", "split_patients": "test"}])
        write_rows(whole, path, cohort.STAYS, by="03-cohort")
        if isinstance(made := spoil(whole.copy()), bytes):
            put(path, path.read_bytes()[: len(made)] if made.strip(b"cut") == b"" else made)
        else:
            write_rows(made, path, cohort.STAYS, by="03-cohort")
        return read_rows(path, cohort.STAYS)["text"].tolist()

    return act


accepted("stays: as they were written", stays(lambda table: table), [SECRET] * 2)
refused("stays: cut off", stays(lambda table: b"cut" * 100), r"stays\.parquet")
refused("stays: no Parquet", stays(lambda table: b"stay_id\n1\n"), r"stays\.parquet")
refused(
    "stays: no text",
    stays(lambda table: table.assign(text=[SECRET, None])),
    r"stays\.parquet, column text, row 1: .* not_nullable",
)
refused(
    "stays: another schema",
    stays(lambda table: table.drop(columns="text")),
    r"stays\.parquet: text breaks the rule column_in_dataframe",
)
refused("stays: a column more", stays(lambda table: table.assign(age=3)), r"stays\.parquet: age breaks the rule")
refused(
    "stays: an id twice",
    stays(lambda table: table.assign(stay_id=1)),
    "column stay_id, row 0: 1 breaks the rule field_uniqueness",
)
refused(
    "stays: ids with a fraction",
    stays(lambda table: table.assign(stay_id=[1.5, 2])),
    "column stay_id: float64 breaks the rule dtype",
)
refused(
    "stays: a DRG of four digits",
    stays(lambda table: table.assign(drg_v34="1065")),
    "column drg_v34, row 0: 1065 breaks the rule",
)
refused(
    "stays: a note for a DRG",
    stays(lambda table: table.assign(drg_v34=f"{SECRET}\n" * 99)),
    "column drg_v34, row 0: a text of .* characters breaks the rule",
)
refused(
    "stays: a split of another name",
    stays(lambda table: table.assign(split="valid")),
    "column split, row 0: valid breaks the rule isin",
)


def cohort_of(text, hadm="20", **change):
    """The cohort of two notes of stays with a DRG."""

    def act(folder):
        put(
            folder / "discharge.csv", NOTE + note(text, hadm) + note(text + " again", "21", "2").replace(",10,", ",11,")
        )
        rows = pd.DataFrame(
            {"hadm_id": [20, 21], "drg_type": "HCFA", "drg_code": "291", "description": "HEART FAILURE & SHOCK W MCC"}
        )
        mapping = harmonize.harmonize(rows)
        batches = map(cohort.extract, mimic.notes(folder))
        return cohort.build_cohort(batches, rows, mapping, **{"min_words": 3} | change)[0]["text"].tolist()

    return act


accepted("cohort: two notes", cohort_of(COURSE), [SECRET, SECRET + " again"])
refused("cohort: a test share of NaN", cohort_of(COURSE, test_share=float("nan")), "test_share is nan, expected 0 to 1")
refused("cohort: DRGs of no stay", cohort_of(COURSE, min_stays=0), "min_stays is 0, expected 2 or more")
refused(
    "cohort: notes without a course",
    cohort_of(SECRET),
    "no discharge summary is left after the step 'hospital course found'",
)
refused(
    "cohort: notes without a stay",
    cohort_of(COURSE, ""),
    "the cohort is empty: no discharge summary is left after the step 'DRG has",
)

RUN = {"run": "mine", "model": "tfidf", "settings": {}, "seed": 1, "dataset": {"fingerprint": "x"}}
ARRAYS = {
    "stay_ids": np.array([1, 2]),
    "truth": np.array([0, 1]),
    "labels": np.array(["001", "002"]),
    "logits": np.eye(2, dtype=np.float32),
}


def predictions(content=None, run=None, **change):
    """Read a run whose predictions.npz holds other bytes or arrays, and whose run.json says that this is the file."""

    def act(folder):
        write_predictions(folder / "mine", Predictions(**ARRAYS, run=RUN))
        path = folder / "mine" / "predictions.npz"
        if change:
            np.savez(path, **{name: array for name, array in (ARRAYS | change).items() if array is not None})
        elif content is not None:
            put(path, content(path.read_bytes()))
        made = json.loads((folder / "mine" / "run.json").read_text()) | {"predictions": study.fingerprint(path)}
        put(folder / "mine" / "run.json", json.dumps(made if run is None else run))
        return read_predictions(folder / "mine").logits.tolist()

    return act


accepted("predictions: as they were written", predictions(), [[1, 0], [0, 1]])
refused("predictions: cut off", predictions(lambda file: file[:300]), r"predictions\.npz is damaged")
refused("predictions: text", predictions(lambda file: b"stay_id\n1\n"), r"predictions\.npz is damaged")
refused("predictions: one array", predictions(lambda file: zipped("logits", b"x")), r"predictions\.npz is damaged")
refused(
    "predictions: pickled",
    predictions(truth=np.array([{}, 1], object)),
    r"predictions\.npz is damaged \(Object arrays cannot",
)
refused("predictions: no truth", predictions(truth=None), r"predictions\.npz is damaged \(.*truth")
refused("predictions: an array too many", predictions(weights=np.ones(3)), r"predictions\.npz is damaged \(.*weights")
refused("predictions: other shapes", predictions(logits=np.zeros((2, 3), np.float32)), "run mine: .* do not fit logits")
refused("predictions: NaN", predictions(logits=np.full((2, 2), np.nan, np.float32)), "run mine: logits hold a NaN")
refused("predictions: logits of words", predictions(logits=np.full((2, 2), "high")), r"predictions\.npz is damaged")
refused("predictions: a run that is a list", predictions(run=[1]), r"run\.json is no run's record")
refused("predictions: a run without data", predictions(run={"run": "mine"}), r"run\.json is no run's record")


# --- models' files ------------------------------------------------------------------------------------------------------
def base(spoil, **change):
    """Build a LLaMA on a copy of the tiny one's folder, spoiled."""

    def act(folder, tiny):
        for file in tiny.iterdir():
            put(folder / "base" / file.name, file.read_bytes())
        spoil(folder / "base")
        return models.build("llama", {"base": str(folder / "base")} | change, ["001", "002"], folder / "run", 0)

    act.needs = "tiny_llama"
    return act


def without(*names):
    return lambda folder: [(folder / name).unlink() for name in names]


def edited(name, change):
    return lambda folder: put(folder / name, change((folder / name).read_bytes()))


def with_pickle(folder):
    """Weights as a pickle that would run code when loaded."""
    import pickle

    class Code:
        def __reduce__(self):
            return (Path.touch, (folder / "ran",))

    put(folder / "pytorch_model.bin", pickle.dumps({"embed_tokens.weight": Code()}))
    (folder / "model.safetensors").unlink()


def without_layer(folder):
    from safetensors.torch import load_file, save_file

    weights = load_file(folder / "model.safetensors")
    save_file(
        {name: w for name, w in weights.items() if ".1." not in name}, folder / "model.safetensors", {"format": "pt"}
    )


BASE = r"setting base: '.*base' can't be loaded \("
refused("base: no weights", base(without("model.safetensors")), BASE)
refused("base: pickled weights with code", base(with_pickle), BASE)
refused("base: weights cut off", base(edited("model.safetensors", lambda file: file[:500])), BASE)
refused("base: empty weights", base(edited("model.safetensors", lambda file: b"")), BASE)
refused("base: a layer's weights lacking", base(without_layer), BASE + "its weights lack")
refused("base: more layers than it has", base(lambda folder: None, layers=9), BASE + "its weights lack")
refused("base: no configuration", base(without("config.json")), BASE)
refused("base: a configuration cut off", base(edited("config.json", lambda file: file[:50])), BASE)
refused("base: a configuration that is a list", base(edited("config.json", lambda file: b"[]")), BASE)
refused(
    "base: other sizes",
    base(edited("config.json", lambda file: file.replace(b'"hidden_size": 32', b'"hidden_size": 64'))),
    BASE,
)
refused(
    "base: a width in words",
    base(edited("config.json", lambda file: file.replace(b'"hidden_size": 32', b'"hidden_size": "x"'))),
    BASE,
)
refused("base: no tokenizer", base(without("tokenizer.json", "tokenizer_config.json")), BASE)
refused("base: a tokenizer cut off", base(edited("tokenizer.json", lambda file: file[:50])), BASE)
refused("base: an empty folder", base(lambda folder: [file.unlink() for file in folder.iterdir()]), BASE)


def restored(name, content, file, **values):
    """Load a finished run of a model whose weights are this file."""

    def act(folder):
        if content is not None:
            put(folder / "mine" / file, content)
        write_predictions(folder / "mine", Predictions(**ARRAYS, run=RUN | {"model": name, "settings": values}))
        return models.load(folder / "mine")

    return act


refused("weights: missing", restored("caml", None, ""), r"run mine has left no weights that can be read")
refused(
    "weights: pickled", restored("tfidf", b"\x80\x04N.", "model.npz"), r"run mine has left no weights that can be read"
)
refused(
    "weights: garbage",
    restored("lstm", b"\xff" * 99, "model.safetensors"),
    r"run mine has left no weights that can be read",
)


def vectors(content, name="vectors.txt"):
    def act(folder):
        file = put(folder / name, content)
        model = models.build("caml", {"vectors": str(file), "min_count": 1}, ["001", "002"], folder, 0)
        model._vectors([["pain", "fever"]])
        return sorted(model.vocabulary)

    return act


accepted("vectors: two words, one of NaN", vectors("2 2\npain 1 2\nfever nan 1\n"), ["pain"])
refused("vectors: a note", vectors(COURSE), r"setting vectors: .*vectors\.txt is not in word2vec's format")
refused("vectors: cut off", vectors("9 2\npain 1 2\n"), r"vectors\.txt is not in word2vec's format")
refused(
    "vectors: a trillion words", vectors(f"{10**12} {10**6}\npain 1 2\n"), r"vectors\.txt is not in word2vec's format"
)
refused("vectors: a folder", vectors(None), r"setting vectors: .*vectors\.txt is not a file")
refused("vectors: empty", vectors("", "vectors.bin"), r"vectors\.bin is not in word2vec's format")


# --- notebook 13: anybody's notes ----------------------------------------------------------------------------------------
def try_it(content, name="note_file"):
    """What the cells of notebook 13 that read a note, or many, make of a file."""

    def act(folder):
        file = put(folder / "given.txt", content)
        cells = json.loads((NOTEBOOKS / "13-try-it.ipynb").read_text(encoding="utf-8"))["cells"]
        sources = ["".join(cell["source"]) for cell in cells if cell["cell_type"] == "code"]
        chosen = [source for source in sources if source.startswith("if note and") or source.startswith("found = None")]
        imports = "from drgstudy import names, notes, sheets\nfrom drgstudy.study import *"
        names = {"note": "", "note_file": str(file), "notes_csv": str(file), "credentialed": False, "EXAMPLE": "", "Path": Path, "pd": pd, "run": "llama",
                 "text_column": "text", "about_columns": ["id"], "tested": SimpleNamespace(run={"run": "llama"}), "source": {"name": "?"}, "StudyError": StudyError}  # fmt: skip
        exec(imports + "\nfrom drgstudy import plots\nfrom IPython.display import Markdown", names)
        if name == "note_file":
            exec(chosen[0], names)
            return names["text"]
        exec(chosen[1], names)
        return names["found"]["course"].tolist()

    return act


accepted("try-it: mark and line ends of Windows", try_it("\ufeff" + COURSE.replace("\n", "\r\n")), SECRET)
accepted("try-it: 2 million letters", try_it(COURSE + " pain" * 400_000), SECRET + " pain" * 400_000)
refused("try-it: empty", try_it(""), "no hospital course found")
refused("try-it: a folder", try_it(None), r"given\.txt can't be read")
refused("try-it: no text", try_it(bytes(range(256))), r"given\.txt is not UTF-8 text")
refused("try-it: no such file", try_it(Path("nowhere.txt")), r"given\.txt does not exist; parameter note_file")
accepted("try-it: a table", try_it(f'id,text\n1,"{COURSE}"\n2,nothing\n', "notes_csv"), [SECRET])
refused("try-it: a table without the column", try_it("id,note\n1,x\n", "notes_csv"), r"given\.txt has no column 'text'")
refused(
    "try-it: a table that is none",
    try_it(zipped("x", b"\xff" * 99), "notes_csv"),
    r"given\.txt (is no readable table|has no column)",
)


def test_there_are_enough_cases():
    assert len(REFUSED) >= 60 and len(ACCEPTED) >= 30
    names = [case.id for case in REFUSED + ACCEPTED]
    assert len(set(names)) == len(names)


@pytest.fixture
def acted(tmp_path, request, monkeypatch):
    """Do a case in an empty folder, without the network."""
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)

    def do(act):
        needs = [request.getfixturevalue(act.needs)] if hasattr(act, "needs") else []
        return act(tmp_path, *needs)

    return do


def check_sentence(sentence, says):
    assert re.search(says, sentence), sentence
    assert "\n" not in sentence and len(sentence) < 500 and "Secret" not in sentence and "Traceback" not in sentence, (
        sentence
    )


@pytest.mark.parametrize(("act", "says"), REFUSED)
def test_what_cannot_be_right_is_refused_in_one_sentence(acted, act, says, tmp_path):
    with pytest.raises(StudyError) as error:
        acted(act)
    check_sentence(str(error.value), says)
    assert not list(tmp_path.rglob("ran"))  # what a pickle's code would leave


@pytest.mark.parametrize(("act", "value"), ACCEPTED)
def test_what_is_only_odd_works(acted, act, value):
    assert acted(act) == value


def test_what_may_not_be_read_is_told(monkeypatch):
    """As a user without rights, also where the tests run as root."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        put(folder / "hosp" / "drgcodes.csv", HEAD + ROW).chmod(0)
        put(folder / "smoke" / "03-cohort.yaml", P).chmod(0)
        put(folder / "flow.json", "{}").chmod(0)
        put(folder / "review.csv", SHEET + DECIDED).chmod(0)
        for place in (folder, folder / "hosp", folder / "smoke"):
            place.chmod(0o755)
        rights = os.geteuid()
        if rights == 0:
            os.seteuid(65534)
        try:
            for act, says in (
                (lambda: mimic.read(folder, "drgcodes"), r"drgcodes\.csv may not be read; change its permissions"),
                (
                    lambda: read_params(folder / "smoke" / "03-cohort.yaml"),
                    r"03-cohort\.yaml can't be read \(Permission denied",
                ),
                (lambda: read_json(folder / "flow.json"), r"flow\.json can't be read \(Permission denied"),
                (
                    lambda: harmonize.read_review(folder / "review.csv"),
                    r"review\.csv is no readable table \(.*Permission",
                ),
            ):
                with pytest.raises(StudyError) as error:
                    act()
                check_sentence(str(error.value), says)
        finally:
            os.seteuid(rights)


@pytest.mark.parametrize(
    ("module", "given", "says"),
    [
        ("drgstudy.study", P + BOMB + "min_words: *i\n", r"^error: .*03-cohort\.yaml is not valid YAML"),
        ("drgstudy.study", P + "min_words: -1\n", r"^error: .*parameter min_words: expected 0 or more"),
        ("drgstudy.report", None, r"^error: .*nowhere does not exist"),
    ],
)
def test_the_commands_say_one_sentence_and_end_with_1(tmp_path, module, given, says):
    argument = str(put(tmp_path / "smoke" / "03-cohort.yaml", given)) if given else "nowhere"
    command = [sys.executable, "-m", module, argument]
    environment = os.environ | {"PYTHONPATH": str(ROOT / "lib")}
    done = subprocess.run(command, capture_output=True, text=True, cwd=ROOT, env=environment, timeout=60)
    assert done.returncode == 1 and done.stdout == ""
    check_sentence(done.stderr.strip(), says)


# --- large ones, each in a process of its own ----------------------------------------------------------------------------
def wide(text):
    return HEAD + f'10,20,HCFA,039,"{text}",,\n'


MB = 1_000_000
LARGE = {  # what makes the case, and the sentence or the value
    "params: a bomb of aliases": lambda: (params(P + BOMB + "min_words: *i\n"), "anchor, alias or tag"),
    "params: 50 MB": lambda: (params(P + "x" * 50 * MB), r"has 50,000,015 characters"),
    "json: 50 MB, cut off": lambda: (record('["' + "x" * 50 * MB), r"flow\.json is not valid JSON"),
    "json: 50 million lists in lists": lambda: (record("[" * 50 * MB), r"flow\.json is not valid JSON"),
    "table: 50 MB in one field": lambda: (table(wide("N" * 50 * MB)), "a row is longer than 4 MiB"),
    "table: a header of 50 MB": lambda: (table("N" * 50 * MB + "\n"), "has no column"),
    "table: 1 GB in a .gz of 1 MB": lambda: (
        table(gzip.compress((HEAD + '10,20,HCFA,039,"').encode()) + gzip.compress(b"N" * 10 * MB) * 100, "drgcodes.csv.gz"),
        "a row is longer than 4 MiB",
    ),
    "table: 1 GB of NULs in a .gz": lambda: (table(gzip.compress(bytes(10 * MB)) * 100, "drgcodes.csv.gz"), "has no column"),
    "notes: a quote open before 50 MB": lambda: (
        courses(NOTE + note(COURSE)[:-2] + "\n" + "".join(note(COURSE, name=f"{i}") for i in range(600_000))),
        "not a well-formed CSV table",
    ),
    "notes: 50 MB, one of 3 million letters": lambda: (
        lambda folder: len(courses(NOTE + note(COURSE + "x" * 3 * MB) + "".join(note(COURSE, name=f"{i}") for i in range(600_000)))(folder)),
        600_001,
    ),
    "notes: 2 million letters of four bytes": lambda: (courses(NOTE + note("𝒙" * 2_500_000)), "a row is longer than 4 MiB"),
    "try-it: 50 MB": lambda: (lambda folder: len(try_it(COURSE + " pain" * 10 * MB)(folder)), len(SECRET) + 50 * MB),
    "try-it: headings of 50 MB": lambda: (lambda folder: len(try_it("\nHospital Course: " * 2_700_000)(folder)), 18 * 2_700_000 - 20),
    "review: 50 MB in one field": lambda: (review(SHEET + f"065,{'T' * 50 * MB},no,A,\n"), "column decision: 'no' is neither"),
    "titles: a thousand of 5,000 letters": lambda: (
        lambda folder: harmonize.harmonize(
            pd.DataFrame({"drg_code": "291", "description": [f"{i} HEART FAILURE & SHOCK W MCC " * 160 for i in range(1000)]})
        )["drg_v34"].notna().sum(),
        0,
    ),
    "vectors: a trillion words": lambda: (vectors(f"{10**12} {10**6}\npain 1 2\n"), "is not in word2vec's format"),
}  # fmt: skip


def large(name):
    """Run one case; prints what came of it, the seconds and the peak memory in GB."""
    act, _ = LARGE[name]()
    start, before = time.perf_counter(), study.peak_memory_gb()
    with tempfile.TemporaryDirectory() as folder:
        try:
            made = int(act(Path(folder)))
        except StudyError as error:
            made = str(error)
    print(json.dumps([made, time.perf_counter() - start, before, study.peak_memory_gb()]))


@pytest.mark.stress
@pytest.mark.parametrize("name", LARGE)
def test_large_input_takes_neither_long_nor_much_memory(name):
    environment = os.environ | {"PYTHONPATH": f"{ROOT / 'lib'}{os.pathsep}{Path(__file__).parent}"}
    command = [sys.executable, "-c", f"import test_bad_input; test_bad_input.large({name!r})"]
    done = subprocess.run(command, capture_output=True, text=True, env=environment, timeout=60)
    assert done.returncode == 0, done.stderr
    made, seconds, before, peak = json.loads(done.stdout)
    print(f"{name}: {seconds:.1f} s, {peak:.2f} GB, of which {before:.2f} before")
    _, expected = LARGE[name]()
    check_sentence(made, expected) if isinstance(expected, str) else None
    assert isinstance(expected, str) or made == expected
    assert peak < 2
