"""Finding the hospital course in a discharge summary.

A heading stands at the start of a line, begins with a capital (or the ``___`` of de-identification) and ends with a
colon or its line; so "his hospital course was complicated by" is none. Transcriptions whose line breaks became commas
are read too: a heading may follow a comma directly. Every repetition in the patterns is bounded or possessive, and a
match starts with a line break or a comma, so the time is linear in the text.
"""

from __future__ import annotations

import re
import string


def _pattern(source: str) -> re.Pattern:
    """Compile a verbose pattern in which ``_`` stands for blanks and ``DEID`` for a de-identified word."""
    return re.compile(source.replace("_", r"[ \t]++").replace("DEID", "_{2,9}+"), re.VERBOSE)


BEGIN = r"(?: \n[ \t]*+ | , )"
CLOSE = r"[ \t]*+ (?: : | (?= \r?\n | \r?\Z | ,[^\s\d] ) )"

OPENING = _pattern(
    BEGIN
    + r"""(?: [#*=]{1,20}+[ \t]*+ )?+ (?= [A-Z] | DEID | b?r?ief )
    (?i:
        (?: (?: b?r?ief | short | concise | summary | of | and | & | h&p | hpi | history | inpatient | DEID )_ ){0,4}+
        (?: hosp(?:ital)?+ | hopsital | hospitla )_course
            (?: [ \t]*+ (?: \b(?:summary|by|per|and)\b | [&/(-] | ,_by\b ) [^:,\n]{0,50}+ )?
      | b?r?ief_ (?: hospital_DEID | DEID_course | hospital_c[a-z]{0,5}+ | course )
    ) (?: [ \t]*+ [*=]{1,20}+ )?+"""
    + CLOSE
    + r"(?: \*{1,3}+ )?+ (?: [ \t\r]*+ \n [ \t]*+ [=-]{3,}+ [ \t\r]*+ (?=\n) )?"  # the line that underlines the heading
)

# The section that may follow. "Assessment", "Plan", "Studies" and names of organ systems are not among them: in MIMIC
# they are parts of the course. (In transcriptions the first three stand for sections of their own.)
NEXT = r"""(?i:
    (?: (?: discharge | admission | admitting | home | preadmission | outpatient | current | DEID )_ )?+
        (?: medications? | meds ) (?: _(?: on | at | upon | prior_to | for )_\w{2,20}+ )?+
  | (?: preadmission | active )_medications?_list (?: _as_of_\S{1,20}+ )?+ | transfer_medications | medication_changes
  | DEID_ (?: on | at )_ (?: admission | discharge )
  | (?: (?: discharge | admission | admitting | primary | secondary | principal | final | differential | DEID )_ ){0,2}+
        diagnos[ei]s
  | (?: discharge_ | DEID_ )?+ (?: disposition | condition | instructions? )
        (?: _(?: on | at | upon | for )_\w{2,20}+ ){0,2}+
  | status_at_discharge | addendum
  | discharge_ (?: DEID | dx | status | facility | activit(?:y|ies) | diet | plan | weight | labs | vitals
      | (?: physical_ )?+ exam(?:ination)? )
  | follow[- ]?up (?: _(?: instructions? | appointments? | plans? | DEID ) )?+
  | facility
  | (?: pertinent_results | physical_exam(?:ination)? | laboratory_(?: data | findings | at_discharge) )
  | (?: past_medical | past_surgical | social | family )_history
  | (?: operations_and_ )?+ procedures (?: _during_\w{3,5}+_\w{5,20}+ )?+
  )
  (?i: [ \t]*+ (?: / | & | and\b ) [ \t]*+ \w{3,20}+ )?+"""
TRANSCRIBED = r", (?: ASSESSMENT | PLAN | STUDIES ) [A-Z/()\ ]{0,20}+ :[ \t]*+,"
TRANSITIONAL = r"""(?i: (?: transitional | transitions?_of_care | DEID )_ (?: care_ )?+ (?: issues? | items? )
    (?: _for_ [^:\n]{2,40}+ )?+ | transitional | transitions_of_care | (?: outpatient_ )? issues_for_follow[- ]?up )"""

ENDING = _pattern(
    rf"""{BEGIN} (?= [A-Z] | DEID ) {NEXT} {CLOSE}
  | \n [ \t]*+ {NEXT} [ \t]*+ : (?= [ \t\r]*+ (?: \n | \Z ) )
  | {TRANSCRIBED}
  | \n [ \t\#*=>-]*+ {TRANSITIONAL} [ \t*=]*+ (?: : | (?= \r?\n | \r?\Z ) )"""
)


def hospital_course(text: str) -> str | None:
    """The text of the first hospital course that is not empty, or None.

    Parameters
    ----------
    text : str
        A whole discharge summary.

    Returns
    -------
    str or None
        What stands between the heading and the next section's heading or the end of the note; inner line breaks and
        de-identification marks are kept, blanks and commas around it are not.

    Notes
    -----
    Source: DRG-LLaMA, Methods, "Dataset and Preprocessing" (the paper names the section; the rules are ours).
    """
    text = "\n" + text
    opening = OPENING.search(text)
    while opening:
        ending = ENDING.search(text, opening.end())
        course = text[opening.end() : ending.start() if ending else None].strip(string.whitespace + ",")
        if course or not ending:
            return course or None
        opening = OPENING.search(text, ending.start())
    return None


def n_words(text: str) -> int:
    """Number of words: runs of characters between white space."""
    return len(text.split())
