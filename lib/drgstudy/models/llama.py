"""**DRG-LLaMA**: a decoder-only language model reads the hospital course; a linear head over its last hidden state
scores every DRG.

The pretrained weights stay frozen. Beside each projection *W* of the attention blocks LoRA learns a product of two thin
matrices, so that the layer computes *Wx + (α/r)·BAx*: with rank 8 that is well under one per cent of the parameters.
The head is trained in full. A causal model has seen the whole text only at its last token, hence the paper pools there;
the mean over all tokens and a short prompt after the note are settings. Without training (0 epochs) and with
``head: probe`` this is the **frozen probe**: a logistic regression on what the model knows already.
"""

from __future__ import annotations

import hashlib
import json
import types
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import torch
from peft import LoraConfig, get_peft_model
from safetensors import safe_open
from safetensors.torch import save_file
from sklearn.linear_model import LogisticRegression
from torch.nn.functional import cross_entropy
from transformers import AutoModelForSequenceClassification, AutoTokenizer, set_seed

from drgstudy.models import weights
from drgstudy.models.fast_lora import accelerate_on_cpu
from drgstudy.study import StudyError, atomic
from drgstudy.training import NeuralSettings, PadRight, TokenDataset, device, fast_dtype, predict, train


@dataclass(frozen=True)
class Settings(NeuralSettings):
    """Defaults are the paper's (Training Details), for LLaMA 7B."""

    base: str = "huggyllama/llama-7b"  # a packaged name, a folder or a hub id
    pooling: str = "last"  # "last": the last token, as in the paper; "mean": the mean over all tokens
    suffix: str = ""  # text after every note
    head: str = "random"  # where the head starts: "random", or "probe": a logistic regression on the frozen model
    features_of: str = ""  # a run with the same base and tokens whose frozen features the probe takes; empty: its own
    probe_strength: float = 0.03  # inverse L2 penalty of the probe; one fitted too well leaves LoRA no error
    lora_rank: int = 8
    lora_alpha: int = 8
    lora_dropout: float = 0.05
    lora_targets: list[str] = field(default_factory=lambda: ["q_proj", "k_proj", "v_proj", "o_proj"])
    dtype: str = "auto"  # of the frozen weights: "float32", "bfloat16", or "auto": what this machine multiplies faster


def pool(hidden: torch.Tensor, mask: torch.Tensor, how: str) -> torch.Tensor:
    """One vector a text from the hidden states: the last real token's, or the mean over real tokens.

    Parameters
    ----------
    hidden : torch.Tensor, shape (texts, tokens, width)
    mask : torch.Tensor of int, shape (texts, tokens)
        1 for real tokens, on whichever side the padding is.
    how : {"last", "mean"}
    """
    if how == "last":
        last = (torch.arange(mask.shape[1], device=mask.device) * mask).argmax(-1)
        return hidden[torch.arange(len(hidden), device=hidden.device), last].float()
    kept = mask.unsqueeze(-1)
    return (hidden.float() * kept).sum(1) / kept.sum(1)


