"""The models, one file each, behind one small interface.

The module of a model holds a docstring that explains the model to a student, a frozen dataclass `Settings` whose
fields say what each setting is and what values it takes (`study.setting`), and a class `Model` with

- ``Model(settings, labels, folder, seed)``: load pretrained weights, if there are any; `folder` is the run's own;
- ``fit(texts, y, validation=None) -> dict``: train on texts (list of str; for `lstm`, an array of measurements) and
  label indices (int array, shape (texts,)); returns what the training cost. By `validation`, a pair (texts, y), a
  model chooses its epoch; one that has none to choose ignores it;
- ``predict(texts) -> float32 array, shape (texts, labels)``: logits, columns in the order of `labels`;
- ``restore()``: load what `fit` saved in `folder`, instead of training.

Where settings name files or a pretrained model, the module also has a function ``check(settings)``. It raises StudyError if
no training could begin with them, and make asks it of all runs before the first training.

Attributes of the class say what else a model can do:

- ``two_labels = True``: it learns two label indices for each stay, of its base DRG and of its CC/MCC label (int array,
  shape (texts, 2));
- ``numbers = True``: built with one label, it learns one number for each stay (float array, shape (texts,));
- ``attributions(text, label)`` and ``attribution``, the name of its scores: it can say exactly which places of the text
  made a logit. For a language model, which has a ``tokenizer`` instead, `attribution.py` finds out by experiment.

A new model takes one such module and one YAML file for each run. Modules without a `Model` hold what models share.
"""

from __future__ import annotations

import importlib.util
import logging
import pkgutil
from pathlib import Path
from types import ModuleType

import pandas as pd

from drgstudy.drgs import CC_LABELS
from drgstudy.predictions import Predictions, check_model, read_predictions
from drgstudy.study import StudyError, about_setting, checked_settings, one_line, without_places

logging.getLogger("bitsandbytes").setLevel("ERROR")  # it warns of what no user can mend


def module(name: str) -> ModuleType:
    """The module of the model called `name`; raises StudyError, which lists the models, if there is none."""
    names = [found.name for found in pkgutil.iter_modules(__path__)]
    chosen = importlib.import_module(f"{__name__}.{name}") if name in names else None
    if not hasattr(chosen, "Model"):
        there = [each for each in names if hasattr(importlib.import_module(f"{__name__}.{each}"), "Model")]
        raise StudyError(f"parameter model: {name!r} is not a model of this study; choose one of {', '.join(there)}")
    return chosen


def described(name: str, settings: dict) -> pd.DataFrame:
    """The settings of the model called `name`: one row for each, with its value and what it is."""
    kind = module(name).Settings
    values = vars(checked_settings(kind, settings))
    rows = [
        (key, str(without_places(value)), about_setting(kind, key).get("help", "")) for key, value in values.items()
    ]
    table = pd.DataFrame(rows, columns=["setting", "value", "what it is"]).set_index("setting")
    return table.rename_axis(index=None, columns="setting")


def check(name: str, settings: dict, two_labels: bool = False) -> None:
    """Raise StudyError if no training of the model called `name` could begin with these settings, whatever the data."""
    chosen, settings = _chosen(name, settings, two_labels)
    if hasattr(chosen, "check"):
        chosen.check(settings)


def _chosen(name: str, settings: dict, two_labels: bool) -> tuple:
    chosen = module(name)
    settings = checked_settings(chosen.Settings, settings)
    if two_labels and not getattr(chosen.Model, "two_labels", False):
        raise StudyError(f"parameter labels: model {name!r} gives one label a stay, not two")
    if getattr(settings, "bits", 16) < 16 and not importlib.util.find_spec("bitsandbytes"):
        raise StudyError(f"setting bits: {settings.bits} needs bitsandbytes; `make env EXTRAS=bits` installs it")
    return chosen, settings


def build(name: str, settings: dict, labels: list[str], folder: Path, seed: int):
    """The model called `name`, ready to be fitted; raises StudyError if it does not take these settings or labels."""
    chosen, settings = _chosen(name, settings, labels[-1] in CC_LABELS)
    return chosen.Model(settings, labels, Path(folder), seed)


def refuse_numbers(y) -> None:
    """Raise StudyError if `y` holds numbers to be learned, not label indices; for models that only classify."""
    if y.dtype.kind == "f":
        raise StudyError(
            f"y: expected label indices, got {y.dtype}; only a model whose `numbers` is true learns a number"
        )


def load(folder: Path, done: Predictions | None = None) -> tuple:
    """Load the trained model of a finished run.

    Parameters
    ----------
    folder : Path
        Where the model lies.
    done : Predictions, optional
        What it predicted, if that lies elsewhere.

    Returns
    -------
    model : Model
    labels : numpy.ndarray of str, shape (labels,)
        In the order of the logits.

    Raises
    ------
    StudyError
        If the run is unfinished or gives two labels for each stay, or if its weights are missing or were changed.
    """
    folder = Path(folder)
    done = done or read_predictions(folder)
    check_model(folder, done.run)
    if done.run.get("labels", "one") == "two":
        raise StudyError(f"run {folder.name} gives two labels a stay; choose a run that names the DRG in one step")
    model = build(done.run["model"], done.run["settings"], done.labels.tolist(), folder, done.run["seed"])
    try:
        model.restore()
    except Exception as error:  # each library that reads weights raises its own kind
        raise StudyError(
            f"run {folder.name} has left no weights that can be read ({one_line(error)}); train it again"
        ) from error
    return model, done.labels
