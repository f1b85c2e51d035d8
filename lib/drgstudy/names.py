"""What a run is called in print, as its record says: a run of one key has another base in another profile."""

from __future__ import annotations

from collections.abc import Mapping

from drgstudy.plots.style import style_of
from drgstudy.predictions import Predictions
from drgstudy.study import without_places

BASES = {"smollm2-135m-instruct": "SmolLM2-135M", "minilm-l6": "MiniLM-L6"}
"""The small models that stand for the papers', by the base in a run's settings, and what they are called in print."""


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
    return name.replace("DRG-LLaMA", BASES.get(without_places(record.get("settings", {}).get("base", "")), "DRG-LLaMA"))


def names_of(made: Mapping[str, Predictions | list[Predictions]]) -> dict[str, str]:
    """The name of each run by its key; of the models of all folds, the first one's record is read."""
    return {run: name_of((said[0] if isinstance(said, list) else said).run, run) for run, said in made.items()}


def in_full(name: str) -> str:
    """The name with the kind of model, for tables and where a text names the model first."""
    return f"{name} (LLaMA architecture)" if name == BASES["smollm2-135m-instruct"] else name
