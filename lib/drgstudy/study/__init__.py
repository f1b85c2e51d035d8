"""A study's files: where they lie, how they are written and read, and how notebooks are run.

Nothing here knows any science. A profile is a folder of YAML files under ``notebooks/params``. Each of these files is
one run of a notebook: the file's name begins with the notebook's.
"""

from drgstudy.study import outlook
from drgstudy.study.datasets import OPENNESS, least_open, source_of
from drgstudy.study.files import atomic, fingerprint, locked, read_json, read_text, room_for, write_json
from drgstudy.study.notebook import results_only, run_notebook
from drgstudy.study.parameters import (
    base_of,
    notebook_of,
    notebook_parameters,
    over,
    own_params,
    plain_yaml,
    read_params,
    resolved,
)
from drgstudy.study.places import NOTEBOOKS, REFERENCE, ROOT, Paths, without_places
from drgstudy.study.problems import StudyError, one_line, quoted, run_and_exit, short_repr
from drgstudy.study.processes import first_process_first, peak_memory_gb, progress, rank
from drgstudy.study.registry import Study, studies, study_of, topic
from drgstudy.study.settings import about_setting, checked_settings, checked_value, setting

__all__ = [
    "NOTEBOOKS", "OPENNESS", "REFERENCE", "ROOT", "Paths", "Study", "StudyError", "about_setting", "atomic",
    "base_of", "checked_settings", "checked_value", "fingerprint", "first_process_first", "least_open", "locked",
    "notebook_of", "notebook_parameters", "one_line", "outlook", "over", "own_params", "peak_memory_gb", "plain_yaml", "progress",
    "quoted", "rank", "read_json", "read_params", "read_text", "resolved", "results_only", "room_for",
    "run_and_exit", "run_notebook", "setting", "short_repr", "source_of", "studies", "study_of", "topic",
    "without_places", "write_json",
]  # fmt: skip
