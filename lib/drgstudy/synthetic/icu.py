"""The same synthetic hospital in MIMIC-III's files: its ICU stays, what was measured in them, and their notes.

Patients, codes and DRGs are those of `patients`; this module decides who comes to intensive care, when, and how each
code shows with time. No result obtained here ever stands for one on MIMIC.
"""

from __future__ import annotations

import gzip
import io
import re
from dataclasses import dataclass
from datetime import datetime, timedelta
from functools import cache
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow as pa
from pyarrow import csv as arrow_csv

from drgstudy import mimic
from drgstudy.study import REFERENCE
from drgstudy.synthetic import icu_notes, physiology
from drgstudy.synthetic.authors import hospital_and_staff
from drgstudy.synthetic.course import Writer
from drgstudy.synthetic.parts import gzip_csv, patient_generator, write_in_parts
from drgstudy.synthetic.patients import FIRST_DAY, Patient, Stay, apr_levels, draw_patient, pick
from drgstudy.synthetic.tables import FOLDER, Hospital

LAST_DAY = datetime(2012, 10, 1)  # MIMIC-III ends, and so does fiscal year 2012
# The tables are those that the reader knows, complete and in its order of columns, but named in capitals as MIMIC-III
# names them; MIMIC has no truth file.
COLUMNS = {table.upper(): tuple(map(str.upper, names)) for table, names in mimic.MIMIC_III.items()}
COLUMNS["truth"] = ("hadm_id", "drg_v36", "codes", "onset", "sex", "age")
EVENTS = {"chart": "CHARTEVENTS", "lab": "LABEVENTS", "output": "OUTPUTEVENTS"}
# Shares: of admissions with two ICU stays, and of single ones that change ward or care unit; of stays without any DRG,
# with APR rows of two severities, of two groups; without a note; of charted values that are wrong and marked so.
TWO_STAYS, MOVED, NO_DRG, TWO_SEVERITIES, TWO_GROUPS, NO_NOTE, WRONG = 0.08, 0.1, 0.02, 0.02, 0.01, 0.03, 0.001
SHOWS_LATER = 1 / 3  # of the acute secondary diagnoses
_ROWS = 100_000  # row numbers kept for each patient

_HEART = re.compile("02..0")  # open procedures
_BRAIN = re.compile("00[9BC][0-7]|03[CV]G|0N[8S]0")
_VENTILATED = re.compile("5A19|5A1522|0BH17E|0B11")
_CRITICAL = re.compile("R652|R57|R402|I46|I60|I61|I21[034]|J96[02]|J80|K72|D65|E872|T811|I63|S06|K920|I85|I71")
_HOURS_VENTILATED = {"5A1935Z": (4, 24), "5A1945Z": (24, 96), "5A1955Z": (97, 260)}
# What a service adds to the log odds of intensive care.
_SERVICE = {
    "CARDIAC SURGERY": 2.0,
    "NEUROSURGERY": 1.0,
    "VASCULAR": 0.8,
    "THORACIC": 0.8,
    "TRANSPLANT": 0.8,
    "CARDIOLOGY": 0.6,
    "ACS": 0.4,
    "MEDICINE": 0.3,
    "NEUROLOGY": 0.2,
    "SURGERY": 0.2,
    "ORTHOPAEDICS": -0.7,
    "OBSTETRICS": -2.0,
    "PSYCHIATRY": -4.0,
}
# What is collected is no input of the study, so its list of measurements does not have it.
_URINE = [(40055, "output", "carevue", "Urine Out Foley"), (226559, "output", "metavision", "Foley")]
_UNITS = {
    "CARDIAC SURGERY": "CSRU",
    "CARDIOLOGY": "CCU",
    **dict.fromkeys(["ACS", "ORTHOPAEDICS", "PLASTIC", "OMFS"], "TSICU"),
    **dict.fromkeys(["NEUROSURGERY", "NEUROLOGY", "VASCULAR", "THORACIC", "TRANSPLANT", "SURGERY"], "SICU"),
    **dict.fromkeys(["COLORECTAL", "UROLOGY", "GYN", "OBSTETRICS", "ENT"], "SICU"),
}
_WARDS = {"MICU": (50, 52, 23), "CCU": (7, 57), "CSRU": (12, 15), "SICU": (33, 57), "TSICU": (14, 33)}
_CAME = {
    "E": ("EMERGENCY", "EMERGENCY ROOM ADMIT"),
    "U": ("URGENT", "TRANSFER FROM HOSP/EXTRAM"),
    "L": ("ELECTIVE", "PHYS REFERRAL/NORMAL DELI"),
}
_LEFT = {"DIED": "DEAD/EXPIRED", "SKILLED NURSING FACILITY": "SNF", "AGAINST ADVICE": "LEFT AGAINST MEDICAL ADVI"}
_RELIGIONS = ["CATHOLIC", "CATHOLIC", "NOT SPECIFIED", "PROTESTANT QUAKER", "JEWISH", "UNOBTAINABLE", ""]
_RACES = ["WHITE"] * 7 + ["BLACK/AFRICAN AMERICAN", "HISPANIC OR LATINO", "ASIAN", "UNKNOWN/NOT SPECIFIED"]


