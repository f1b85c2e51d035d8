"""The models, one file each, behind one small interface.

A model's module holds a docstring that tells a student what the model is, a frozen dataclass `Settings`, and a class
`Model` with

- ``Model(settings, labels, folder, seed)``: nothing is read or trained yet; `folder` is the run's own;
- ``fit(texts, y) -> dict``: train on texts (list of str) and label indices (int array); returns the cost;
- ``predict(texts) -> float32 array (texts, labels)``: logits, columns in the order of `labels`.

Adding a model is one such module and one YAML file a run.
"""

from __future__ import annotations

import importlib
import pkgutil
from pathlib import Path
from types import ModuleType

from drgstudy.study import StudyError, checked_settings

HELPERS = {"fast_lora", "weights"}


def module(name: str) -> ModuleType:
    """The module of the model called `name`; raises StudyError, with the names there are, if there is none."""
    names = sorted({m.name for m in pkgutil.iter_modules(__path__)} - HELPERS)
    if name not in names:
        raise StudyError(f"parameter model: {name!r} is not a model of this study; choose one of {', '.join(names)}")
    return importlib.import_module(f"{__name__}.{name}")


def build(name: str, settings: dict, labels: list[str], folder: Path, seed: int):
    """The model called `name`, its settings checked, ready to be fitted."""
    chosen = module(name)
    return chosen.Model(checked_settings(chosen.Settings, settings), labels, Path(folder), seed)
