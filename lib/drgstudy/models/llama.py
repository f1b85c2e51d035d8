"""**DRG-LLaMA**: a decoder-only language model reads the hospital course; a linear head over its last hidden state
scores every DRG.

The pretrained weights stay frozen. Beside each projection *W* of the attention blocks LoRA learns a product of two thin
matrices, so that the layer computes *Wx + (α/r)·BAx*: with rank 8 that is well under one per cent of the parameters.
The head is trained in full. A causal model has seen the whole text only at its last token, so the paper pools there;
the mean over all tokens and a short prompt after the note are settings. Without training (0 epochs) and with
``head: probe`` this is the **frozen probe**: a logistic regression on what the model knows already.

With two labels the head has one output for each base DRG and one for each of the five CC/MCC labels. The loss is the
cross-entropy of the base DRG plus half of that of the CC/MCC label.
"""

from __future__ import annotations

import hashlib
import json
import types
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from peft import LoraConfig, get_peft_model, set_peft_model_state_dict
from safetensors.torch import load_file
from sklearn.linear_model import LogisticRegression
from torch.nn.functional import cross_entropy
from transformers import AutoModelForSequenceClassification, BitsAndBytesConfig, set_seed
from transformers.pytorch_utils import Conv1D

from drgstudy.drgs import CC_LABELS
from drgstudy.models import refuse_numbers, weights
from drgstudy.models.fast_lora import accelerate_on_cpu, accelerate_on_gpu
from drgstudy.models.pooling import pool
from drgstudy.study import StudyError, atomic, first_process_first, one_line, read_json, setting, write_json
from drgstudy.training import NeuralSettings, PadRight, TokenDataset, device, fast_dtype, predict, train, trained


@dataclass(frozen=True)
class Settings(NeuralSettings):
    """Defaults are the paper's (Training Details), for LLaMA 7B."""

    base: str = setting("huggyllama/llama-7b", "the pretrained model: a packaged name, a folder or a hub id")
    layers: int = setting(0, "only the first so many layers of the base; 0: all", zero=True)
    pooling: str = setting(
        "last", "what the head reads: the last token, as in the paper, or the mean over all", choices=("last", "mean")
    )
    suffix: str = setting("", "text after every note")
    head: str = setting(
        "random", "where the head starts; probe: a logistic regression on the frozen model", choices=("random", "probe")
    )
    features_of: str = setting("", "a run whose frozen features the probe takes where that run read the same texts")
    cuts: list[list[int]] = setting([], "[layers, tokens] of the runs that take features from this one")
    probe_strength: float = setting(0.03, "inverse L2 penalty of the probe; one fitted too well leaves LoRA no error")
    severity_weight: float = setting(0.5, "with two labels: of the CC/MCC label's part of the loss", zero=True)
    lora_rank: int = setting(8, "rank of LoRA's products")
    lora_alpha: int = setting(8, "LoRA's part is scaled by alpha / rank")
    lora_dropout: float = setting(0.05, "of what LoRA's first matrix reads", share=True)
    lora_targets: list[str] = setting(["q_proj", "k_proj", "v_proj", "o_proj"], "projections that LoRA tunes")
    dtype: str = setting(
        "auto",
        "of the frozen weights; auto: what this machine multiplies faster",
        choices=("auto", "float32", "bfloat16"),
    )
    bits: int = setting(16, "4, 8: store the frozen blocks in so many bits (QLoRA's NF4, LLM.int8)", choices=(4, 8, 16))


def label_loss(logits: torch.Tensor, labels: torch.Tensor, severity_weight: float) -> torch.Tensor:
    """Mean cross-entropy; of two labels, that of the base DRG plus `severity_weight` times that of the CC/MCC label.

    Parameters
    ----------
    logits : torch.Tensor of float, shape (batch, labels), or (batch, base DRGs + 5) for two labels
    labels : torch.Tensor of int64, shape (batch,) or (batch, 2)
    severity_weight : float

    Notes
    -----
    Source: DRG-LLaMA, Methods: λ = ½.
    """
    if labels.ndim == 1:
        return cross_entropy(logits, labels)
    base, severity = logits[:, : -len(CC_LABELS)], logits[:, -len(CC_LABELS) :]  # (batch, base DRGs), (batch, 5)
    return cross_entropy(base, labels[:, 0]) + severity_weight * cross_entropy(severity, labels[:, 1])


