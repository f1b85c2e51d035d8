"""The models, one file each, behind one small interface.

A model's module holds a docstring that tells a student what the model is, a frozen dataclass `Settings`, and a class
`Model` with

- ``Model(settings, labels, folder, seed)``: nothing is read or trained yet; `folder` is the run's own;
- ``fit(texts, y, validation=None) -> dict``: train on texts (list of str; for `lstm`, measurements) and label indices (int
  array); returns the cost. `validation`, a pair (texts, y), takes the place of the share that ``settings.validation`` keeps
  back; models that choose no epoch don't look at it. `caml`, built with one label, learns a number a stay (float array);
- ``predict(texts) -> float32 array (texts, labels)``: logits, columns in the order of `labels`;
- ``restore()``: load what `fit` saved in `folder`, instead of training;
- ``attributions(text, label)`` and ``attribution``, the scores' name, where the model can say exactly which places of the
  text made a logit; a language model, which has a ``tokenizer``, is asked by `attribution.py`.

Adding a model is one such module and one YAML file a run.
"""

from __future__ import annotations

import importlib
import logging
import pkgutil
from pathlib import Path
from types import ModuleType

from drgstudy.drgs import CC_LABELS
from drgstudy.predictions import Predictions, check_model, read_predictions
from drgstudy.study import StudyError, cause, checked_settings

HELPERS = {"fast_lora", "weights"}
SHARES = {"validation", "warmup", "dropout", "lora_dropout"}
MAY_BE_ZERO = SHARES | {"epochs", "weight_decay", "patience", "layers", "severity_weight"}
"""Settings that are at least 0 and less than 1, and those that may be 0; every other number is more than 0."""
logging.getLogger("bitsandbytes").setLevel("ERROR")  # which says on import, and at each layer, what nobody can mend


def module(name: str) -> ModuleType:
    """The module of the model called `name`; raises StudyError, with the names there are, if there is none."""
    names = sorted({m.name for m in pkgutil.iter_modules(__path__)} - HELPERS)
    if name not in names:
        raise StudyError(f"parameter model: {name!r} is not a model of this study; choose one of {', '.join(names)}")
    return importlib.import_module(f"{__name__}.{name}")


def build(name: str, settings: dict, labels: list[str], folder: Path, seed: int):
    """The model called `name`, its settings checked, ready to be fitted."""
    chosen = module(name)
    settings = checked_settings(chosen.Settings, settings)
    for key, value in vars(settings).items():
        if type(value) in (int, float) and not (value > 0 or (value == 0 and key in MAY_BE_ZERO)):
            raise StudyError(
                f"setting {key}: expected {'0 or more' if key in MAY_BE_ZERO else 'more than 0'}, got {value}"
            )
        if key in SHARES and value >= 1:
            raise StudyError(f"setting {key}: expected a share, less than 1, got {value}")
    if labels[-1] in CC_LABELS and name != "llama":
        raise StudyError(f"parameter labels: model {name!r} gives one label a stay; two are only for llama")
    return chosen.Model(settings, labels, Path(folder), seed)


def refuse_numbers(y) -> None:
    """Raise StudyError if `y` holds numbers to be learned instead of label indices; for the models that only classify."""
    if y.dtype.kind == "f":
        raise StudyError(f"y: expected label indices, got {y.dtype}; only model caml learns a number a stay")


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
            f"run {folder.name} has left no weights that can be read ({cause(error)}); train it again"
        ) from error
    return model, done.labels
