"""The synthetic hospital in MIMIC-IV's files: admissions, diagnoses, procedures, DRGs and discharge summaries."""

from __future__ import annotations

from datetime import datetime
from pathlib import Path

import numpy as np

from drgstudy import mimic
from drgstudy.synthetic.authors import fashion, hospital_and_staff
from drgstudy.synthetic.course import Course, Writer
from drgstudy.synthetic.parts import gzip_csv, patient_generator, write_in_parts
from drgstudy.synthetic.patients import Patient, Stay, apr_levels, draw_patient, pick, pick_weighted
from drgstudy.synthetic.summary import write_summary
from drgstudy.synthetic.tables import Hospital

# The tables are those that the reader knows, complete and in its order of columns; MIMIC has no truth file.
COLUMNS = {("note/" if name == "discharge" else "hosp/") + name: tuple(names) for name, names in mimic.COLUMNS.items()}
COLUMNS["truth"] = (
    *("hadm_id", "sex", "status", "drg_v36", "fiscal_year", "scenario", "codes", "procedures", "documented"),
    *("documented_procedures", "drg_documented", "competing", "told", "named", "lures", "course", "author"),
)
# Shares of stays: without any DRG row, with APR rows alone, and without a note.
NO_DRG, NO_MS_DRG, NO_NOTE = 0.02, 0.14, 0.03
# Shares of notes: without a hospital course; with one too short for the cohort; with that of the previous stay, if both
# have the same principal diagnosis; and with its beginning carried forward, otherwise.
NO_COURSE, SHORT, COPIED, FORWARDED = 0.02, 0.03, 0.08, 0.1
_ADMISSIONS = {  # admission_type and admission_location, by how a scenario is admitted
    "E": ("EW EMER.", "EMERGENCY ROOM"),
    "U": ("URGENT", "TRANSFER FROM HOSPITAL"),
    "L": ("SURGICAL SAME DAY ADMISSION", "PHYSICIAN REFERRAL"),
    "N": ("URGENT", "PHYSICIAN REFERRAL"),
}


def make_hospital(
    folder: Path,
    *,
    patients: int,
    seed: int,
    course_words: int,
    tail: float,
    unseen: float = 0.0,
    drift: float = 0.0,
    workers: int = 1,
) -> None:
    """Write a synthetic hospital: MIMIC-IV 2.2's tables, ``hospital.json`` and, for checks only, ``truth.csv.gz``.

    Equal parameters give equal bytes, whatever the number of workers. A patient depends on the seed, the other dials
    and the patient's own number alone, so the patients of a smaller hospital are the first ones of a larger.

    Parameters
    ----------
    folder : Path
        Receives ``hosp/`` and ``note/``; replaced as a whole if it exists.
    patients : int
        Number of patients, 1 to 800,000; they have about 2.3 stays each.
    seed : int
        Not negative.
    course_words : int
        Mean number of words of a hospital course, 40 to 1,000.
    tail : float
        Share of the reasons for admission that occur, the commonest first, 0 to 1; the commonest one of each MDC always
        occurs.
    unseen : float
        Share of the notes that name diseases in words that hardly any other note has (``rewordings.csv``), 0 to 1.
    drift : float
        How much the years differ, 0 to 1. It is the share of notes that follow the fashion of their fiscal year, and
        the largest change, up or down, of how often a reason for admission occurs.
    workers : int
        Number of processes that share the work.

    Raises
    ------
    StudyError
        If a parameter is out of its range.

    Notes
    -----
    ``truth.csv.gz`` holds the codes that a careful reader of each course could know, and the DRG of these codes alone
    (the grouped documentation); further how the reason for admission was named, and what else might mislead. No model
    may read it.

    Source: ours.
    """
    dials = {"seed": seed, "course_words": course_words, "tail": tail, "unseen": unseen, "drift": drift}
    write_in_parts(folder, COLUMNS, _make_part, patients, workers, dials)


def _make_part(
    numbers: range, *, seed: int, course_words: int, tail: float, unseen: float, drift: float
) -> tuple[dict[str, bytes], int]:
    """The packed rows of some patients by table, and the number of their stays."""
    hospital, staff = hospital_and_staff(tail)
    tables: dict[str, list] = {name: [] for name in COLUMNS}
    n_stays = 0
    for number in numbers:
        rng = patient_generator(seed, number)
        patient = draw_patient(hospital, number, rng, drift=drift)
        _add_patient(tables, hospital, staff, patient, (course_words, unseen, drift), rng)
        n_stays += len(patient.stays)
    return {name: gzip_csv(rows) for name, rows in tables.items()}, n_stays