@dataclass
class IcuStay:
    """The (first) ICU stay of an admission; hours count from its beginning, those before it are negative.

    `before` are the hours from hospital to ICU admission and `hours` those in the ICU, both to the minute; `onset` says
    when each of the stay's codes begins to show, `ventilated` from when to when; `metavision` is the system that
    charted it, else CareVue.
    """

    stay: Stay
    sex: str
    before: float
    hours: float
    onset: dict[str, float]
    ventilated: tuple[float, float] | None
    metavision: bool


def make_icu_hospital(
    folder: Path, *, patients: int, seed: int, note_words: int, tail: float, workers: int = 1
) -> None:
    """Write the ICU stays of a synthetic hospital: MIMIC-III's tables, ``hospital.json`` and ``truth.csv.gz``.

    As with `make_hospital`, equal parameters give equal bytes, whatever the number of workers.

    Parameters
    ----------
    folder : Path
        Receives the files; replaced as a whole if it exists.
    patients : int
        Number of patients of the hospital, 1 to 800,000; about a third of them come to intensive care.
    seed : int
        Not negative.
    note_words : int
        Mean words of all notes of a stay up to its 48th hour, 40 to 10,000.
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
    Source: METHODS, "The synthetic hospital". ``truth.csv.gz`` says which codes a stay has and from which hour each
    shows; no model may read it.
    """
    write_in_parts(folder, COLUMNS, _part, patients, workers, {"seed": seed, "note_words": note_words, "tail": tail})


def draw_icu(hospital: Hospital, stay: Stay, sex: str, rng: np.random.Generator) -> IcuStay | None:
    """The ICU stay of an admission, or None; an operation that was planned moves the admission to its morning."""
    if not stay.age or rng.random() > _chance(hospital, stay):
        return None
    if planned := stay.scenario.admission == "L" and hospital.operative(stay.procedures):
        morning = stay.admitted.replace(hour=6, minute=int(60 * rng.random()))
        stay.admitted, stay.discharged = morning, stay.discharged + (morning - stay.admitted)
    total = (stay.discharged - stay.admitted).total_seconds() // 60 / 60
    heart = any(map(_HEART.match, stay.procedures))
    coded = [_HOURS_VENTILATED.get(code, (12, 90)) for code in stay.procedures if _VENTILATED.match(code)]
    breaths = rng.uniform(*max(coded, default=(3, 20) if heart else (12, 90)))
    hours = max(float(rng.lognormal(np.log(54), 1.1)), breaths + 4 if coded else 6.0)
    before = 2.5 + 6.5 * rng.beta(2, 3) if planned else 8 * rng.beta(1, 2)
    if not planned and rng.random() < 0.18:  # worse on the ward
        before = 10 + rng.exponential(40.0)
    before = round(60 * min(before, total / 2)) / 60
    hours = round(60 * min(hours if stay.alive or rng.random() < 0.25 else total, total - before)) / 60
    together = {code for codes, _ in stay.scenario.principal if codes[0] == stay.codes[0] for code in codes}
    onset = {}
    for code in stay.codes:
        lasting = code in together or hospital.condition(code).kind in "ch"
        onset[code] = -before if lasting or rng.random() > SHOWS_LATER else rng.uniform(0, min(72.0, hours))
    failure = [onset[code] for code in stay.codes if code.startswith("J96")]
    ventilated = None
    if coded or heart or (failure and rng.random() < 0.5):
        start = 0.0 if heart else max(-min(before, 3 * rng.random()), *failure[:1], -before)
        ventilated = (start, min(start + breaths, hours))
    metavision = rng.random() < 0.15 + 0.8 * (stay.admitted - FIRST_DAY) / (LAST_DAY - FIRST_DAY)
    return IcuStay(stay, sex, before, hours, onset, ventilated, metavision)


