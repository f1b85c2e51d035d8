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
from functools import cache
from pathlib import Path

import numpy as np
from joblib import Parallel, delayed

from drgstudy.study import StudyError, atomic, fingerprint, progress, write_json
from drgstudy.synthetic.authors import Author
from drgstudy.synthetic.course import Course, Writer
from drgstudy.synthetic.patients import Patient, Stay, draw_patient, pick
from drgstudy.synthetic.summary import write_summary
from drgstudy.synthetic.tables import GROUPER, Hospital

VERSION = 2
COLUMNS = {
    "hosp/patients": "subject_id gender anchor_age anchor_year anchor_year_group dod",
    "hosp/admissions": "subject_id hadm_id admittime dischtime deathtime admission_type admit_provider_id"
    " admission_location discharge_location insurance language marital_status race edregtime edouttime"
    " hospital_expire_flag",
    "hosp/drgcodes": "subject_id hadm_id drg_type drg_code description drg_severity drg_mortality",
    "hosp/diagnoses_icd": "subject_id hadm_id seq_num icd_code icd_version",
    "hosp/procedures_icd": "subject_id hadm_id seq_num chartdate icd_code icd_version",
    "note/discharge": "note_id subject_id hadm_id note_type note_seq charttime storetime text",
    "truth": "hadm_id sex status drg_v36 fiscal_year scenario codes procedures documented documented_procedures drg_documented"
    " competing course author",
}
# Shares of stays: without any DRG row, with APR rows alone, without a note; of notes: without a hospital course, with
# one too short for the cohort, with that of the stay before, where it was alike, and with its beginning, where not.
NO_DRG, NO_MS_DRG, NO_NOTE, NO_COURSE, SHORT, COPIED, FORWARDED = 0.02, 0.14, 0.03, 0.02, 0.03, 0.08, 0.1
PART = 1000  # patients
_ADMISSION = {
    "E": ("EW EMER.", "EMERGENCY ROOM"),
    "U": ("URGENT", "TRANSFER FROM HOSPITAL"),
    "L": ("SURGICAL SAME DAY ADMISSION", "PHYSICIAN REFERRAL"),
    "N": ("URGENT", "PHYSICIAN REFERRAL"),
}
_RACES = ["WHITE"] * 7 + ["BLACK/AFRICAN AMERICAN"] * 2 + ["HISPANIC OR LATINO", "ASIAN", "UNKNOWN"]


def make_hospital(folder: Path, *, patients: int, seed: int, course_words: int, tail: float, workers: int = 1) -> None:
    """Write a synthetic hospital: MIMIC-IV 2.2's tables, ``hospital.json`` and, for checks only, ``truth.csv.gz``.

    Equal parameters give equal bytes, whatever the number of workers; a patient depends on the seed, the dials and the
    patient's number alone. Parts of 1,000 patients are made side by side and appended in their order, so memory does
    not grow with the number of patients.

    Parameters
    ----------
    folder : Path
        Receives ``hosp/`` and ``note/``; replaced as a whole if it exists.
    patients : int
        Number of patients, 1 to 800,000; they have about 2.3 stays each.
    seed : int
        Not negative.
    course_words : int
        Mean words of a hospital course, 40 to 1,000.
    tail : float
        Share of the reasons for admission that occur, the commonest first, 0 to 1; the commonest of each MDC always
        does.
    workers : int
        Processes that share the work.

    Raises
    ------
    StudyError
        If a parameter is out of its range.

    Notes
    -----
    Source: METHODS, "The synthetic hospital". ``truth.csv.gz`` says which codes each course lets a careful reader
    know, and the DRG of these alone (the documentation ceiling); no model may read it.
    """
    build(folder, COLUMNS, _part, patients, workers, {"seed": seed, "course_words": course_words, "tail": tail})


