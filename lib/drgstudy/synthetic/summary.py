"""A whole discharge summary in MIMIC-IV-Note's layout, around a hospital course."""

from __future__ import annotations

import textwrap

from drgstudy.synthetic.course import Course, Writer, capital
from drgstudy.synthetic.patients import pick

_DISPOSITION = {"DIED": "Expired", "SKILLED NURSING FACILITY": "Extended Care", "HOME HEALTH CARE": "Home With Service"}


def _wrap(text: str) -> str:
    """Break lines where MIMIC's notes do."""
    return "\n".join(textwrap.fill(line, 78, break_long_words=False) for line in text.split("\n"))


def write_summary(writer: Writer, course: Course | None) -> str:
    """The text of one note; without a course it has no such section."""
    stay, rng, phrases = writer.stay, writer.rng, writer.hospital.phrases
    look = writer.hospital.condition
    main = look(stay.codes[0])
    procedures = [writer.one(names) for names in map(writer.hospital.procedures.get, stay.procedures) if names]
    past = [writer.name(look(code)) for code in stay.codes[1:] if look(code).kind in "ch"]
    diagnoses = [writer.name(look(code)) for code in stay.codes if code in stay.written and look(code).kind in "ac"]
    drugs = [f"{number}. {pick(rng, phrases['medications'])}" for number in range(1, 4 + int(rng.random() * 6))]
    condition = "Mental Status: Clear and coherent.\nActivity Status: Ambulatory - Independent."
    sections = {
        "Name:": "  ___                     Unit No:   ___",
        "Admission Date:": "  ___              Discharge Date:   ___",
        "Date of Birth:": f"  ___             Sex:   {writer.sex}",
        "Service:": f" {stay.scenario.service}",
        "Allergies:": f" \n{pick(rng, phrases['allergies'])}",
        "Attending:": " ___.",
        "Chief Complaint:": "\n" + capital(writer.one(main.presenting) if main.presenting else writer.name(main)),
        "Major Surgical or Invasive Procedure:": "\n" + ("\n".join(map(capital, procedures)) or "None"),
        "History of Present Illness:": "\n" + _wrap(writer.opening(main, writer.joined(past[:4]) if past else "")),
        "Past Medical History:": "\n" + ("\n".join(f"- {item}" for item in past) or "None"),
        "Social History:": "\n___",
        "Family History:": f"\n{pick(rng, phrases['family'])}",
        "Physical Exam:": f"\n{writer.say('exam')}",
        "Pertinent Results:": f"\n{writer.say('results')}",
        **({writer.author.heading: f"\n{_wrap(course.text)}"} if course else {}),
        "Medications on Admission:": "\n" + "\n".join(drugs[:-2]),
        "Discharge Medications:": "\n" + "\n".join(drugs),
        "Discharge Disposition:": f"\n{_DISPOSITION.get(stay.disposition, 'Home')}",
        **({"Facility:": "\n___"} if stay.disposition == "SKILLED NURSING FACILITY" else {}),
        "Discharge Diagnosis:": "\n" + "\n".join(map(capital, diagnoses[:5])),
        "Discharge Condition:": "\n" + (condition if stay.alive else "Expired"),
        "Discharge Instructions:": "\n" + _wrap(f"Dear ___,\n{writer.say('instructions')}"),
        "Followup Instructions:": "\n___",
    }
    if not stay.alive:
        sections["Discharge Instructions:"] = "\nN/A"
    return " \n" + "\n \n".join(map("".join, sections.items())) + "\n"
