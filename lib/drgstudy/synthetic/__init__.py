"""A synthetic hospital in the files of MIMIC-IV and MIMIC-III: codes are drawn, and a real grouper assigns the DRG.

`make_hospital` writes the hospital in MIMIC-IV's files, and `icu.make_icu_hospital` its intensive care in MIMIC-III's.
The latter is imported from `icu`, so that a step that needs the hospital alone does not depend on the code of the ICU.
No result obtained on synthetic data ever stands for one on MIMIC.

`tables` holds what is known, `patients` draws codes and dates, `course` and `summary` write the discharge summaries,
`icu_stays`, `physiology` and `icu_notes` make up the ICU stays, and `hardness` measures how hard the notes are to code.
"""

from drgstudy.synthetic.discharge import make_hospital

__all__ = ["make_hospital"]
