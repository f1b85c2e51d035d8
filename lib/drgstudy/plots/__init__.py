"""The figures. They are given counts, tables and fitted curves, and compute nothing but the layout.

Names, colours, markers and their order are the same in every figure. Each figure of data names its dataset.
"""

from drgstudy.plots.canvas import save
from drgstudy.plots.case_mix import case_mix, cmi_by_hour, cmi_by_size, cmi_payments, weight_scatter
from drgstudy.plots.coder import coding_costs, sets_by_size
from drgstudy.plots.cohorts import (
    bars,
    course,
    dials,
    drg_frequencies,
    hardness,
    measured_by_hour,
    note_hours,
    strata,
    threshold_curve,
    word_counts,
    words_known,
)  # fmt: skip
from drgstudy.plots.diagrams import approaches, flow_diagram, study_map
from drgstudy.plots.errors import error_categories, error_classes, mdc_confusion
from drgstudy.plots.groups import drift, served
from drgstudy.plots.results import (
    accuracy_by_rank,
    beside_published,
    by_share,
    case_density,
    cases_by_accuracy,
    claims,
    differences,
    forest,
    learning_curve,
    severity_confusion,
    split_effect,
    sweep,
)  # fmt: skip
from drgstudy.plots.style import ACCURACY_RANGES, MODELS, PUBLISHED, in_order, style_of
from drgstudy.plots.text import strongest_words
from drgstudy.plots.trust import coverage, reliability

__all__ = [
    "ACCURACY_RANGES", "MODELS", "PUBLISHED", "accuracy_by_rank", "approaches", "bars", "beside_published", "by_share",
    "case_density", "case_mix", "cases_by_accuracy", "claims", "cmi_by_hour", "cmi_by_size", "cmi_payments",
    "coding_costs", "course", "coverage", "dials", "differences", "drg_frequencies", "drift", "error_categories",
    "error_classes", "flow_diagram", "forest",
    "hardness", "in_order", "learning_curve", "mdc_confusion", "measured_by_hour",
    "note_hours", "reliability", "save", "served", "sets_by_size", "severity_confusion", "split_effect", "strata",
    "strongest_words", "study_map", "style_of", "sweep", "threshold_curve", "weight_scatter", "word_counts",
    "words_known",
]  # fmt: skip
