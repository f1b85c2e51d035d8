"""A synthetic hospital in MIMIC-IV's files: diagnoses and procedures are drawn, a real grouper gives the DRG.

`tables` holds what is known, `patients` draws codes and dates, `course` and `summary` write the notes. Nothing in a
note comes from the title of a DRG. What is here is no statement about any real patient, and its results never stand
for MIMIC's.
"""

from __future__ import annotations

import contextlib
import csv
import gzip
import io
import math
from datetime import datetime
from pathlib import Path

import numpy as np
from tqdm import tqdm

from drgstudy import drgs
from drgstudy.study import StudyError, atomic, write_json
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
# Shares of stays: without an MS-DRG row (APR alone), without any DRG row, without a note; of notes: without a hospital
# course, with one too short for the cohort, copied forward from the stay before.
NO_HCFA, NO_DRG, NO_NOTE, NO_COURSE, SHORT, COPIED = 0.1, 0.02, 0.03, 0.02, 0.03, 0.12
_ADMISSION = {"E": ("EW EMER.", "EMERGENCY ROOM"), "U": ("URGENT", "TRANSFER FROM HOSPITAL"),
              "L": ("SURGICAL SAME DAY ADMISSION", "PHYSICIAN REFERRAL"), "N": ("URGENT", "PHYSICIAN REFERRAL")}  # fmt: skip


def make_hospital(
    folder: Path, *, patients: int, seed: int, course_words: int, tail: float, progress: bool = True
) -> None:
    """Write a synthetic hospital: MIMIC-IV 2.2's tables, ``hospital.json`` and, for checks only, ``truth.csv.gz``.

    Equal parameters give equal bytes; a patient depends on the seed and on the patient's number alone. Patients are
    written as they are drawn, so memory does not grow with their number.

    Parameters
    ----------
    folder : Path
        Receives ``hosp/`` and ``note/``; replaced as a whole if it exists.
    patients : int
        Number of patients, at least 1; about 1.5 stays each.
    seed : int
        Not negative.
    course_words : int
        Mean words of a hospital course, 40 to 1,000.
    tail : float
        Share of the reasons for admission that occur, the commonest first, in (0, 1]; each MDC keeps one.
    progress : bool
        Show a progress bar.

    Raises
    ------
    StudyError
        If a parameter is out of its range.

    Notes
    -----
    Source: METHODS, "The synthetic hospital". ``truth.csv.gz`` says which codes the course lets a reader know and
    the DRG of these codes alone; no model may read it.
    """
    for name, value, low, high, kind in [
        ("patients", patients, 1, 833_000, int),
        ("seed", seed, 0, 2**63 - 1, int),
        ("course_words", course_words, 40, 1000, int),
        ("tail", tail, 0.001, 1, (int, float)),
    ]:
        if not isinstance(value, kind) or isinstance(value, bool) or not (math.isfinite(value) and low <= value <= high):
            raise StudyError(f"{name} is {value!r}; the synthetic hospital needs a number from {low} to {high}")
    hospital = Hospital(tail)
    authors = [Author.of(number, hospital) for number in range(N_AUTHORS)]
    n_stays = 0
    with atomic(Path(folder)) as beside, contextlib.ExitStack() as stack:
        tables = {name: stack.enter_context(_table(beside / f"{name}.csv.gz", names.split())) for name, names in COLUMNS.items()}
        for index in tqdm(range(patients), desc="patients", disable=not progress):
            rng = np.random.default_rng(np.random.SeedSequence(seed, spawn_key=(index,)))
            patient = draw_patient(hospital, index, rng)
            if patient:
                _write_patient(tables, hospital, authors, patient, course_words, rng)
                n_stays += len(patient.stays)
        stack.close()
        dials = {"patients": patients, "seed": seed, "course_words": course_words, "tail": tail}
        content = {"source": "synthetic", "version": VERSION, "grouper": f"MS-DRG {GROUPER}", "stays": n_stays, **dials}
        write_json(beside / "hospital.json", content)