def quantization(bits: int, dtype: torch.dtype) -> BitsAndBytesConfig:
    """How bitsandbytes stores the frozen blocks, in 4 or 8 bits; the head stays as it is.

    Notes
    -----
    Source: QLoRA (4-bit NormalFloat, double quantization); LLM.int8.
    """
    four = {"bnb_4bit_quant_type": "nf4", "bnb_4bit_use_double_quant": True, "bnb_4bit_compute_dtype": dtype}
    return BitsAndBytesConfig(**{f"load_in_{bits}bit": True}, **four, llm_int8_skip_modules=["score"])


def check(settings: Settings) -> None:
    """Raise StudyError if no training could begin with these settings; of the weights, only names and sizes are read."""
    _with_lora(_base(settings, 2, device_map="meta"), settings)
    _suffix(settings, weights.tokenizer(settings.base))


def _suffix(settings: Settings, tokenizer) -> list[int]:
    suffix = tokenizer(settings.suffix, add_special_tokens=False).input_ids
    if len(suffix) >= settings.max_tokens:
        raise StudyError(f"setting suffix: its {len(suffix)} tokens leave no room for the note within max_tokens")
    return suffix


def _base(settings: Settings, outputs: int, **options):
    """The base with a head; raises StudyError if it is no causal decoder of text, or has not what the settings ask for."""
    pairs = all(isinstance(cut, list) and [type(number) for number in cut] == [int, int] for cut in settings.cuts)
    if settings.cuts and (settings.suffix or not pairs):
        raise StudyError("setting cuts: expected pairs [layers, tokens], and no suffix, which would follow each cut")
    if settings.layers:
        options["num_hidden_layers"] = settings.layers
    base = weights.load(AutoModelForSequenceClassification, settings.base, num_labels=outputs, **options)
    named, config, decoder = f"setting base: {settings.base!r}", base.config, getattr(base, base.base_model_prefix)
    if not hasattr(base, "score"):
        raise StudyError(
            f"{named} ({config.model_type}) is no decoder; model llama takes decoders, model bert encoders"
        )
    if config.get_text_config() is not config:
        raise StudyError(
            f"{named} ({config.model_type}) reads more than text; take a model of the family that reads text alone"
        )
    if getattr(config, "use_bidirectional_attention", False) or not getattr(config, "is_causal", True):
        raise StudyError(f"{named} looks at later tokens too; model llama takes decoders that look back alone")
    projections = [f".{name}" for name, part in decoder.named_modules() if isinstance(part, torch.nn.Linear | Conv1D)]
    for target in settings.lora_targets:  # PEFT leaves out in silence what it does not find
        if not any(name.endswith(f".{target}") for name in projections):
            there = ", ".join(sorted({name.rpartition(".")[2] for name in projections}))
            raise StudyError(f"setting lora_targets: {config.model_type} has no {target}; choose among {there}")
    if settings.cuts and not hasattr(decoder, "norm"):
        raise StudyError(f"setting cuts: {config.model_type} has no norm after its layers; leave cuts out")
    weights.check_length(base, settings.max_tokens)
    return base


def _with_lora(base, settings: Settings):
    lora = LoraConfig(
        task_type="SEQ_CLS",
        r=settings.lora_rank,
        lora_alpha=settings.lora_alpha,
        lora_dropout=settings.lora_dropout,
        target_modules=settings.lora_targets,
        modules_to_save=["score"],
    )
    try:
        return get_peft_model(base, lora)
    except ValueError as error:
        raise StudyError(
            f"setting lora_targets: {settings.lora_targets} do not fit the base model ({one_line(error)})"
        ) from None


