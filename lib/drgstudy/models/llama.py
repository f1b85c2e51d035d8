"""**DRG-LLaMA**: a decoder-only language model reads the hospital course; a linear head over its last hidden state
scores every DRG.

The pretrained weights stay frozen. Beside each projection *W* of the attention blocks LoRA learns a product of two thin
matrices, so that the layer computes *Wx + (α/r)·BAx*: with rank 8 that is well under one per cent of the parameters.
Where only the upper layers are tuned, what the lower ones make of a text never changes, so it is computed once and kept.
The head is trained in full. A causal model has seen the whole text only at its last token, so the paper pools there;
the mean over all tokens and a short prompt after the note are settings. Without training (0 epochs) and with
``head: probe`` this is the **frozen probe**: a logistic regression on what the model knows already.

With two labels the head has one output for each base DRG and one for each of the five CC/MCC labels. The loss is the
cross-entropy of the base DRG plus half of that of the CC/MCC label.
"""

from __future__ import annotations

import types
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import islice
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
from drgstudy.models import frozen, refuse_numbers, weights
from drgstudy.models.fast_lora import accelerate_on_cpu, accelerate_on_gpu
from drgstudy.models.pooling import pool
from drgstudy.study import StudyError, atomic, first_process_first, one_line, read_json, setting, write_json
from drgstudy.training import (
    NeuralSettings,
    PadRight,
    TokenDataset,
    batches,
    device,
    fast_dtype,
    predict,
    train,
    trained,
)


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
    tuned_layers: int = setting(
        0,
        "LoRA in only so many layers, the uppermost, so that the others' work is done once for each text; 0: in all",
        zero=True,
    )
    features_of: str = setting("", "a run whose frozen states are taken where that run read the same texts")
    cuts: list[list[int]] = setting([], "[layers, tokens] of the runs that take frozen states from this one")
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
    for name in ("cuts", "tuned_layers"):
        if getattr(settings, name) and not (hasattr(decoder, "layers") and hasattr(decoder, "norm")):
            raise StudyError(
                f"setting {name}: {config.model_type} has no layers with a norm after them; leave {name} out"
            )
    if any(not (1 <= layers <= config.num_hidden_layers and tokens >= 1) for layers, tokens in settings.cuts):
        raise StudyError(
            f"setting cuts: expected 1 to {config.num_hidden_layers} layers, and 1 token or more, in each pair"
        )
    if settings.tuned_layers > config.num_hidden_layers:
        raise StudyError(f"setting tuned_layers: expected at most the base's {config.num_hidden_layers} layers")
    weights.check_length(base, settings.max_tokens)
    return base


