"""The models, one file each, behind one small interface.

A model's module holds a docstring that tells a student what the model is, a frozen dataclass `Settings`, whose fields say
what each setting is and what values it takes (`study.setting`), and a class `Model` with

- ``Model(settings, labels, folder, seed)``: nothing is read or trained yet; `folder` is the run's own;
- ``fit(texts, y, validation=None) -> dict``: train on texts (list of str; for `lstm`, measurements) and label indices (int
  array); returns the cost. `validation`, a pair (texts, y), takes the place of the share that ``settings.validation`` keeps
  back; models that choose no epoch don't look at it;
- ``predict(texts) -> float32 array (texts, labels)``: logits, columns in the order of `labels`;
- ``restore()``: load what `fit` saved in `folder`, instead of training.

What else a model can do stands on its class:

- ``two_labels = True``: it learns two label indices a stay, its base DRG and its CC/MCC label (int array, (texts, 2));
- ``numbers = True``: built with one label, it learns a number a stay (float array);
- ``attributions(text, label)`` and ``attribution``, the scores' name: it can say exactly which places of the text made a
  logit. A language model, which has a ``tokenizer``, is asked by `attribution.py`.

Adding a model is one such module and one YAML file a run. Modules without a `Model` are what several models share.
"""

from __future__ import annotations

import importlib
import logging
import pkgutil
from pathlib import Path
from types import ModuleType

import pandas as pd

from drgstudy.drgs import CC_LABELS
from drgstudy.predictions import Predictions, check_model, read_predictions
from drgstudy.study import StudyError, about_setting, checked_settings, one_line

logging.getLogger("bitsandbytes").setLevel("ERROR")  # which says on import, and at each layer, what nobody can mend


def module(name: str) -> ModuleType:
    """The module of the model called `name`; raises StudyError, with the names there are, if there is none."""
    names = [found.name for found in pkgutil.iter_modules(__path__)]
    chosen = importlib.import_module(f"{__name__}.{name}") if name in names else None
    if not hasattr(chosen, "Model"):
        there = [each for each in names if hasattr(importlib.import_module(f"{__name__}.{each}"), "Model")]
        raise StudyError(f"parameter model: {name!r} is not a model of this study; choose one of {', '.join(there)}")
    return chosen


def described(name: str, settings: dict) -> pd.DataFrame:
    """The settings of the model called `name`, a row each: its value, and what it is."""
    kind = module(name).Settings
    values = vars(checked_settings(kind, settings))
    rows = [(key, str(value), about_setting(kind, key).get("help", "")) for key, value in values.items()]
    table = pd.DataFrame(rows, columns=["setting", "value", "what it is"]).set_index("setting")
    return table.rename_axis(index=None, columns="setting")


def build(name: str, settings: dict, labels: list[str], folder: Path, seed: int):
    """The model called `name`, its settings checked, ready to be fitted."""
    chosen = module(name)
    settings = checked_settings(chosen.Settings, settings)
    if labels[-1] in CC_LABELS and not getattr(chosen.Model, "two_labels", False):
        raise StudyError(f"parameter labels: model {name!r} gives one label a stay, not two")
    return chosen.Model(settings, labels, Path(folder), seed)


def refuse_numbers(y) -> None:
    """Raise StudyError if `y` holds numbers to be learned instead of label indices; for the models that only classify."""
    if y.dtype.kind == "f":
        raise StudyError(
            f"y: expected label indices, got {y.dtype}; only a model whose `numbers` is true learns a number"
        )


def load(folder: Path, done: Predictions | None = None) -> tuple:
    """The trained model of a finished run, and its labels (numpy array of str, in the logits' order).

    Parameters
    ----------
    folder : Path
        Where the model lies.
    done : Predictions, optional
        What it predicted, if that lies elsewhere.

    Raises
    ------
    StudyError
        If the run was not finished, has two labels a stay, or has left no weights, or others lie there now.
    """
    folder = Path(folder)
    done = done or read_predictions(folder)
    check_model(folder, done.run)
    if done.run.get("labels", "one") == "two":
        raise StudyError(f"run {folder.name} gives two labels a stay; choose a run that names the DRG in one step")
    model = build(done.run["model"], done.run["settings"], done.labels.tolist(), folder, done.run["seed"])
    try:
        model.restore()
    except Exception as error:  # of the library that reads them, each of its own kind
        raise StudyError(
            f"run {folder.name} has left no weights that can be read ({one_line(error)}); train it again"
        ) from error
    return model, done.labels