def _add_patient(tables, hospital: Hospital, staff, patient: Patient, dials: tuple[int, float, float], rng) -> None:
    """Append a patient's rows to all tables."""
    course_words, unseen, drift = dials

    def shifted(time: datetime) -> str:
        day = 28 if (time.month, time.day) == (2, 29) else time.day
        return time.replace(year=time.year + patient.shift, day=day).strftime("%Y-%m-%d %H:%M:%S")

    first, last = patient.stays[0], patient.stays[-1]
    group = 2008 + (first.admitted.year - 2008) // 3 * 3
    anchor = [91 if first.age > 89 else first.age, first.admitted.year + patient.shift, f"{group} - {group + 2}"]
    died = "" if last.alive else shifted(last.discharged)[:10]
    tables["hosp/patients"].append([patient.subject_id, patient.sex, *anchor, died])
    married = "SINGLE" if first.age < 25 else pick(rng, ["MARRIED", "MARRIED", "SINGLE", "WIDOWED", "DIVORCED"])
    language, race = (pick_weighted(rng, hospital.demographics["4", column]) for column in ("language", "race"))
    demographics = [language, married, race]  # language and race have no effect on anything
    previous: tuple[Stay, Course] | None = None
    for number, stay in enumerate(patient.stays, 2):
        ids = [patient.subject_id, stay.hadm_id]
        author = pick(rng, staff[stay.scenario.service])
        admitted, discharged = shifted(stay.admitted), shifted(stay.discharged)
        _add_stay(tables, ids, stay, admitted, discharged, [f"P{author.number:05d}", *demographics], rng)
        _add_drgs(tables["hosp/drgcodes"], hospital, ids, stay, rng)
        if rng.random() < NO_NOTE:
            continue
        taste = fashion(stay.time) if rng.random() < drift else None
        writer = Writer(author, stay, patient.sex, rng, rng.random() < unseen, taste)
        course = writer.write(max(44.0, course_words * author.verbosity * float(rng.lognormal(-0.03, 0.25))))
        kind, at, alike = "written", rng.random(), previous and previous[0].codes[0] == stay.codes[0]
        if at < NO_COURSE:
            kind = "missing"
        elif at < NO_COURSE + SHORT:
            words = course.text.split()[: 12 + int(20 * rng.random())]
            course = Course(" ".join(words).rstrip(".,;:") + ".", course.documented[:1], [], names=course.names)
            kind = "short"
        elif alike and rng.random() < COPIED:
            kind, course = "copied", previous[1]
        elif previous and rng.random() < FORWARDED:
            beginning = " ".join(previous[1].text[:300].split()).rpartition(". ")[0]
            course.text += f" {writer.say('forwarded', text=beginning)}" if beginning else ""
        previous = stay, course
        note = write_summary(writer, None if kind == "missing" else course, course_words)
        note_ids = [f"{patient.subject_id}-DS-{number}", *ids, "DS", number]
        tables["note/discharge"].append([*note_ids, discharged[:10] + " 00:00:00", discharged, note])
        documented = course.documented, course.procedures
        drg_documented = hospital.engine.get_drg(*documented, patient.sex, stay.alive, discharge_status=stay.status)
        lists = [" ".join(codes) for codes in (stay.codes, stay.procedures, *documented)]
        about = [stay.hadm_id, patient.sex, stay.status, stay.drg_v36, stay.fiscal_year, stay.scenario.name]
        told = [course.competing, course.told, ";".join(course.named), " ".join(course.lures)]
        tables["truth"].append([*about, *lists, drg_documented, *told, kind, author.number])


def _add_stay(tables, ids: list[int], stay: Stay, admitted: str, discharged: str, person: list[str], rng) -> None:
    """Append the admission and its codes; `person` holds the admitting clinician, language, marital status and race."""
    admission_type, location = _ADMISSIONS[stay.scenario.admission]
    emergency = [admitted, admitted] if stay.scenario.admission == "E" else ["", ""]
    insurance = "Medicare" if stay.age > 64 else pick(rng, ["Other", "Other", "Medicaid"])
    times = [admitted, discharged, "" if stay.alive else discharged]
    row = [*ids, *times, admission_type, person[0], location, stay.disposition, insurance, *person[1:], *emergency]
    tables["hosp/admissions"].append([*row, int(not stay.alive)])
    for position, code in enumerate(stay.codes, 1):
        tables["hosp/diagnoses_icd"].append([*ids, position, code, 10])
    for position, code in enumerate(stay.procedures, 1):
        tables["hosp/procedures_icd"].append([*ids, position, admitted[:10], code, 10])


def _add_drgs(table: list, hospital: Hospital, ids: list[int], stay: Stay, rng: np.random.Generator) -> None:
    """Append the billed MS-DRG, and a surrogate APR-DRG: the base DRG with levels from the secondary diagnoses."""
    at = rng.random()
    if at < NO_DRG:
        return
    base = hospital.base_title(stay.drg_v36)
    table.append([*ids, "APR", hospital.base_code[base], f"SURROGATE APR: {base}", *apr_levels(hospital, stay)])
    if at >= NO_DRG + NO_MS_DRG:
        title = hospital.drg_facts[stay.fiscal_year, stay.drg][0][:72]  # where MIMIC-IV cuts it
        table.append([*ids, "HCFA", stay.drg, title, "", ""])
