"""**BERT**: a bidirectional encoder, fine-tuned in full with a linear head over its pooled output.

The paper's baseline is ClinicalBERT (``emilyalsentzer/Bio_ClinicalBERT``), three epochs, batches of 16, learning rate
2e-5. The default of the demo is MiniLM-L6, a small BERT whose weights come in a package. It was trained to put a text's
meaning into the mean over its tokens, so in the demo the head reads that mean instead of the first token.
"""

from __future__ import annotations

import types
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from safetensors.torch import load_model, save_model
from torch.nn.functional import cross_entropy
from transformers import AutoConfig, AutoModelForSequenceClassification, set_seed

from drgstudy.models import refuse_numbers, weights
from drgstudy.models.pooling import pool
from drgstudy.study import StudyError, atomic, setting
from drgstudy.training import NeuralSettings, PadRight, TokenDataset, device, fast_dtype, predict, train

POOLS = {"modernbert": "cls", "eurobert": "bos"}
"""Architectures whose head can read the mean itself, and what they call the first token."""


@dataclass(frozen=True)
class Settings(NeuralSettings):
    """Defaults are the paper's (Baseline Models)."""

    base: str = setting(
        "emilyalsentzer/Bio_ClinicalBERT", "the pretrained model: a packaged name, a folder or a hub id"
    )
    batch_size: int = 16
    dropout: float = setting(0.1, "of hidden states and attention weights", share=True)
    pooling: str = setting(
        "first", "what the head reads: BERT's own pooled output, or the mean over all tokens", choices=("first", "mean")
    )


def check(settings: Settings) -> None:
    """Raise StudyError if no training could begin with these settings; of the weights, only names and sizes are read."""
    weights.tokenizer(settings.base)
    _encoder(settings, 2, device_map="meta")


def _encoder(settings: Settings, outputs: int, **options):
    """The base with a head; raises StudyError if it is no encoder, or has not what the settings ask for."""
    config = weights.load(AutoConfig, settings.base).to_dict()
    options |= {name: settings.dropout for name in config if "dropout" in name}  # each architecture has its names
    if pools := POOLS.get(config["model_type"]):
        options["classifier_pooling"] = {"first": pools, "mean": "mean"}[settings.pooling]
    options |= {"num_labels": outputs, "dtype": torch.float32}
    net = weights.load(AutoModelForSequenceClassification, settings.base, **options)
    if not hasattr(net, "classifier"):
        raise StudyError(
            f"setting base: {settings.base!r} ({config['model_type']}) is no encoder with a classifier; "
            "model bert takes encoders, model llama decoders"
        )
    weights.check_length(net, settings.max_tokens)
    return net


class Model:
    """An encoder of BERT's architecture with a linear head."""

    def __init__(self, settings: Settings, labels: list[str], folder: Path, seed: int):
        self.settings, self.folder, self.seed = settings, folder, seed
        set_seed(seed)
        self.tokenizer = weights.tokenizer(settings.base)
        # On a CPU the fused attention kernel's backward pass is slower than the plain products.
        attention = "eager" if device().type == "cpu" else None
        self.net = _encoder(settings, len(labels), attn_implementation=attention).to(device())
        for part in self.net.parameters():  # some architectures' are slices of one tensor, which safetensors won't save
            if part.untyped_storage().nbytes() > part.nbytes:
                part.data = part.data.clone()
        if settings.pooling == "mean" and self.net.config.model_type not in POOLS:
            self.net.forward = types.MethodType(_mean_forward, self.net)
        self.collate = PadRight(self.tokenizer.pad_token_id)

    def tokens(self, texts: list[str]) -> list[list[int]]:
        """Token ids of each text, special tokens included, cut at `max_tokens`."""
        return self.tokenizer(texts, truncation=True, max_length=self.settings.max_tokens).input_ids

    def fit(self, texts: list[str], y: np.ndarray, validation: tuple | None = None) -> dict:
        """Fine-tune all weights on `y`, label indices (int64, shape (texts,)); returns the cost."""
        refuse_numbers(y)
        data, autocast = TokenDataset(self.tokens(texts), y), fast_dtype() == torch.bfloat16
        kept = validation and TokenDataset(self.tokens(validation[0]), validation[1])
        forward = self.net.forward
        cost = train(self.net, self.collate, data, self.settings, self.folder, self.seed, autocast, kept)
        self.net.forward = forward  # the trainer leaves it wrapped in its autocast
        with atomic(self.folder / "model.safetensors") as beside:
            save_model(self.net, str(beside))
        return cost | {"dtype": "bfloat16 autocast" if autocast else "float32"}

    def restore(self) -> None:
        """Load what `fit` saved in `folder`."""
        load_model(self.net, self.folder / "model.safetensors", device=str(device()))

    def predict(self, texts: list[str]) -> np.ndarray:
        """Return the logits: float32, shape (texts, labels)."""
        self.net.eval()
        # In float32: in bfloat16 the logits of two DRGs would often be equal.
        return predict(lambda batch: self.net(**batch)["logits"], self.collate, self.tokens(texts))


def _mean_forward(net, input_ids, attention_mask, labels=None, **_):
    """An encoder's forward pass with mean pooling, of ids and mask (batch, tokens) and label indices (batch,)."""
    encoder = getattr(net, net.base_model_prefix)
    hidden = encoder(input_ids=input_ids, attention_mask=attention_mask).last_hidden_state  # (batch, tokens, hidden)
    pooled = pool(hidden, attention_mask, "mean")  # (batch, hidden)
    # RoBERTa's kind of head takes a text's vectors and reads the first of them.
    logits = net.classifier(net.dropout(pooled) if hasattr(net, "dropout") else pooled[:, None])  # (batch, labels)
    return {"logits": logits} | ({} if labels is None else {"loss": cross_entropy(logits, labels)})