def _with_lora(base, settings: Settings):
    tuned = settings.tuned_layers
    lora = LoraConfig(
        task_type="SEQ_CLS",
        r=settings.lora_rank,
        lora_alpha=settings.lora_alpha,
        lora_dropout=settings.lora_dropout,
        target_modules=settings.lora_targets,
        modules_to_save=["score"],
        layers_to_transform=list(range(base.config.num_hidden_layers))[-tuned:] if tuned else None,
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
        decoder, depth = getattr(base, base.base_model_prefix), base.config.num_hidden_layers
        self.below = depth - settings.tuned_layers if settings.tuned_layers else 0
        self.net = _with_lora(base, settings).to(device())
        self.whole = self.upper = decoder
        if self.below:
            self.lower, self.upper = frozen.divided(decoder, self.below)
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
        made_by = {"base": settings.base, "pooling": settings.pooling, "precision": self.precision}
        self.keeps = {"of": made_by, "below": self.below, "cuts": [[depth, settings.max_tokens], *settings.cuts]}
        self.shares = False  # whether what is computed of the texts that it is asked about is kept for other runs

    def _states(self, decoder, attention_mask, **read):
        """A decoder's output, with a ``last_hidden_state`` (batch, tokens, hidden); it reads ids or embeddings."""
        mask = attention_mask if self.always_masked or not self.net.training else None
        return decoder(attention_mask=mask, use_cache=False, **read)

    def _forward(self, net, input_ids, attention_mask, labels=None, states=None, **_):
        read = {"input_ids": input_ids}
        if self.below:
            if states is None:
                with torch.no_grad():
                    states = self._states(self.lower, attention_mask, **read).last_hidden_state
            read = {"inputs_embeds": states}
        hidden = self._states(self.upper, attention_mask, **read).last_hidden_state
        logits = net.score(pool(hidden, attention_mask, self.settings.pooling))  # (batch, outputs)
        if labels is None:
            return {"logits": logits}
        return {"logits": logits, "loss": label_loss(logits, labels, self.settings.severity_weight)}

    def tokens(self, texts: list[str]) -> list[list[int]]:
        """Token ids of each text, cut so that text and suffix fit into `max_tokens`."""
        suffix = _suffix(self.settings, self.tokenizer)
        ids = self.tokenizer(texts, truncation=True, max_length=self.settings.max_tokens - len(suffix)).input_ids
        return [row + suffix for row in ids]

    @first_process_first()
    def _kept(self, ids: list[list[int]]) -> frozen.Kept:
        """What the untrained model makes of texts; of these, what no run has left in its folder is computed and kept.

        One pass gives all of it. It is called before training, while LoRA adds nothing.
        """
        kept, own = frozen.Kept(self.keeps["of"], *self.keeps["cuts"][0], self.below), self.folder / "frozen"
        if of := self.settings.features_of:
            folder = self.folder.parent / of / "frozen"
            if ids and not folder.is_dir():
                raise StudyError(f"setting features_of: run {of!r} has left no frozen states; run it first")
            kept.open(folder)
        kept.open(own)
        if missing := list({tuple(row): row for row in ids if row not in kept}.values()):
            if self.below:
                self.folder.mkdir(parents=True, exist_ok=True)
                frozen.refuse_too_large(self.folder, sum(map(len, missing)), self.net.config.hidden_size, self.dtype)
            made = self._frozen(missing)
            while texts := list(islice(made, frozen.TEXTS)):
                frozen.save(own, self.keeps, *zip(*texts, strict=True))
            kept.open(own)
        return kept

    @torch.no_grad()
    def _frozen(self, texts: list[list[int]]) -> Iterator[tuple]:
        """Yield each text, the longest first, with its states below the tuned layers and its pooled ones at each cut."""
        self.net.eval()
        cuts, whole = self.keeps["cuts"], self.whole
        all_of_them = {"output_hidden_states": bool(self.below) or len(cuts) > 1}
        for rows, batch in batches(self.collate, TokenDataset(texts), self.predicted_at_once):
            states = self._states(whole, **batch, **all_of_them)
            mask, pooled = batch["attention_mask"], []
            for layers, tokens in cuts:
                hidden = (
                    states.last_hidden_state if [layers] == cuts[0][:1] else whole.norm(states.hidden_states[layers])
                )
                pooled.append(pool(hidden[:, :tokens], mask[:, :tokens], self.settings.pooling))  # (batch, hidden)
            pooled = torch.stack(pooled, 1).cpu()  # (batch, cuts, hidden)
            below = states.hidden_states[self.below].cpu() if self.below else None  # (batch, tokens, hidden)
            for i, row in enumerate(rows):
                yield texts[row], None if below is None else below[i, : len(texts[row])], pooled[i]

    def _start_head(self, x: np.ndarray, y: np.ndarray) -> None:
        """Start the head from a probe of pooled states (stays, hidden) for each of a stay's labels.

        Outputs without a training stay get weights of zero. The head has no intercept, as in transformers. The states are
        therefore scaled but not centred: the scale can be folded into the head's weights.
        """
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
        ids, judged = self.tokens(texts), self.tokens(validation[0]) if validation else []
        self.folder.mkdir(parents=True, exist_ok=True)
        cost, states = {}, None
        if self.below or self.settings.head == "probe":
            kept = self._kept([*ids, *judged] if self.below else ids)
            states = kept.states if self.below else None
        if self.settings.head == "probe":
            self._start_head(kept.pooled(ids).numpy(), y)
        if self.settings.epochs:
            data, judging = TokenDataset(ids, y, states), validation and TokenDataset(judged, validation[1], states)
            cost = train(self.net, self.collate, data, self.settings, self.folder, self.seed, validation=judging)
        with atomic(self.folder / "adapter") as beside:
            self.net.save_pretrained(beside, save_embedding_layers=False, state_dict=trained(self.net))
            about = read_json(beside / "adapter_config.json")  # PEFT keeps the targets as a set, in any order
            write_json(beside / "adapter_config.json", about | {"target_modules": sorted(about["target_modules"])})
        self.shares = bool(self.settings.cuts) and not self.settings.epochs
        return cost | {"dtype": self.precision.removeprefix("torch."), "accelerated": self.accelerated}

    def restore(self) -> None:
        """Load the adapter and the head that `fit` saved."""
        saved = load_file(self.folder / "adapter" / "adapter_model.safetensors", device=str(device()))
        set_peft_model_state_dict(self.net, saved)

    def predict(self, texts: list[str]) -> np.ndarray:
        """Return the logits: float32, shape (texts, outputs)."""
        ids = self.tokens(texts)
        states = None
        if self.below or not self.settings.epochs:
            kept = self._kept(ids if self.shares else [])
            if all(row in kept for row in ids):
                if not self.settings.epochs:  # nothing but the head was fitted
                    head = self.score.modules_to_save["default"].weight.detach().float().cpu()
                    return (kept.pooled(ids) @ head.T).numpy()
                states = kept.states
        data = TokenDataset(ids, states=states)
        self.net.eval()
        return predict(lambda batch: self.net(**batch)["logits"], self.collate, data, self.predicted_at_once)