class Model:
    """LLaMA with LoRA and a linear head, for one or two labels of each stay."""

    two_labels = True

    def __init__(self, settings: Settings, labels: list[str], folder: Path, seed: int):
        self.settings, self.labels, self.folder, self.seed = settings, labels, folder, seed
        self.dtype = fast_dtype() if settings.dtype == "auto" else getattr(torch, settings.dtype)
        self.precision = f"{self.dtype}" + (f", stored in {settings.bits} bits" if settings.bits < 16 else "")
        set_seed(seed)
        options = {"dtype": self.dtype, "device_map": device()}
        if settings.bits < 16:
            options["quantization_config"] = quantization(settings.bits, self.dtype)
        base = _base(settings, len(labels), **options)
        self.tokenizer = weights.tokenizer(settings.base)
        base.config.pad_token_id = self.tokenizer.pad_token_id
        base.config.use_cache = False
        base.forward = types.MethodType(self._forward, base)
        self.net = _with_lora(base, settings).to(device())
        self.score = self.net.base_model.model.score.float()
        plain = device().type == "cpu" and settings.bits == 16
        self.accelerated = plain and accelerate_on_cpu(self.net)
        if not self.accelerated:
            accelerate_on_gpu(self.net)
        # In training, a mask marks nothing but the padding behind the text, where a causal model's tokens never look; a
        # GPU's attention is faster without it. In prediction it is needed: `attribution.py` masks words within a text.
        self.always_masked = device().type == "cpu"
        self.predicted_at_once = 1024 if device().type == "cpu" else 16384  # tokens; more do not fit a CPU's cache
        self.collate = PadRight(self.tokenizer.pad_token_id)

    def _states(self, input_ids, attention_mask, **options):
        """The decoder's output, with a ``last_hidden_state`` (batch, tokens, hidden)."""
        net = self.net.base_model.model
        mask = attention_mask if self.always_masked or not net.training else None
        return getattr(net, net.base_model_prefix)(input_ids, attention_mask=mask, use_cache=False, **options)

    def _forward(self, net, input_ids, attention_mask, labels=None, **_):
        hidden = self._states(input_ids, attention_mask).last_hidden_state
        logits = net.score(pool(hidden, attention_mask, self.settings.pooling))  # (batch, outputs)
        if labels is None:
            return {"logits": logits}
        return {"logits": logits, "loss": label_loss(logits, labels, self.settings.severity_weight)}

    def tokens(self, texts: list[str]) -> list[list[int]]:
        """Token ids of each text, cut so that text and suffix fit into `max_tokens`."""
        suffix = _suffix(self.settings, self.tokenizer)
        ids = self.tokenizer(texts, truncation=True, max_length=self.settings.max_tokens - len(suffix)).input_ids
        return [row + suffix for row in ids]

    def features(self, ids: list[list[int]], cuts: list[list[int]]) -> np.ndarray:
        """Pooled states of the frozen model, float32, shape (texts, cuts, hidden); each cut is [layers, tokens].

        One pass gives all of them, for what a causal model makes of its first tokens does not depend on later ones.
        """
        net = self.net.base_model.model
        decoder, depth = getattr(net, net.base_model_prefix), net.config.num_hidden_layers

        def forward(batch):
            states = self._states(**batch, output_hidden_states=len(cuts) > 1)
            mask, pooled = batch["attention_mask"], []
            for layers, tokens in cuts:
                hidden = states.last_hidden_state if layers == depth else decoder.norm(states.hidden_states[layers])
                pooled.append(pool(hidden[:, :tokens], mask[:, :tokens], self.settings.pooling))  # (batch, hidden)
            return torch.stack(pooled, 1)  # (batch, cuts, hidden)

        self.net.eval()
        return predict(forward, self.collate, ids, self.predicted_at_once)  # before training: LoRA still adds nothing

    @first_process_first()
    def _known_features(self, ids: list[list[int]]) -> np.ndarray:
        """`features` of the texts, shape (texts, hidden); only what no run has left in its folder is computed."""
        here = [self.net.config.num_hidden_layers, self.settings.max_tokens]
        cuts = [here, *self.settings.cuts]

        def key(cut: list[int], row: list[int]) -> str:
            what = [self.settings.base, self.settings.pooling, self.precision, cut[0], row[: cut[1]]]
            return hashlib.sha256(json.dumps(what).encode()).hexdigest()[:24]

        of = self.settings.features_of
        file = (self.folder.parent / of if of else self.folder) / "features.npz"
        if of and not file.is_file():
            raise StudyError(f"setting features_of: run {of!r} has left no {file.name}; run it first")
        known = {}
        if file.is_file():
            with np.load(file, allow_pickle=False) as saved:
                known = dict(zip(saved["keys"].tolist(), saved["features"], strict=True))
        if missing := [row for row in ids if not all(key(cut, row) in known for cut in cuts)]:
            for row, features in zip(missing, self.features(missing, cuts), strict=True):
                known |= {key(cut, row): pooled for cut, pooled in zip(cuts, features, strict=True)}
            if not of:
                with atomic(file) as beside:
                    np.savez(beside, keys=list(known), features=list(known.values()))
        return np.stack([known[key(here, row)] for row in ids])

    def _start_head(self, ids: list[list[int]], y: np.ndarray) -> None:
        """Start the head from a probe for each of a stay's labels; outputs without a training stay get weights of zero.

        The head has no intercept, as in transformers. The features are therefore scaled but not centred: the scale can
        be folded into the head's weights.
        """
        if self.settings.head == "random":
            return
        x = self._known_features(ids)
        scale = x.std(0) + 1e-6  # (hidden,)
        head = self.score.modules_to_save["default"].weight  # (outputs, hidden)
        targets = [(0, y)] if y.ndim == 1 else [(0, y[:, 0]), (len(head) - len(CC_LABELS), y[:, 1])]
        with torch.no_grad():
            head.zero_()
            for first, target in targets:
                probe = LogisticRegression(C=self.settings.probe_strength, fit_intercept=False, max_iter=300)
                probe.fit(x / scale, target)
                if len(probe.classes_) == 2:  # scikit-learn keeps one row, the second label's against the first
                    probe.coef_ = np.vstack([-probe.coef_, probe.coef_]) / 2
                head[first + probe.classes_] = torch.tensor(probe.coef_ / scale, dtype=head.dtype, device=head.device)

    def fit(self, texts: list[str], y: np.ndarray, validation: tuple | None = None) -> dict:
        """Start the head, train it and LoRA on label indices, (texts,) or (texts, 2), and save both as PEFT does."""
        refuse_numbers(y)
        ids = self.tokens(texts)
        self.folder.mkdir(parents=True, exist_ok=True)
        self._start_head(ids, y)
        cost = {}
        if self.settings.epochs:
            data, kept = TokenDataset(ids, y), validation and TokenDataset(self.tokens(validation[0]), validation[1])
            cost = train(self.net, self.collate, data, self.settings, self.folder, self.seed, validation=kept)
        with atomic(self.folder / "adapter") as beside:
            self.net.save_pretrained(beside, save_embedding_layers=False, state_dict=trained(self.net))
            about = read_json(beside / "adapter_config.json")  # PEFT keeps the targets as a set, in any order
            write_json(beside / "adapter_config.json", about | {"target_modules": sorted(about["target_modules"])})
        return cost | {"dtype": self.precision.removeprefix("torch."), "accelerated": self.accelerated}

    def restore(self) -> None:
        """Load the adapter and the head that `fit` saved."""
        saved = load_file(self.folder / "adapter" / "adapter_model.safetensors", device=str(device()))
        set_peft_model_state_dict(self.net, saved)

    def predict(self, texts: list[str]) -> np.ndarray:
        """Return the logits: float32, shape (texts, outputs)."""
        ids = self.tokens(texts)
        if not self.settings.epochs and self.settings.head == "probe":  # nothing but the head was fitted
            head = self.score.modules_to_save["default"].weight.detach().float().cpu().numpy()
            return self._known_features(ids) @ head.T
        self.net.eval()
        return predict(lambda batch: self.net(**batch)["logits"], self.collate, ids, self.predicted_at_once)
