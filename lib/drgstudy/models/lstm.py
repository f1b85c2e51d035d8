"""**LSTM**: no notes, only what was measured: vital signs and laboratory values, hour by hour.

A recurrent network reads a stay one hour after the other. It carries a memory along, and three gates learn what of
the memory to forget at each hour, what of the new measurements to take in, and what to show. What it shows after the
last hour depends on all of them; from it a linear head scores every DRG. It is the early-DRG paper's yardstick for the
notes: the same stays and the same task, without a word of text.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from safetensors.torch import load_file, save_file
from torch import nn
from torch.nn.functional import cross_entropy
from transformers import set_seed

from drgstudy.models import refuse_numbers
from drgstudy.study import StudyError, atomic, setting
from drgstudy.training import NeuralSettings, TokenDataset, device, predict, train


@dataclass(frozen=True)
class Settings(NeuralSettings):
    """Ours, not the paper's: its Supplementary Note 2, with the LSTM's settings, was not at hand."""

    max_tokens: int = setting(48, "hours that are read, from ICU admission on")
    epochs: float = 50.0
    batch_size: int = 64
    learning_rate: float = 1e-3
    weight_decay: float = 0.0
    schedule: str = "constant"
    patience: int = 10
    hidden: int = setting(128, "width of the memory")
    dropout: float = setting(0.3, "of what the memory shows after the last hour", share=True)


class Network(nn.Module):
    """One LSTM layer over (batch, hours, variables), dropout, and a linear head over the last hour's hidden state."""

    def __init__(self, variables: int, labels: int, hidden: int, dropout: float):
        super().__init__()
        self.lstm = nn.LSTM(variables, hidden, batch_first=True)
        self.dropout = nn.Dropout(dropout)
        self.score = nn.Linear(hidden, labels)

    def forward(self, input_ids, labels=None):
        logits = self.score(self.dropout(self.lstm(input_ids)[0][:, -1]))  # (batch, hidden) -> (batch, labels)
        return {"logits": logits} | ({} if labels is None else {"loss": cross_entropy(logits, labels)})


def collate(rows: list[dict]) -> dict[str, torch.Tensor]:
    """Stack stays of equally many hours: input_ids (batch, hours, variables) and, where given, labels (batch,)."""
    return {key: torch.as_tensor(np.stack([row[key] for row in rows])) for key in rows[0]}


class Model:
    """An LSTM that reads hourly measurements instead of texts: float32, shape (stays, hours, variables), no gaps."""

    def __init__(self, settings: Settings, labels: list[str], folder: Path, seed: int):
        self.settings, self.n_labels, self.folder, self.seed = settings, len(labels), folder, seed

    def hours(self, measurements: np.ndarray) -> np.ndarray:
        """The first `max_tokens` hours; raises StudyError for another shape, or for values that are not finite."""
        shape = np.shape(measurements)
        if len(shape) != 3 or not np.isfinite(measurements).all():
            raise StudyError(
                f"measurements: expected known values of shape (stays, hours, variables), got shape {shape} "
                "or values that are not finite; prepare them with inputs.measured"
            )
        return measurements[:, : self.settings.max_tokens].astype(np.float32, copy=False)

    def fit(self, measurements: np.ndarray, y: np.ndarray, validation: tuple | None = None) -> dict:
        """Train on `y`, label indices (int64, shape (stays,)), with early stopping on accuracy; returns the cost."""
        refuse_numbers(y)
        set_seed(self.seed)
        s, hours = self.settings, self.hours(measurements)
        self.net = Network(hours.shape[2], self.n_labels, s.hidden, s.dropout).to(device())
        kept = validation and TokenDataset(self.hours(validation[0]), validation[1])
        cost = train(self.net, collate, TokenDataset(hours, y), s, self.folder, self.seed, validation=kept)
        with atomic(self.folder / "model.safetensors") as beside:
            save_file(self.net.state_dict(), str(beside))  # save_model refuses weights that cuDNN keeps in one piece
        return cost

    def restore(self) -> None:
        """Load what `fit` saved in `folder`."""
        saved, s = load_file(self.folder / "model.safetensors", device=str(device())), self.settings
        variables = saved["lstm.weight_ih_l0"].shape[1]
        self.net = Network(variables, self.n_labels, s.hidden, s.dropout).to(device())
        self.net.load_state_dict(saved)

    def predict(self, measurements: np.ndarray) -> np.ndarray:
        """Return the logits: float32, shape (stays, labels)."""
        self.net.eval()
        return predict(lambda batch: self.net(**batch)["logits"], collate, self.hours(measurements))