def build(folder: Path, columns: dict[str, str], part, patients: int, workers: int, dials: dict) -> None:
    """Check the parameters and write a hospital, of which `part` makes the rows of some patients (see `_part`)."""
    limits = {
        "patients": (1, 800_000),
        "seed": (0, 2**63),
        "course_words": (40, 1000),
        "note_words": (40, 10_000),
        "tail": (0, 1),
        "workers": (1, 999),
    }
    for name, value in {"patients": patients, **dials, "workers": workers}.items():
        kinds, (low, high) = (int, float) if name == "tail" else int, limits[name]
        if type(value) is bool or not isinstance(value, kinds) or not low <= value <= high:
            noun = "a number" if name == "tail" else "a whole number"
            raise StudyError(f"{name} is {value!r}; a synthetic hospital needs {noun} from {low} to {high}")
    starts = range(0, patients, PART)
    parts = Parallel(n_jobs=min(workers, len(starts)), return_as="generator")(
        delayed(part)(range(start, min(start + PART, patients)), **dials) for start in starts
    )
    n_stays = 0
    with atomic(Path(folder)) as beside:
        paths = {name: beside / f"{name}.csv.gz" for name in columns}
        for path in paths.values():
            path.parent.mkdir(parents=True, exist_ok=True)
        with contextlib.ExitStack() as stack:
            files = {name: stack.enter_context(open(path, "wb")) for name, path in paths.items()}
            for name, header in columns.items():
                files[name].write(_packed([header.split()]))
            for tables, stays in progress(parts, total=len(starts), desc=f"{PART} patients each", unit="part"):
                n_stays += stays
                for name, packed in tables.items():
                    files[name].write(packed)
        about = {"source": "synthetic", "version": VERSION, "grouper": f"MS-DRG {GROUPER}", "stays": n_stays}
        about["files"] = {f"{name}.csv.gz": fingerprint(path) for name, path in paths.items()}
        write_json(beside / "hospital.json", {**about, "patients": patients, **dials})


@cache
def _hospital(tail: float) -> tuple[Hospital, dict[str, list[Author]]]:
    hospital = Hospital(tail)
    return hospital, Author.staff(hospital)


def _part(numbers: range, *, seed: int, course_words: int, tail: float) -> tuple[dict[str, bytes], int]:
    """The rows of some patients, packed, by table; and how many stays they have."""
    hospital, staff = _hospital(tail)
    tables: dict[str, list] = {name: [] for name in COLUMNS}
    n_stays = 0
    for number in numbers:
        rng = np.random.default_rng(np.random.SeedSequence(seed, spawn_key=(number,)))
        patient = draw_patient(hospital, number, rng)
        _write_patient(tables, hospital, staff, patient, course_words, rng)
        n_stays += len(patient.stays)
    return {name: _packed(rows) for name, rows in tables.items()}, n_stays


def _packed(rows: list) -> bytes:
    """Rows of CSV as a whole .gz; several of them in a row are a .gz again."""
    text = io.StringIO()
    csv.writer(text, lineterminator="\n").writerows(rows)
    return gzip.compress(text.getvalue().encode(), compresslevel=6, mtime=0)