@contextlib.contextmanager
def _table(path: Path, columns: list[str]):
    """A CSV writer into a .gz whose bytes depend on the rows alone."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with (
        open(path, "wb") as raw,
        gzip.GzipFile("", "wb", compresslevel=6, fileobj=raw, mtime=0) as packed,
        io.TextIOWrapper(packed, encoding="utf-8", newline="") as text,
    ):
        writer = csv.writer(text, lineterminator="\n")
        writer.writerow(columns)
        yield writer


def _write_patient(tables, hospital: Hospital, authors: list[Author], patient: Patient, course_words: int, rng) -> None:
    def shifted(time: datetime | None) -> str:
        if time is None:
            return ""
        day = 28 if (time.month, time.day) == (2, 29) else time.day
        return time.replace(year=time.year + patient.shift, day=day).strftime("%Y-%m-%d %H:%M:%S")

    first = patient.stays[0]
    group = min(2017, 2008 + (first.admitted.year - 2008) // 3 * 3)
    anchor_age = 91 if first.age > 89 else first.age
    tables["hosp/patients"].writerow(
        [patient.subject_id, patient.sex, anchor_age, first.admitted.year + patient.shift, f"{group} - {group + 2}",
         shifted(patient.dod)[:10]]  # fmt: skip
    )
    race = pick(rng, ["WHITE"] * 13 + ["BLACK/AFRICAN AMERICAN"] * 3 + ["HISPANIC/LATINO - PUERTO RICAN", "ASIAN", "UNKNOWN"])
    language = "ENGLISH" if rng.random() < 0.9 else "?"
    provider = f"P{int(rng.random() * 90) + 10:02d}{patient.subject_id % 10}XYZ"
    marital = "SINGLE" if first.age < 25 else pick(rng, ["MARRIED", "MARRIED", "SINGLE", "WIDOWED", "DIVORCED"])
    before: tuple[Stay, Course] | None = None
    for number, stay in enumerate(patient.stays):
        ids = [patient.subject_id, stay.hadm_id]
        kind, place = _ADMISSION[stay.scenario.admission]
        author = pick(rng, authors)
        disposition = _disposition(stay, rng)
        writer = Writer(hospital, author, stay, patient.sex, disposition, rng)
        emergency = stay.scenario.admission == "E"
        came, left = shifted(stay.admitted), shifted(stay.discharged)
        tables["hosp/admissions"].writerow(
            [*ids, came, left, "" if stay.alive else left, kind, provider, place, disposition,
             "Medicare" if stay.age > 64 else pick(rng, ["Other", "Other", "Medicaid"]), language, marital, race,
             came if emergency else "", came if emergency else "", int(not stay.alive)]  # fmt: skip
        )
        for position, code in enumerate(stay.codes, 1):
            tables["hosp/diagnoses_icd"].writerow([*ids, position, code, 10])
        for position, code in enumerate(stay.procedures, 1):
            tables["hosp/procedures_icd"].writerow([*ids, position, came[:10], code, 10])
        _write_drgs(tables["hosp/drgcodes"], hospital, ids, stay, rng)
        if rng.random() < NO_NOTE:
            continue
        at = rng.random()
        course, sort = writer.write(max(44.0, course_words * float(rng.lognormal(-0.03, 0.25)))), "written"
        if at < NO_COURSE:
            sort = "missing"
        elif at < NO_COURSE + SHORT:
            sort = "short"
            course = Course(" ".join(course.text.split()[: 12 + int(20 * rng.random())]) + ".", course.documented[:1], [])
        elif before and before[0].scenario is stay.scenario and before[0].codes[0] == stay.codes[0] and rng.random() < COPIED:
            sort, course = "copied", before[1]
        before = stay, course
        note = write_summary(writer, author, None if sort == "missing" else course)
        tables["note/discharge"].writerow(
            [f"{patient.subject_id}-DS-{number + 2}", *ids, "DS", number + 2, left[:10] + " 00:00:00", left, note]
        )
        status = "07" if disposition == "AGAINST ADVICE" else "01"
        documented = hospital.group(course.documented, course.documented_procedures, patient.sex, stay.alive, status)
        tables["truth"].writerow(
            [stay.hadm_id, stay.drg_v36, stay.fiscal_year, stay.scenario.name, " ".join(stay.codes),
             " ".join(stay.procedures), " ".join(course.documented), " ".join(course.documented_procedures),
             documented, course.competing, sort, author.id]  # fmt: skip
        )


def _disposition(stay: Stay, rng: np.random.Generator) -> str:
    if not stay.alive:
        return "DIED"
    if "894" in stay.scenario.drgs:
        return "AGAINST ADVICE"
    if stay.age > 70 and rng.random() < 0.35:
        return "SKILLED NURSING FACILITY"
    return pick(rng, ["HOME", "HOME", "HOME HEALTH CARE"]) if stay.age else "HOME"


def _write_drgs(table, hospital: Hospital, ids: list[int], stay: Stay, rng: np.random.Generator) -> None:
    """The billed MS-DRG and a surrogate of the APR-DRG: the base of the MS-DRG, severity from the secondary diagnoses."""
    at = rng.random()
    if at < NO_DRG:
        return
    title = hospital.engine.drgmap[stay.drg_v36]["desc"]
    base = drgs.SEVERITY.sub("", title)
    levels = [hospital.severity(code) for code in stay.codes[1:]]
    severity = min(4, 1 + min(1, levels.count(1)) + min(2, levels.count(2)) + (levels.count(1) > 3))
    mortality = min(4, 1 + min(2, levels.count(2)) + (stay.age > 75))
    code = min(drg for drg, entry in hospital.engine.drgmap.items() if drgs.SEVERITY.sub("", entry["desc"]) == base)
    table.writerow([*ids, "APR", code, f"SURROGATE APR: {base}", severity, mortality])
    if at >= NO_DRG + NO_HCFA:
        table.writerow([*ids, "HCFA", stay.drg, hospital.facts[stay.fiscal_year, stay.drg][0], "", ""])
