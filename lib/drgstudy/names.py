"""What a run is called in print, as its record says: a run of one key has another base in another profile."""

from __future__ import annotations

from collections.abc import Mapping

from drgstudy.plots.style import style_of
from drgstudy.predictions import Predictions
from drgstudy.study import without_places

BASES = {"smollm2-135m-instruct": "SmolLM2-135M"}
"""The small LLaMAs that stand for the papers', by the base in a run's settings, and what they are called in print."""
_KIND = " (LLaMA architecture)"


def name_of(record: dict, run: str | None = None) -> str:
    """The name of a run; where a small LLaMA stands for DRG-LLaMA's, that model's.

    Parameters
    ----------
    record : dict
        The content of ``run.json``.
    run : str, optional
        Its key, as `plots.style_of` reads it, if not that of the record.
    """
    name = style_of(run or record["run"])[0]
    small = BASES.get(without_places(record.get("settings", {}).get("base", "")))
    if small is None:
        return name
    return f"{small}{_KIND}" if name == "DRG-LLaMA" else name.replace("DRG-LLaMA", small)


def names_of(made: Mapping[str, Predictions | list[Predictions]]) -> dict[str, str]:
    """The name of each run by its key; of the models of all folds, the first one's record is read."""
    return {run: name_of((said[0] if isinstance(said, list) else said).run, run) for run, said in made.items()}


def short(names: Mapping[str, str]) -> dict[str, str]:
    """The names without the kind of model that each is, for a figure."""
    return {run: name.removesuffix(_KIND) for run, name in names.items()}
