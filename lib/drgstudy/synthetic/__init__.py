"""A synthetic hospital in MIMIC-IV's files: diagnoses and procedures are drawn, a real grouper gives the DRG.

`tables` holds what is known, `patients` draws codes and dates, `course` and `summary` write the notes. No result
obtained here ever stands for one on MIMIC.
"""

from __future__ import annotations

import contextlib
import csv
import gzip
import io
from datetime import datetime
from pathlib import Path

import numpy as np

from drgstudy.study import StudyError, atomic, progress, write_json
from drgstudy.synthetic.course import N_AUTHORS, Author, Course, Writer
from drgstudy.synthetic.patients import Patient, Stay, draw_patient, pick
from drgstudy.synthetic.summary import write_summary
from drgstudy.synthetic.tables import GROUPER, Hospital

VERSION = 1
COLUMNS = {
    "hosp/patients": "subject_id gender anchor_age anchor_year anchor_year_group dod",
    "hosp/admissions": "subject_id hadm_id admittime dischtime deathtime admission_type admit_provider_id"
    " admission_location discharge_location insurance language marital_status race edregtime edouttime"
    " hospital_expire_flag",
    "hosp/drgcodes": "subject_id hadm_id drg_type drg_code description drg_severity drg_mortality",
    "hosp/diagnoses_icd": "subject_id hadm_id seq_num icd_code icd_version",
    "hosp/procedures_icd": "subject_id hadm_id seq_num chartdate icd_code icd_version",
    "note/discharge": "note_id subject_id hadm_id note_type note_seq charttime storetime text",
    "truth": "hadm_id drg_v36 fiscal_year scenario codes procedures documented documented_procedures drg_documented"
    " competing course author",
}
# Shares of stays: without any DRG row, with APR rows alone, without a note; of notes: without a hospital course, with
# one too short for the cohort, and, where the stay before was alike, with that one's copied forward.
NO_DRG, NO_MS_DRG, NO_NOTE, NO_COURSE, SHORT, COPIED = 0.02, 0.1, 0.03, 0.02, 0.03, 0.12
_ADMISSION = {
    "E": ("EW EMER.", "EMERGENCY ROOM"),
    "U": ("URGENT", "TRANSFER FROM HOSPITAL"),
    "L": ("SURGICAL SAME DAY ADMISSION", "PHYSICIAN REFERRAL"),
    "N": ("URGENT", "PHYSICIAN REFERRAL"),
}
_RACES = ["WHITE"] * 7 + ["BLACK/AFRICAN AMERICAN"] * 2 + ["HISPANIC OR LATINO", "ASIAN", "UNKNOWN"]


def make_hospital(folder: Path, *, patients: int, seed: int, course_words: int, tail: float) -> None:
    """Write a synthetic hospital: MIMIC-IV 2.2's tables, ``hospital.json`` and, for checks only, ``truth.csv.gz``.

    Equal parameters give equal bytes; a patient depends on the seed and on the patient's number alone. Patients are
    written as they are drawn, so memory does not grow with their number.

    Parameters
    ----------
    folder : Path
        Receives ``hosp/`` and ``note/``; replaced as a whole if it exists.
    patients : int
        Number of patients, 1 to 1,000,000; they have about 1.35 stays each.
    seed : int
        Not negative.
    course_words : int
        Mean words of a hospital course, 40 to 1,000.
    tail : float
        Share of the reasons for admission that occur, the commonest first, 0 to 1; the commonest of each MDC always
        does.

    Raises
    ------
    StudyError
        If a parameter is out of its range.

    Notes
    -----
    Source: METHODS, "The synthetic hospital". ``truth.csv.gz`` says which codes each course lets a careful reader
    know, and the DRG of these alone (the documentation ceiling); no model may read it.
    """
    dials = {"patients": patients, "seed": seed, "course_words": course_words, "tail": tail}
    limits = {"patients": (1, 1_000_000), "seed": (0, 2**63), "course_words": (40, 1000), "tail": (0, 1)}
    for name, (low, high) in limits.items():
        kinds = (int, float) if name == "tail" else int
        if type(dials[name]) is bool or not isinstance(dials[name], kinds) or not low <= dials[name] <= high:
            noun = "a number" if name == "tail" else "a whole number"
            raise StudyError(f"{name} is {dials[name]!r}; a synthetic hospital needs {noun} from {low} to {high}")
    hospital = Hospital(tail)
    authors = [Author.of(number, hospital) for number in range(N_AUTHORS)]
    n_stays = 0
    with atomic(Path(folder)) as beside:
        with contextlib.ExitStack() as stack:
            files = {name: beside / f"{name}.csv.gz" for name in COLUMNS}
            tables = {name: stack.enter_context(_table(path, COLUMNS[name])) for name, path in files.items()}
            for index in progress(range(patients), desc="patients", unit="patient"):
                rng = np.random.default_rng(np.random.SeedSequence(seed, spawn_key=(index,)))
                patient = draw_patient(hospital, index, rng)
                _write_patient(tables, hospital, authors, patient, course_words, rng)
                n_stays += len(patient.stays)
        about = {"source": "synthetic", "version": VERSION, "grouper": f"MS-DRG {GROUPER}", "stays": n_stays}
        write_json(beside / "hospital.json", {**about, **dials})


