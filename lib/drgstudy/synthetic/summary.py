"""A whole discharge summary in MIMIC-IV-Note's layout, around a hospital course."""

from __future__ import annotations

import textwrap

from drgstudy.synthetic.course import Author, Course, Writer, capital, fill
from drgstudy.synthetic.patients import pick

_DISPOSITIONS = {"DIED": "Expired", "SKILLED NURSING FACILITY": "Extended Care", "HOME": "Home",
                 "HOME HEALTH CARE": "Home With Service", "AGAINST ADVICE": "Home"}  # fmt: skip


def _wrap(text: str) -> str:
    """Break lines where MIMIC's older notes do."""
    return "\n".join(textwrap.fill(line, 78, break_long_words=False) if len(line) > 78 else line for line in text.split("\n"))


def write_summary(writer: Writer, author: Author, course: Course | None) -> str:
    """The text of one note; `course` None leaves the section out.

    Parameters
    ----------
    writer : Writer
        Knows the stay and the hospital's phrases.
    author : Author
    course : Course or None
    """
    rng, stay, phrases = writer.rng, writer.stay, writer.hospital.phrases
    look = writer.hospital.condition
    main = look(stay.codes[0])
    procedures = [
        fill(pick(rng, names), rng, writer.slots)
        for names in (writer.hospital.procedures.get(code) for code in stay.procedures)
        if names
    ]
    complaint = writer.one(main.presenting) if main.presenting else writer.name(main)
    past = [writer.name(look(code)) for code in stay.codes[1:] if look(code).kind in "ch"]
    diagnoses = [writer.name(main), *(writer.name(look(code)) for code in stay.codes[1:] if code in stay.written)][:5]
    drugs = [f"{i}. {pick(rng, phrases['medications'])}" for i in range(1, 4 + int(rng.random() * 6))]
    results = writer.say("results")
    sections = [
        "Name:  ___                     Unit No:   ___",
        "Admission Date:  ___              Discharge Date:   ___",
        f"Date of Birth:  ___             Sex:   {writer.sex}",
        f"Service: {stay.scenario.service}",
        f"Allergies: \n{pick(rng, phrases['allergies'])}",
        "Attending: ___.",
        f"Chief Complaint:\n{capital(complaint)}",
        "Major Surgical or Invasive Procedure:\n" + ("\n".join(map(capital, procedures)) or "None"),
        "History of Present Illness:\n" + _wrap(writer._opening(main, writer.joined(past[:4]) if past else "")),
        "Past Medical History:\n" + ("\n".join(f"- {item}" for item in past) or "None"),
        "Social History:\n___",
        f"Family History:\n{pick(rng, phrases['family'])}",
        "Physical Exam:\n" + writer.say("exam"),
        f"Pertinent Results:\n{results}",
        f"{author.heading}\n{_wrap(course.text)}" if course else "",
        "Medications on Admission:\n" + "\n".join(drugs[:-2]),
        "Discharge Medications:\n" + "\n".join(drugs),
        f"Discharge Disposition:\n{_DISPOSITIONS[writer.disposition]}",
        "Facility:\n___" if writer.disposition == "SKILLED NURSING FACILITY" else "",
        "Discharge Diagnosis:\n" + "\n".join(map(capital, diagnoses)),
        "Discharge Condition:\n"
        + ("Expired" if not stay.alive else "Mental Status: Clear and coherent.\nActivity Status: Ambulatory - Independent."),
        "Discharge Instructions:\n"
        + (_wrap(f"Dear {writer.slots['Pt']},\n" + pick(rng, phrases["instructions"])) if stay.alive else "N/A"),
        "Followup Instructions:\n___",
    ]
    return " \n" + "\n \n".join(section for section in sections if section) + "\n"