class Model:
    """LLaMA with LoRA and a linear head, single label."""

    def __init__(self, settings: Settings, labels: list[str], folder: Path, seed: int):
        known = {"pooling": ("last", "mean"), "head": ("random", "probe"), "dtype": ("auto", "float32", "bfloat16")}
        for name, choices in known.items():
            if getattr(settings, name) not in choices:
                raise StudyError(f"setting {name}: expected one of {choices}, got {getattr(settings, name)!r}")
        self.settings, self.labels, self.folder, self.seed = settings, labels, folder, seed
        self.dtype = fast_dtype() if settings.dtype == "auto" else getattr(torch, settings.dtype)
        set_seed(seed)
        self.tokenizer = weights.load(AutoTokenizer, settings.base)
        if self.tokenizer.pad_token_id is None:  # the first LLaMA has none
            self.tokenizer.pad_token_id = self.tokenizer.unk_token_id
        base = weights.load(AutoModelForSequenceClassification, settings.base, num_labels=len(labels), dtype=self.dtype)
        base.config.pad_token_id = self.tokenizer.pad_token_id
        base.config.use_cache = False
        base.forward = types.MethodType(self._forward, base)
        lora = LoraConfig(
            task_type="SEQ_CLS",
            r=settings.lora_rank,
            lora_alpha=settings.lora_alpha,
            lora_dropout=settings.lora_dropout,
            target_modules=settings.lora_targets,
            modules_to_save=["score"],
        )
        try:
            self.net = get_peft_model(base, lora).to(device())
        except ValueError as error:
            raise StudyError(
                f"setting lora_targets: {settings.lora_targets} do not fit the base model ({error})"
            ) from None
        self.score = self.net.base_model.model.score.float()
        self.accelerated = device().type == "cpu" and accelerate_on_cpu(self.net)
        self.collate = PadRight(self.tokenizer.pad_token_id)

    def _forward(self, net, input_ids, attention_mask, labels=None, **_):
        decoder = getattr(net, net.base_model_prefix)
        hidden = decoder(input_ids=input_ids, attention_mask=attention_mask, use_cache=False).last_hidden_state
        logits = net.score(pool(hidden, attention_mask, self.settings.pooling))
        return {"logits": logits} | ({} if labels is None else {"loss": cross_entropy(logits, labels)})

    def tokens(self, texts: list[str]) -> list[list[int]]:
        """Token ids of each text, cut so that text and suffix fit into `max_tokens`."""
        suffix = self.tokenizer(self.settings.suffix, add_special_tokens=False).input_ids
        if len(suffix) >= self.settings.max_tokens:
            raise StudyError(f"setting suffix: its {len(suffix)} tokens leave no room for the note within max_tokens")
        ids = self.tokenizer(texts, truncation=True, max_length=self.settings.max_tokens - len(suffix)).input_ids
        return [row + suffix for row in ids]

    def features(self, ids: list[list[int]]) -> np.ndarray:
        """Pooled last hidden states of the frozen model, float32, shape (texts, width)."""
        decoder = getattr(self.net.base_model.model, self.net.base_model.model.base_model_prefix)

        def forward(batch):
            hidden = decoder(**batch, use_cache=False).last_hidden_state
            return pool(hidden, batch["attention_mask"], self.settings.pooling)

        self.net.eval()
        return predict(forward, self.collate, ids)  # before training: LoRA still adds nothing

    def _known_features(self, ids: list[list[int]]) -> np.ndarray:
        """`features` of the training texts, which another run with the same base and texts may have computed."""
        what = [self.settings.base, self.settings.pooling, ids]
        made_of = {"made_of": hashlib.sha256(json.dumps(what).encode()).hexdigest()}
        if not self.settings.features_of:
            features = self.features(ids)
            with atomic(self.folder / "features.safetensors") as beside:
                save_file({"features": torch.from_numpy(features)}, beside, made_of)
            return features
        file = self.folder.parent / self.settings.features_of / "features.safetensors"
        if not file.is_file():
            raise StudyError(
                f"setting features_of: run {self.settings.features_of!r} has left no {file.name}; run it first"
            )
        with safe_open(file, "np") as saved:
            if saved.metadata() != made_of:
                raise StudyError(
                    f"setting features_of: run {self.settings.features_of!r} read other texts, or with another base, "
                    "max_tokens, suffix or pooling; make these the same in both runs"
                )
            return saved.get_tensor("features")

    def _start_head(self, ids: list[list[int]], y: np.ndarray) -> None:
        """Fit the probe; a label that the training stays lack keeps a head of zeros.

        The head has no intercept (transformers' has none), and features are scaled, not centred, so that the scale folds
        into the head.
        """
        if self.settings.head == "random":
            return
        x = self._known_features(ids)
        scale = x.std(0) + 1e-6
        probe = LogisticRegression(C=self.settings.probe_strength, fit_intercept=False, max_iter=300).fit(x / scale, y)
        head = self.score.modules_to_save["default"].weight
        with torch.no_grad():
            head.zero_()
            head[probe.classes_] = torch.tensor(probe.coef_ / scale, dtype=head.dtype, device=head.device)

    def fit(self, texts: list[str], y: np.ndarray) -> dict:
        """Start the head, train LoRA and head, and save the adapter in PEFT's format."""
        ids = self.tokens(texts)
        self.folder.mkdir(parents=True, exist_ok=True)
        self._start_head(ids, y)
        cost = {}
        if self.settings.epochs:
            cost = train(self.net, self.collate, TokenDataset(ids, y), self.settings, self.folder, self.seed)
            with atomic(self.folder / "adapter") as beside:
                self.net.save_pretrained(beside, save_embedding_layers=False)
        return cost | {"dtype": str(self.dtype).removeprefix("torch."), "accelerated": self.accelerated}

    def predict(self, texts: list[str]) -> np.ndarray:
        """Logits, float32, shape (texts, labels)."""
        self.net.eval()
        return predict(lambda batch: self.net(**batch)["logits"], self.collate, self.tokens(texts))