def _chance(hospital: Hospital, stay: Stay) -> float:
    """How likely a stay is one in intensive care: nearly certain with an open heart, a craniotomy or a ventilator."""
    severe = sum(hospital.severity(code) == 2 for code in stay.codes[1:])
    critical = sum(bool(_CRITICAL.match(code)) for code in stay.codes)
    odds = -2.35 + 3 * (stay.scenario.acuity - 0.8) + _SERVICE.get(stay.scenario.service, -0.4)
    odds += 0.5 * min(3, severe) + 1.2 * min(3, critical) + 1.8 * (not stay.alive)
    odds -= 1.2 * stay.codes[0].startswith("A4")  # most of sepsis stays on the ward
    odds += 5.0 * any(_HEART.match(code) or _BRAIN.match(code) or _VENTILATED.match(code) for code in stay.procedures)
    return 1 / (1 + np.exp(-odds))


def _part(numbers: range, *, seed: int, note_words: int, tail: float) -> tuple[dict[str, bytes], int]:
    """The rows of some patients, packed, by table; and how many ICU admissions they have."""
    hospital, staff = hospital_and_staff(tail)
    ward = _Ward(hospital, staff, note_words, numbers.start * _ROWS)
    for number in numbers:
        rng = patient_generator(seed, number)
        ward.take(draw_patient(hospital, number, rng, LAST_DAY), rng)
    return ward.packed(), len(ward.rows["ADMISSIONS"])