@contextlib.contextmanager
def _table(path: Path, columns: str):
    """A CSV writer into a .gz whose bytes depend on the rows alone."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with (
        open(path, "wb") as raw,
        gzip.GzipFile("", "wb", compresslevel=6, fileobj=raw, mtime=0) as packed,
        io.TextIOWrapper(packed, encoding="utf-8", newline="") as text,
    ):
        writer = csv.writer(text, lineterminator="\n")
        writer.writerow(columns.split())
        yield writer


def _write_patient(tables, hospital: Hospital, authors: list[Author], patient: Patient, course_words: int, rng) -> None:
    def shifted(time: datetime) -> str:
        day = 28 if (time.month, time.day) == (2, 29) else time.day
        return time.replace(year=time.year + patient.shift, day=day).strftime("%Y-%m-%d %H:%M:%S")

    first, last = patient.stays[0], patient.stays[-1]
    group = 2008 + (first.admitted.year - 2008) // 3 * 3
    anchor = [91 if first.age > 89 else first.age, first.admitted.year + patient.shift, f"{group} - {group + 2}"]
    died = "" if last.alive else shifted(last.discharged)[:10]
    tables["hosp/patients"].writerow([patient.subject_id, patient.sex, *anchor, died])
    married = "SINGLE" if first.age < 25 else pick(rng, ["MARRIED", "MARRIED", "SINGLE", "WIDOWED", "DIVORCED"])
    person = ["ENGLISH" if rng.random() < 0.9 else "?", married, pick(rng, _RACES)]
    before: tuple[Stay, Course] | None = None
    for number, stay in enumerate(patient.stays, 2):
        ids = [patient.subject_id, stay.hadm_id]
        author = pick(rng, authors)
        came, left = shifted(stay.admitted), shifted(stay.discharged)
        _write_stay(tables, ids, stay, came, left, [f"P{author.number:02d}{rng.integers(1000):03d}", *person], rng)
        _write_drgs(tables["hosp/drgcodes"], hospital, ids, stay, rng)
        if rng.random() < NO_NOTE:
            continue
        writer = Writer(hospital, author, stay, patient.sex, rng)
        course = writer.write(max(44.0, course_words * float(rng.lognormal(-0.03, 0.25))))
        sort, at, alike = "written", rng.random(), before and before[0].codes[0] == stay.codes[0]
        if at < NO_COURSE:
            sort = "missing"
        elif at < NO_COURSE + SHORT:
            words = course.text.split()[: 12 + int(20 * rng.random())]
            sort, course = "short", Course(" ".join(words).rstrip(".,;:") + ".", course.documented[:1], [])
        elif alike and rng.random() < COPIED:
            sort, course = "copied", before[1]
        before = stay, course
        note = write_summary(writer, None if sort == "missing" else course)
        note_ids = [f"{patient.subject_id}-DS-{number}", *ids, "DS", number]
        tables["note/discharge"].writerow([*note_ids, left[:10] + " 00:00:00", left, note])
        known = course.documented, course.procedures
        readable = hospital.engine.get_drg(*known, patient.sex, stay.alive, discharge_status=stay.status)
        lists = [" ".join(codes) for codes in (stay.codes, stay.procedures, course.documented, course.procedures)]
        about = [stay.hadm_id, stay.drg_v36, stay.fiscal_year, stay.scenario.name]
        tables["truth"].writerow([*about, *lists, readable, course.competing, sort, author.number])


def _write_stay(tables, ids: list[int], stay: Stay, came: str, left: str, person: list[str], rng) -> None:
    kind, place = _ADMISSION[stay.scenario.admission]
    emergency = [came, came] if stay.scenario.admission == "E" else ["", ""]
    insurance = "Medicare" if stay.age > 64 else pick(rng, ["Other", "Other", "Medicaid"])
    where = [kind, person[0], place, stay.disposition, insurance]
    row = [*ids, came, left, "" if stay.alive else left, *where, *person[1:], *emergency, int(not stay.alive)]
    tables["hosp/admissions"].writerow(row)
    for position, code in enumerate(stay.codes, 1):
        tables["hosp/diagnoses_icd"].writerow([*ids, position, code, 10])
    for position, code in enumerate(stay.procedures, 1):
        tables["hosp/procedures_icd"].writerow([*ids, position, came[:10], code, 10])


def _write_drgs(table, hospital: Hospital, ids: list[int], stay: Stay, rng: np.random.Generator) -> None:
    """The billed MS-DRG, and a surrogate for the APR-DRG: base DRG and a severity from the secondary diagnoses."""
    at = rng.random()
    if at < NO_DRG:
        return
    base = hospital.base_title(stay.drg_v36)
    levels = [hospital.severity(code) for code in stay.codes[1:]]
    severity = min(4, 1 + min(1, levels.count(1)) + min(2, levels.count(2)) + (levels.count(1) > 3))
    mortality = min(4, 1 + min(2, levels.count(2)) + (stay.age > 75))
    table.writerow([*ids, "APR", hospital.base_code[base], f"SURROGATE APR: {base}", severity, mortality])
    if at >= NO_DRG + NO_MS_DRG:
        table.writerow([*ids, "HCFA", stay.drg, hospital.facts[stay.fiscal_year, stay.drg][0], "", ""])