def _write_patient(tables, hospital: Hospital, staff, patient: Patient, course_words: int, rng) -> None:
    def shifted(time: datetime) -> str:
        day = 28 if (time.month, time.day) == (2, 29) else time.day
        return time.replace(year=time.year + patient.shift, day=day).strftime("%Y-%m-%d %H:%M:%S")

    first, last = patient.stays[0], patient.stays[-1]
    group = 2008 + (first.admitted.year - 2008) // 3 * 3
    anchor = [91 if first.age > 89 else first.age, first.admitted.year + patient.shift, f"{group} - {group + 2}"]
    died = "" if last.alive else shifted(last.discharged)[:10]
    tables["hosp/patients"].append([patient.subject_id, patient.sex, *anchor, died])
    married = "SINGLE" if first.age < 25 else pick(rng, ["MARRIED", "MARRIED", "SINGLE", "WIDOWED", "DIVORCED"])
    person = ["ENGLISH" if rng.random() < 0.9 else "?", married, pick(rng, _RACES)]
    before: tuple[Stay, Course] | None = None
    for number, stay in enumerate(patient.stays, 2):
        ids = [patient.subject_id, stay.hadm_id]
        author = pick(rng, staff[stay.scenario.service])
        came, left = shifted(stay.admitted), shifted(stay.discharged)
        _write_stay(tables, ids, stay, came, left, [f"P{author.number:05d}", *person], rng)
        _write_drgs(tables["hosp/drgcodes"], hospital, ids, stay, rng)
        if rng.random() < NO_NOTE:
            continue
        writer = Writer(author, stay, patient.sex, rng)
        course = writer.write(max(44.0, course_words * author.verbosity * float(rng.lognormal(-0.03, 0.25))))
        sort, at, alike = "written", rng.random(), before and before[0].codes[0] == stay.codes[0]
        if at < NO_COURSE:
            sort = "missing"
        elif at < NO_COURSE + SHORT:
            words = course.text.split()[: 12 + int(20 * rng.random())]
            sort, course = "short", Course(" ".join(words).rstrip(".,;:") + ".", course.documented[:1], [])
        elif alike and rng.random() < COPIED:
            sort, course = "copied", before[1]
        elif before and rng.random() < FORWARDED:
            beginning = " ".join(before[1].text[:300].split()).rpartition(". ")[0]
            course.text += f" {writer.say('forwarded', text=beginning)}" if beginning else ""
        before = stay, course
        note = write_summary(writer, None if sort == "missing" else course, course_words)
        note_ids = [f"{patient.subject_id}-DS-{number}", *ids, "DS", number]
        tables["note/discharge"].append([*note_ids, left[:10] + " 00:00:00", left, note])
        known = course.documented, course.procedures
        readable = hospital.engine.get_drg(*known, patient.sex, stay.alive, discharge_status=stay.status)
        lists = [" ".join(codes) for codes in (stay.codes, stay.procedures, course.documented, course.procedures)]
        about = [stay.hadm_id, patient.sex, stay.status, stay.drg_v36, stay.fiscal_year, stay.scenario.name]
        tables["truth"].append([*about, *lists, readable, course.competing, sort, author.number])


def _write_stay(tables, ids: list[int], stay: Stay, came: str, left: str, person: list[str], rng) -> None:
    kind, place = _ADMISSION[stay.scenario.admission]
    emergency = [came, came] if stay.scenario.admission == "E" else ["", ""]
    insurance = "Medicare" if stay.age > 64 else pick(rng, ["Other", "Other", "Medicaid"])
    where = [kind, person[0], place, stay.disposition, insurance]
    row = [*ids, came, left, "" if stay.alive else left, *where, *person[1:], *emergency, int(not stay.alive)]
    tables["hosp/admissions"].append(row)
    for position, code in enumerate(stay.codes, 1):
        tables["hosp/diagnoses_icd"].append([*ids, position, code, 10])
    for position, code in enumerate(stay.procedures, 1):
        tables["hosp/procedures_icd"].append([*ids, position, came[:10], code, 10])


def _write_drgs(table, hospital: Hospital, ids: list[int], stay: Stay, rng: np.random.Generator) -> None:
    """The billed MS-DRG, and a surrogate for the APR-DRG: base DRG and a severity from the secondary diagnoses."""
    at = rng.random()
    if at < NO_DRG:
        return
    base = hospital.base_title(stay.drg_v36)
    table.append([*ids, "APR", hospital.base_code[base], f"SURROGATE APR: {base}", *apr_levels(hospital, stay)])
    if at >= NO_DRG + NO_MS_DRG:
        table.append([*ids, "HCFA", stay.drg, hospital.drg_facts[stay.fiscal_year, stay.drg][0], "", ""])


def apr_levels(hospital: Hospital, stay: Stay) -> tuple[int, int]:
    """The surrogate's severity of illness and risk of mortality, 1 to 4."""
    levels = [hospital.severity(code) for code in stay.codes[1:]]
    severity = min(4, 1 + min(1, levels.count(1)) + min(2, levels.count(2)) + (levels.count(1) > 3))
    return severity, min(4, 1 + min(2, levels.count(2)) + (stay.age > 75))
