"""The intensive care of the same synthetic hospital in MIMIC-III's files: ICU stays, measurements and notes.

Patients, codes and DRGs are drawn as for the hospital itself (`patients`). Those who never come to intensive care are
left out.
"""

from __future__ import annotations

import gzip
import io
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
from drgstudy.synthetic.icu_stays import LAST_DAY, OPEN_HEART, IcuStay, draw_icu
from drgstudy.synthetic.parts import gzip_csv, patient_generator, write_in_parts
from drgstudy.synthetic.patients import Patient, Stay, apr_levels, draw_patient, pick, pick_weighted
from drgstudy.synthetic.tables import FOLDER, Hospital

# The tables are those that the reader knows, complete and in its order of columns, but named in capitals as MIMIC-III
# names them; MIMIC has no truth file.
COLUMNS = {table.upper(): tuple(map(str.upper, names)) for table, names in mimic.MIMIC_III.items()}
COLUMNS["truth"] = ("hadm_id", "drg_v36", "codes", "onset", "sex", "age")
EVENT_TABLES = {"chart": "CHARTEVENTS", "lab": "LABEVENTS", "output": "OUTPUTEVENTS"}
# Shares of admissions: with two ICU stays; with one during which ward or care unit change.
TWO_STAYS, MOVED = 0.08, 0.1
# Shares of admissions: without any DRG; with APR rows of two severities, of two groups; without a note.
NO_DRG, TWO_SEVERITIES, TWO_GROUPS, NO_NOTE = 0.02, 0.02, 0.01, 0.03
WRONG = 0.001  # share of MetaVision's charted values that are wrong and marked so
_ROW_IDS_PER_PATIENT = 100_000  # more than any patient has rows in a table
# What is put out is no input of the study, so its list of measurements does not have it.
_URINE_ITEMS = [(40055, "output", "carevue", "Urine Out Foley"), (226559, "output", "metavision", "Foley")]
_CARE_UNITS = {  # by service; all others go to the MICU
    "CARDIAC SURGERY": "CSRU",
    "CARDIOLOGY": "CCU",
    **dict.fromkeys(["ACS", "ORTHOPAEDICS", "PLASTIC", "OMFS"], "TSICU"),
    **dict.fromkeys(["NEUROSURGERY", "NEUROLOGY", "VASCULAR", "THORACIC", "TRANSPLANT", "SURGERY"], "SICU"),
    **dict.fromkeys(["COLORECTAL", "UROLOGY", "GYN", "OBSTETRICS", "ENT"], "SICU"),
}
_WARD_IDS = {"MICU": (50, 52, 23), "CCU": (7, 57), "CSRU": (12, 15), "SICU": (33, 57), "TSICU": (14, 33)}
_ADMISSIONS = {  # ADMISSION_TYPE and ADMISSION_LOCATION, by how a scenario is admitted
    "E": ("EMERGENCY", "EMERGENCY ROOM ADMIT"),
    "U": ("URGENT", "TRANSFER FROM HOSP/EXTRAM"),
    "L": ("ELECTIVE", "PHYS REFERRAL/NORMAL DELI"),
}
_DISCHARGE_LOCATIONS = {
    "DIED": "DEAD/EXPIRED",
    "SKILLED NURSING FACILITY": "SNF",
    "AGAINST ADVICE": "LEFT AGAINST MEDICAL ADVI",
}
_RELIGIONS = ["CATHOLIC", "CATHOLIC", "NOT SPECIFIED", "PROTESTANT QUAKER", "JEWISH", "UNOBTAINABLE", ""]


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
        Mean number of words, over stays, of all notes up to the 48th hour after ICU admission, 40 to 10,000.
    tail : float
        Share of the reasons for admission that occur, the commonest first, 0 to 1; the commonest one of each MDC always
        occurs.
    workers : int
        Number of processes that share the work.

    Raises
    ------
    StudyError
        If a parameter is out of its range.

    Notes
    -----
    ``truth.csv.gz`` holds the codes of each stay and the hour from which each of them shows. No model may read it.

    Source: ours.
    """
    dials = {"seed": seed, "note_words": note_words, "tail": tail}
    write_in_parts(folder, COLUMNS, _make_part, patients, workers, dials)


def _make_part(numbers: range, *, seed: int, note_words: int, tail: float) -> tuple[dict[str, bytes], int]:
    """The packed rows of some patients by table, and the number of their admissions with an ICU stay."""
    hospital, staff = hospital_and_staff(tail)
    tables = _Tables(hospital, staff, note_words, numbers.start * _ROW_IDS_PER_PATIENT)
    for number in numbers:
        rng = patient_generator(seed, number)
        tables.add_patient(draw_patient(hospital, number, rng, LAST_DAY), rng)
    return tables.packed(), len(tables.rows["ADMISSIONS"])


class _Tables:
    """The tables of some patients as they grow; their ROW_IDs follow `first_row`, which is 0 for the first part."""

    def __init__(self, hospital: Hospital, staff, note_words: int, first_row: int) -> None:
        self.hospital, self.staff, self.note_words, self.first_row = hospital, staff, note_words, first_row
        self.rows: dict[str, list] = {name: [] for name in COLUMNS}
        self.events = {name: io.BytesIO() for name in EVENT_TABLES.values()}
        self.files = {name: gzip.GzipFile("", "wb", 3, file, mtime=0) for name, file in self.events.items()}
        self.n_events = dict.fromkeys(self.events, 0)

    def packed(self) -> dict[str, bytes]:
        """The rows of each table as a complete gzip file."""
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

    def add_patient(self, patient: Patient, rng: np.random.Generator) -> None:
        """Add the rows of a patient, unless the patient never comes to intensive care."""
        drawn = [draw_icu(self.hospital, stay, patient.sex, rng) for stay in patient.stays]
        if not any(drawn):
            return
        for stay in patient.stays:  # shifted by a multiple of four years, so that no leap day is lost
            stay.admitted, stay.discharged = (
                time.replace(microsecond=0, year=time.year + patient.shift) for time in (stay.admitted, stay.discharged)
            )
        stays, last = [icu.stay for icu in drawn if icu], patient.stays[-1]
        earliest = min(stay.admitted.timetuple().tm_yday for stay in stays)  # the birthday is before each admission
        born = datetime(stays[0].admitted.year - stays[0].age, 1, 1) + timedelta(days=int(earliest * rng.random()))
        if stays[-1].age > 89:  # MIMIC-III hides these ages by making them 300 at the first admission
            born = datetime(stays[0].admitted.year - 300, 1, 1)
        died = "" if last.alive else last.discharged.replace(hour=0, minute=0, second=0)
        self.rows["PATIENTS"].append([patient.subject_id, patient.sex, born, died, died, "", int(not last.alive)])
        known = self.hospital.demographics
        demographics = [pick_weighted(rng, known["3", "language"]), pick(rng, _RELIGIONS)]
        demographics.append(pick(rng, ["MARRIED", "MARRIED", "SINGLE", "WIDOWED", "DIVORCED"]))
        demographics.append(pick_weighted(rng, known["3", "ethnicity"]))
        for icu in filter(None, drawn):
            ids = [patient.subject_id, icu.stay.hadm_id]
            writer = Writer(pick(rng, self.staff[icu.stay.scenario.service]), icu.stay, patient.sex, rng)
            insurance = self._add_admission(ids, icu, demographics, writer, rng)
            self._add_drgs(ids, icu.stay, insurance == "Medicare", rng)
            icu_in = icu.stay.admitted + timedelta(minutes=round(60 * icu.before))
            self._add_icu_stays(ids, icu, icu_in, rng)
            self._add_notes(ids, icu, icu_in, writer, rng)
            for source, rows in physiology.draw(self.hospital, icu, rng).items():
                if rows:
                    self._add_events(source, ids, icu, icu_in, rows, rng)
            onset = " ".join(f"{icu.onset[code]:.2f}" for code in icu.stay.codes)
            about = [icu.stay.drg_v36, " ".join(icu.stay.codes), onset, patient.sex, icu.stay.age]
            self.rows["truth"].append([icu.stay.hadm_id, *about])

    def _add_admission(self, ids: list[int], icu: IcuStay, demographics: list[str], writer: Writer, rng) -> str:
        """Add the row of an admission, and return its INSURANCE."""
        stay = icu.stay
        admission_type, location = _ADMISSIONS[stay.scenario.admission]
        times = [stay.admitted, stay.discharged, "" if stay.alive else stay.discharged]
        waited = timedelta(minutes=int(60 + 360 * rng.random()))
        emergency = [stay.admitted - waited, stay.admitted] if stay.scenario.admission == "E" else ["", ""]
        insurers = ["Private", "Private", "Medicaid", "Government", "Medicare"]
        insurance = "Medicare" if stay.age > 64 else pick(rng, insurers)
        discharged_to = _DISCHARGE_LOCATIONS.get(stay.disposition, stay.disposition)
        diagnosis = icu_notes.admitting_diagnosis(writer).upper()
        row = [*ids, *times, admission_type, location, discharged_to, insurance, *demographics, *emergency, diagnosis]
        self.rows["ADMISSIONS"].append([*row, int(not stay.alive), 1])
        return insurance

    def _add_icu_stays(self, ids: list[int], icu: IcuStay, icu_in: datetime, rng) -> None:
        """Add one ICU stay or two, with their wards and care units."""
        unit = _CARE_UNITS.get(icu.stay.scenario.service, "MICU")
        if any(OPEN_HEART.match(code) for code in icu.stay.procedures):
            unit = "CSRU"
        elif rng.random() < 0.12:  # no bed was free in the right unit
            unit = pick(rng, ["MICU", "SICU", "CCU"])
        ward = pick(rng, _WARD_IDS[unit])
        icu_out = icu_in + timedelta(minutes=round(60 * icu.hours))
        times, hours_left = [(icu_in, icu_out)], (icu.stay.discharged - icu_out) / timedelta(hours=1)
        last, last_ward = unit, ward
        if hours_left > 18 and rng.random() < TWO_STAYS / 0.55:  # about 55 % stay long enough to come back
            back = icu_out + timedelta(minutes=int(60 * (6 + (hours_left - 12) * rng.random() / 2)))
            end = min(icu.stay.discharged, back + timedelta(minutes=int(60 * rng.lognormal(np.log(40), 0.6))))
            times.append((back, end))
        elif rng.random() < MOVED:
            last = pick(rng, list(_WARD_IDS))
            last_ward = pick(rng, [number for number in _WARD_IDS[last] if number != ward])
        system = "metavision" if icu.metavision else "carevue"
        for number, (begin, end) in enumerate(times, 1):
            days = f"{(end - begin) / timedelta(days=1):.4f}"
            icu_id = ids[1] + 10_000_000 * number
            self.rows["ICUSTAYS"].append([*ids, icu_id, system, unit, last, ward, last_ward, begin, end, days])

    def _add_drgs(self, ids: list[int], stay: Stay, medicare: bool, rng) -> None:
        """Add an MS or HCFA row (Medicare's stays have MS more often) and surrogate APR rows, a few of them two."""
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

    def _add_notes(self, ids: list[int], icu: IcuStay, icu_in: datetime, writer: Writer, rng) -> None:
        """Add the notes of a stay, and a nearly empty discharge summary, which no study may read."""
        if rng.random() < NO_NOTE:
            return
        for hour, category, description, text in icu_notes.write_notes(writer, icu, self.note_words):
            charted = icu_in + timedelta(minutes=int(np.floor(60 * (hour or 0) + 1e-6)))
            typed = hour is not None and category != "Radiology"
            stored = charted + timedelta(minutes=int(60 * rng.random())) if typed else ""
            times = [charted.date(), "" if hour is None else charted, stored]
            caregiver = 14_000 + int(8000 * rng.random()) if typed else ""
            self.rows["NOTEEVENTS"].append([*ids, *times, category, description, caregiver, "", text])
        summary = f"Admission Date: [**{icu.stay.admitted:%Y-%m-%d}**]\n\nService: {icu.stay.scenario.service}\n"
        times = [icu.stay.discharged.date(), "", ""]
        self.rows["NOTEEVENTS"].append([*ids, *times, "Discharge summary", "Report", "", "", summary])

    def _add_events(self, source: str, ids: list[int], icu: IcuStay, icu_in: datetime, rows: list, rng) -> None:
        """Add what `physiology` measured to an event table, each value at the minute of its measurement."""
        hours, items, values, units = zip(*rows, strict=True)
        name, n, values = EVENT_TABLES[source], len(rows), np.array(values, dtype=np.float64)
        minutes = np.floor(60 * np.array(hours) + 1e-6).astype("timedelta64[m]")
        charted = (np.datetime64(icu_in, "m") + minutes).astype("datetime64[s]")
        first = self.first_row + self.n_events[name] + 1
        self.n_events[name] += n
        wrong = rng.random(n) < (WRONG if source == "chart" and icu.metavision else 0)
        values[wrong] = 100 * (values[wrong] + 100)
        columns = {
            "ROW_ID": np.arange(first, first + n),
            "SUBJECT_ID": pa.repeat(ids[0], n),
            "HADM_ID": pa.repeat(ids[1], n),
            "ICUSTAY_ID": pa.repeat(ids[1] + 10_000_000, n),
            "ITEMID": np.array(items),
            "CHARTTIME": charted,
            "STORETIME": charted + rng.integers(1, 60, n).astype("timedelta64[m]"),
            "CGID": 14_000 + (ids[1] + minutes.astype(int) // 720) * 7919 % 8000,  # another nurse each shift
            "VALUE": values,
            "VALUENUM": values,
            "VALUEUOM": list(units),
        }
        if source == "chart" and icu.metavision:
            columns |= {"WARNING": pa.repeat(0, n), "ERROR": wrong.astype(np.int8)}
        elif source == "chart":
            columns["STOPPED"] = pa.repeat("NotStopd", n)
        table = pa.table({column: columns.get(column, pa.nulls(n)) for column in COLUMNS[name]})
        plain = arrow_csv.WriteOptions(include_header=False, quoting_style="none")
        arrow_csv.write_csv(table, text := io.BytesIO(), plain)
        self.files[name].write(text.getvalue())


@cache
def _apr_groups() -> dict[str, int]:
    """The APR group that the surrogate gives each base DRG, by the lowest v36 code of the base DRG."""
    return pd.read_csv(FOLDER / "apr_groups.csv", dtype={"drg": str}).set_index("drg")["apr_group"].to_dict()


def _dictionaries() -> dict[str, list]:
    """The rows of D_ITEMS and D_LABITEMS for all items that may be measured."""
    tables: dict[str, list] = {"D_ITEMS": [], "D_LABITEMS": []}
    items = pd.read_csv(REFERENCE / "measurements.csv").drop_duplicates("itemid").sort_values("itemid")
    items = items[["itemid", "source", "system", "label"]].to_numpy()
    for item, source, system, label in [*items, *_URINE_ITEMS]:
        if source == "lab":
            tables["D_LABITEMS"].append([item, label, "", "", ""])
        else:
            tables["D_ITEMS"].append([item, label, "", system, EVENT_TABLES[source].lower(), "", "", "", ""])
    return tables
