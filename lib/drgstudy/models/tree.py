"""**DRG-LLaMA that knows the system**: the same language model and LoRA, with what every coder knows of the DRGs put in.

DRGs have titles. Each row of the head starts from what the frozen model itself makes of its DRG's v34 title, read like a
note. A DRG that no training stay has is then a row like any other, and can be named. What titles and notes are like in
general says nothing of a DRG, so both are standardised, each by its own kind: the titles' states by their mean and standard
deviation over the titles, the notes' by theirs over the training stays. A head has no intercept. So what would score the
mean note is taken out of each row. The rows are then scaled until the logits of the training stays have a standard
deviation of 1, about that of a fresh head. From there ``probe_strength`` lets them follow a regression on the frozen
states; 0 leaves the titles alone.

DRGs are a tree: a major diagnostic category (MDC) has base DRGs, a base DRG has one to three DRGs by severity. The loss is
the cross-entropy of the DRG plus ``base_weight`` times that of its base DRG and ``mdc_weight`` times that of its MDC, where
a branch is as likely as its leaves together. Taking a sibling for the true DRG then costs less than leaving the chapter.

The outputs are the cohort's DRGs, as for `llama` with one label. Those without a training stay are among them; those that
the cohort does not have are not.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd
import torch

from drgstudy import drgs
from drgstudy.models import llama
from drgstudy.study import StudyError, setting
from drgstudy.training import device


@dataclass(frozen=True)
class Settings(llama.Settings):
    """Those of `llama`; the weights of the levels are ours, half each as the paper weighs its second label."""

    head: str = setting("probe", "the head starts from the DRGs' titles, whatever else it learns", choices=("probe",))
    probe_strength: float = setting(
        0.0, "before training, how far a regression may take the head from the titles; 0: not at all", zero=True
    )
    base_weight: float = setting(0.5, "of the base DRG's part of the loss", zero=True)
    mdc_weight: float = setting(0.5, "of the MDC's part of the loss", zero=True)


def check(settings: Settings) -> None:
    """Raise StudyError if no training could begin with these settings."""
    llama.check(settings)


def level_loss(logits: torch.Tensor, labels: torch.Tensor, levels: list[tuple[float, torch.Tensor]]) -> torch.Tensor:
    """Mean cross-entropy, summed over the levels of a tree, where a branch has the probability of all its leaves.

    Parameters
    ----------
    logits : torch.Tensor of float, shape (batch, leaves)
    labels : torch.Tensor of int64, shape (batch,)
        Each row's true leaf.
    levels : list of (float, torch.Tensor of int64, shape (leaves,))
        For each level its weight, and the number of the branch that each leaf belongs to.
    """
    likely = logits.log_softmax(1)  # (batch, leaves)
    parts = []
    for weight, branch in levels:
        other = branch != branch[labels][:, None]  # (batch, leaves)
        parts.append(-weight * likely.masked_fill(other, -math.inf).logsumexp(1).mean())
    return torch.stack(parts).sum()


def title_rows(titles: torch.Tensor, notes: torch.Tensor) -> torch.Tensor:
    """Rows of a head that score a note by how like each title it is, beside the mean title and the mean note.

    Parameters
    ----------
    titles : torch.Tensor of float, shape (outputs, hidden)
        What the model makes of each DRG's title.
    notes : torch.Tensor of float, shape (stays, hidden)
        What it makes of the training stays, scaled to a standard deviation of 1 in each place.

    Returns
    -------
    torch.Tensor, shape (outputs, hidden)
        For notes that are scaled in the same way. Over the training stays, each output's logits have a mean of 0, and all
        logits a standard deviation of 1.
    """
    rows = (titles - titles.mean(0)) / (titles.std(0) + 1e-6)
    mean = notes.mean(0)  # (hidden,)
    rows = rows - torch.outer(rows @ mean, mean) / (mean @ mean)
    return rows / (notes @ rows.T).std()


def near(
    rows: torch.Tensor, notes: torch.Tensor, labels: torch.Tensor, levels: list[tuple[float, torch.Tensor]], strength: float
) -> torch.Tensor:  # fmt: skip
    """The rows that minimise `strength` times the stays' summed loss plus half the squared distance from `rows`.

    With rows of zero and the DRG's level alone it is scikit-learn's logistic regression with ``C=strength``. The shapes are
    those of `title_rows` and `level_loss`.
    """
    moved = torch.zeros_like(rows, requires_grad=True)
    search = torch.optim.LBFGS([moved], max_iter=300, line_search_fn="strong_wolfe")

    def closure() -> torch.Tensor:
        search.zero_grad()
        total = moved.square().sum() / 2
        total.backward()
        for some, true in zip(notes.split(4096), labels.split(4096), strict=True):  # all at once may not fit a GPU
            loss = strength * len(true) * level_loss(some @ (rows + moved).T, true, levels)
            loss.backward()
            total = total + loss.detach()
        return total

    search.step(closure)
    return rows + moved.detach()


class Model(llama.Model):
    """DRG-LLaMA with a head that starts from the titles, and a loss over the tree."""

    two_labels = False

    def __init__(self, settings: Settings, labels: list[str], folder: Path, seed: int):
        if unknown := sorted(set(labels) - set(drgs.v34().index)):
            raise StudyError(f"parameter model: 'tree' knows the DRGs of v34 alone, not {unknown[0]!r}; take 'llama'")
        facts = drgs.v34().loc[labels].reset_index()
        self.titles = facts["title"].str.lower().tolist()  # as notes are written
        weights = {"mdc": settings.mdc_weight, "base": settings.base_weight, "drg": 1.0}
        self.levels = [
            (weight, torch.as_tensor(pd.factorize(facts[level])[0], device=device()))
            for level, weight in weights.items()
        ]
        super().__init__(settings, labels, folder, seed)

    def _forward(self, net, input_ids, attention_mask, labels=None, states=None, **_):
        said = super()._forward(net, input_ids, attention_mask, states=states)
        return said if labels is None else said | {"loss": level_loss(said["logits"], labels, self.levels)}

    def _start_head(self, x: np.ndarray, y: np.ndarray) -> None:
        """Start the head from the titles, given pooled states (stays, hidden) and label indices (stays,)."""
        ids = self.tokens(self.titles)
        pooled = {tuple(row): cuts[0] for row, _, cuts in self._frozen(ids)}
        titles = torch.stack([pooled[tuple(row)] for row in ids]).to(device())  # (outputs, hidden)
        notes, y = torch.as_tensor(x, device=device()), torch.as_tensor(y, device=device())
        scale = notes.std(0, correction=0) + 1e-6  # (hidden,)
        rows = title_rows(titles, notes / scale)
        if self.settings.probe_strength:
            rows = near(rows, notes / scale, y, self.levels, self.settings.probe_strength)
        with torch.no_grad():
            self.score.modules_to_save["default"].weight.copy_(rows / scale)