class _Ward:
    """The tables of some patients as they grow; rows are numbered from `first_row` on."""

    def __init__(self, hospital: Hospital, staff, note_words: int, first_row: int) -> None:
        self.hospital, self.staff, self.note_words, self.first_row = hospital, staff, note_words, first_row
        self.rows: dict[str, list] = {name: [] for name in COLUMNS}
        self.events = {name: io.BytesIO() for name in EVENTS.values()}
        self.files = {name: gzip.GzipFile("", "wb", 3, file, mtime=0) for name, file in self.events.items()}
        self.n_events = dict.fromkeys(self.events, 0)

    def packed(self) -> dict[str, bytes]:
        """Each table's rows as a whole .gz."""
        if self.first_row == 0:
            self.rows |= _dictionaries()
        numbered = {
            name: rows if name == "truth" else [[self.first_row + i, *row] for i, row in enumerate(rows, 1)]
            for name, rows in self.rows.items()
        }
        for file in self.files.values():
            file.close()
        return {name: gzip_csv(rows) for name, rows in numbered.items()} | {
            name: file.getvalue() for name, file in self.events.items()
        }

    def take(self, patient: Patient, rng: np.random.Generator) -> None:
        """Write a patient who comes to intensive care, and nothing of any other."""
        drawn = [draw_icu(self.hospital, stay, patient.sex, rng) for stay in patient.stays]
        if not any(drawn):
            return
        for stay in patient.stays:  # by a multiple of four years, so that no leap day is lost
            stay.admitted, stay.discharged = (
                time.replace(microsecond=0, year=time.year + patient.shift) for time in (stay.admitted, stay.discharged)
            )
        stays, last = [icu.stay for icu in drawn if icu], patient.stays[-1]
        earliest = min(stay.admitted.timetuple().tm_yday for stay in stays)  # had the birthday before each admission
        born = datetime(stays[0].admitted.year - stays[0].age, 1, 1) + timedelta(days=int(earliest * rng.random()))
        if stays[-1].age > 89:  # as MIMIC-III hides them: 300 years old when they first came
            born = datetime(stays[0].admitted.year - 300, 1, 1)
        died = "" if last.alive else last.discharged.replace(hour=0, minute=0, second=0)
        self.rows["PATIENTS"].append([patient.subject_id, patient.sex, born, died, died, "", int(not last.alive)])
        person = ["ENGL" if rng.random() < 0.9 else "", pick(rng, _RELIGIONS)]
        person += [pick(rng, ["MARRIED", "MARRIED", "SINGLE", "WIDOWED", "DIVORCED"]), pick(rng, _RACES)]
        for icu in filter(None, drawn):
            ids = [patient.subject_id, icu.stay.hadm_id]
            writer = Writer(pick(rng, self.staff[icu.stay.scenario.service]), icu.stay, patient.sex, rng)
            payer = self._admit(ids, icu, person, writer, rng)
            self._bill(ids, icu.stay, payer == "Medicare", rng)
            came = icu.stay.admitted + timedelta(minutes=round(60 * icu.before))
            self._house(ids, icu, came, rng)
            self._note(ids, icu, came, writer, rng)
            for kind, rows in physiology.draw(self.hospital, icu, rng).items():
                if rows:
                    self._measure(kind, ids, icu, came, rows, rng)
            onset = " ".join(f"{icu.onset[code]:.2f}" for code in icu.stay.codes)
            about = [icu.stay.drg_v36, " ".join(icu.stay.codes), onset, patient.sex, icu.stay.age]
            self.rows["truth"].append([icu.stay.hadm_id, *about])

    def _admit(self, ids: list[int], icu: IcuStay, person: list[str], writer: Writer, rng) -> str:
        """The row of an admission; returns who pays."""
        stay = icu.stay
        sort, place = _CAME[stay.scenario.admission]
        times = [stay.admitted, stay.discharged, "" if stay.alive else stay.discharged]
        waited = timedelta(minutes=int(60 + 360 * rng.random()))
        emergency = [stay.admitted - waited, stay.admitted] if stay.scenario.admission == "E" else ["", ""]
        payer = "Medicare" if stay.age > 64 else pick(rng, ["Private", "Private", "Medicaid", "Government", "Medicare"])
        left = _LEFT.get(stay.disposition, stay.disposition)
        diagnosis = icu_notes.admitting_diagnosis(writer).upper()
        row = [*ids, *times, sort, place, left, payer, *person, *emergency, diagnosis, int(not stay.alive), 1]
        self.rows["ADMISSIONS"].append(row)
        return payer

    def _house(self, ids: list[int], icu: IcuStay, came: datetime, rng) -> None:
        """One ICU stay or two, with wards and care units."""
        unit = _UNITS.get(icu.stay.scenario.service, "MICU")
        if any(_HEART.match(code) for code in icu.stay.procedures):
            unit = "CSRU"
        elif rng.random() < 0.12:  # no bed where the patient belongs
            unit = pick(rng, ["MICU", "SICU", "CCU"])
        ward = pick(rng, _WARDS[unit])
        gone = came + timedelta(minutes=round(60 * icu.hours))
        times, free = [(came, gone)], (icu.stay.discharged - gone) / timedelta(hours=1)
        last, last_ward = unit, ward
        if free > 18 and rng.random() < TWO_STAYS / 0.55:  # some 55 % stay long enough to come back
            back = gone + timedelta(minutes=int(60 * (6 + (free - 12) * rng.random() / 2)))
            end = min(icu.stay.discharged, back + timedelta(minutes=int(60 * rng.lognormal(np.log(40), 0.6))))
            times.append((back, end))
        elif rng.random() < MOVED:
            last = pick(rng, list(_WARDS))
            last_ward = pick(rng, [number for number in _WARDS[last] if number != ward])
        source = "metavision" if icu.metavision else "carevue"
        for number, (begin, end) in enumerate(times, 1):
            days = f"{(end - begin) / timedelta(days=1):.4f}"
            icu_id = ids[1] + 10_000_000 * number
            self.rows["ICUSTAYS"].append([*ids, icu_id, source, unit, last, ward, last_ward, begin, end, days])

    def _bill(self, ids: list[int], stay: Stay, medicare: bool, rng) -> None:
        """MS rows, and more often Medicare's; APR rows by the surrogate, few of them twice."""
        if rng.random() < NO_DRG:
            return
        table, at = self.rows["DRGCODES"], rng.random()
        title = self.hospital.drg_facts[stay.fiscal_year, stay.drg][0]
        if at < (0.85 if medicare else 0.5):
            table.append([*ids, "MS", stay.drg, title, "", ""])
        elif at < 0.9:
            table.append([*ids, "HCFA", stay.drg, title, "", ""])
        if rng.random() < 0.97:
            severity, mortality = apr_levels(self.hospital, stay)
            base, twice, groups = self.hospital.base_title(stay.drg_v36), rng.random(), _apr_groups()
            rows = [(base, severity)]
            if twice < TWO_SEVERITIES:
                rows.append((base, severity + (1 if severity < 4 else -1)))
            elif twice < TWO_SEVERITIES + TWO_GROUPS:
                others = [title for title, code in self.hospital.base_code.items() if code in groups]
                rows.append((pick(rng, [title for title in others if title != base]), severity))
            for title, level in rows:
                code = f"{groups[self.hospital.base_code[title]]:03d}{level}"
                table.append([*ids, "APR ", code, f"SURROGATE APR: {title}", level, mortality])

    def _note(self, ids: list[int], icu: IcuStay, came: datetime, writer: Writer, rng) -> None:
        """The notes of a stay, and a discharge summary in name: no study may read it."""
        if rng.random() < NO_NOTE:
            return
        for hour, category, description, text in icu_notes.write_notes(writer, icu, self.note_words):
            charted = came + timedelta(minutes=int(np.floor(60 * (hour or 0) + 1e-6)))
            typed = hour is not None and category != "Radiology"
            stored = charted + timedelta(minutes=int(60 * rng.random())) if typed else ""
            times = [charted.date(), "" if hour is None else charted, stored]
            caregiver = 14_000 + int(8000 * rng.random()) if typed else ""
            self.rows["NOTEEVENTS"].append([*ids, *times, category, description, caregiver, "", text])
        summary = f"Admission Date: [**{icu.stay.admitted:%Y-%m-%d}**]\n\nService: {icu.stay.scenario.service}\n"
        times = [icu.stay.discharged.date(), "", ""]
        self.rows["NOTEEVENTS"].append([*ids, *times, "Discharge summary", "Report", "", "", summary])

    def _measure(self, kind: str, ids: list[int], icu: IcuStay, came: datetime, rows: list, rng) -> None:
        """Measurements as rows of an event table, each in the minute in which it was made."""
        hours, items, values, units = zip(*rows, strict=True)
        name, n, values = EVENTS[kind], len(rows), np.array(values, dtype=np.float64)
        minutes = np.floor(60 * np.array(hours) + 1e-6).astype("timedelta64[m]")
        charted = (np.datetime64(came, "m") + minutes).astype("datetime64[s]")
        first = self.first_row + self.n_events[name] + 1
        self.n_events[name] += n
        wrong = rng.random(n) < (WRONG if kind == "chart" and icu.metavision else 0)
        values[wrong] = 100 * (values[wrong] + 100)
        columns = {
            "ROW_ID": np.arange(first, first + n),
            "SUBJECT_ID": pa.repeat(ids[0], n),
            "HADM_ID": pa.repeat(ids[1], n),
            "ICUSTAY_ID": pa.repeat(ids[1] + 10_000_000, n),
            "ITEMID": np.array(items),
            "CHARTTIME": charted,
            "STORETIME": charted + rng.integers(1, 60, n).astype("timedelta64[m]"),
            "CGID": 14_000 + (ids[1] + minutes.astype(int) // 720) * 7919 % 8000,  # a nurse a shift
            "VALUE": values,
            "VALUENUM": values,
            "VALUEUOM": list(units),
        }
        if kind == "chart" and icu.metavision:
            columns |= {"WARNING": pa.repeat(0, n), "ERROR": wrong.astype(np.int8)}
        elif kind == "chart":
            columns["STOPPED"] = pa.repeat("NotStopd", n)
        table = pa.table({column: columns.get(column, pa.nulls(n)) for column in COLUMNS[name]})
        plain = arrow_csv.WriteOptions(include_header=False, quoting_style="none")
        arrow_csv.write_csv(table, text := io.BytesIO(), plain)
        self.files[name].write(text.getvalue())


@cache
def _apr_groups() -> dict[str, int]:
    """The surrogate's APR group of each base DRG that has one, by its lowest v36 code."""
    return pd.read_csv(FOLDER / "apr_groups.csv", dtype={"drg": str}).set_index("drg")["apr_group"].to_dict()


def _dictionaries() -> dict[str, list]:
    """The rows of D_ITEMS and D_LABITEMS: the items that are measured here."""
    tables: dict[str, list] = {"D_ITEMS": [], "D_LABITEMS": []}
    items = pd.read_csv(REFERENCE / "measurements.csv")[["itemid", "source", "system", "label"]].drop_duplicates(
        "itemid"
    )
    for item, source, system, label in [*items.sort_values("itemid").to_numpy(), *_URINE]:
        if source == "lab":
            tables["D_LABITEMS"].append([item, label, "", "", ""])
        else:
            tables["D_ITEMS"].append([item, label, "", system, EVENTS[source].lower(), "", "", "", ""])
    return tables
