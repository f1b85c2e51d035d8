"""Finding the hospital course in a discharge summary.

A heading stands at the start of a line, begins with a capital (or the ``___`` of de-identification) and ends with a
colon or with its line; so "his hospital course was complicated by" is none. Transcriptions whose line breaks became
commas are read too: there a heading may follow a comma directly. Every repetition in the patterns is bounded or
possessive, and a match starts with a line break or a comma, so the time is linear in the length of the text.
"""

from __future__ import annotations

import re
import string


def _pattern(source: str) -> re.Pattern:
    """Compile a verbose pattern in which ``_`` means blanks or tabs and ``DEID`` a de-identified word (``___``)."""
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

# The headings of sections that may follow. "Assessment", "Plan", "Studies" and names of organ systems are not among
# them, for in MIMIC they are parts of the course. (In transcriptions, the first three are sections of their own.)
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


# Where a heading may begin: every match of OPENING has one of these words on its line, and every match of ENDING starts
# with one of these beginnings. They are sought first, in small letters and with commas as line breaks.
WORDS = (b"course", b"ief")
LINE = re.compile(
    rb"\n[ \t#*=>-]*+(?:__|acti|add|adm|ass|con|curr|dia|dif|dis|fac|fam|fin|fol|hom|ins|iss|lab|med|ope|out|pas|per"
    rb"|phy|pla|pre|pri|pro|sec|soc|sta|stu|tran)"
)
FOLDED = bytes.maketrans(b",ABCDEFGHIJKLMNOPQRSTUVWXYZ", b"\nabcdefghijklmnopqrstuvwxyz")


def _folded(text: str) -> bytes:
    """The text in small letters, with one byte for each character and line breaks for commas."""
    for letter, plain in ("ſs", "ıi", "İi"):  # re takes these for the same letters if case is ignored
        text = text.replace(letter, plain)
    return text.encode("ascii", "replace").translate(FOLDED)


def _opening(text: str, folded: bytes, start: int) -> re.Match | None:
    """What `OPENING.search(text, start)` finds; each line is searched for a word only once, so the time is linear."""
    found = []
    for word in WORDS:
        end = start
        while (place := folded.find(word, end)) >= 0:
            begin = folded.rfind(b"\n", end, place)
            if begin >= 0 and (match := OPENING.match(text, begin)):
                found.append(match)
                break
            if (end := folded.find(b"\n", place)) < 0:
                break
    return min(found, key=re.Match.start, default=None)


def _ending(text: str, folded: bytes, start: int) -> re.Match | None:
    """What `ENDING.search(text, start)` finds."""
    lines = LINE.finditer(folded, start)
    return next(filter(None, (ENDING.match(text, line.start()) for line in lines)), None)


def hospital_course(text: str) -> str | None:
    """The text of the first hospital course that is not empty; None if there is none.

    Parameters
    ----------
    text : str
        A whole discharge summary.

    Returns
    -------
    str or None
        What stands between the heading and the next section's heading, or the end of the note. Line breaks and
        de-identification marks within it are kept; white space and commas around it are not.

    Notes
    -----
    Source: DRG-LLaMA, Methods, "Dataset and Preprocessing" (the paper names the section; the rules are ours).
    """
    text = "\n" + text
    folded = _folded(text)
    opening = _opening(text, folded, 0)
    while opening:
        ending = _ending(text, folded, opening.end())
        course = text[opening.end() : ending.start() if ending else None].strip(string.whitespace + ",")
        if course or not ending:
            return course or None
        opening = _opening(text, folded, ending.start())
    return None


def n_words(text: str) -> int:
    """Number of words: runs of characters between white space."""
    return len(text.split())
