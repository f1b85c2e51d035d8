"""What all neural runs share: the trainer, resuming after a kill, the numeric type, and what a run costs.

The trainer is transformers'; a model only has to be a module that returns ``loss`` and ``logits``. A run keeps its
checkpoints in its own folder: started again after a kill, it goes on from the last one. Under torchrun or ``accelerate
launch`` the trainer finds the other processes by itself (`study.__main__`).
"""

from __future__ import annotations

import functools
import os
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from pickle import UnpicklingError

import numpy as np
import torch
from torch.nn.utils.rnn import pad_sequence
from transformers import EarlyStoppingCallback, PrinterCallback, TrainingArguments

from drgstudy import checkpoints
from drgstudy.drgs import CC_LABELS
from drgstudy.study import StudyError, progress, setting


@dataclass(frozen=True)
class NeuralSettings:
    """Settings that every neural model has; each model adds its own."""

    max_tokens: int = setting(512, "longer texts are cut at their end")
    epochs: float = setting(3.0, "passes over the training stays; 0 trains nothing", zero=True)
    batch_size: int = setting(4, "stays a step, of each process: 2 processes of 4 take the steps of one of 8")
    learning_rate: float = setting(2e-5, "the highest of the schedule")
    weight_decay: float = setting(
        0.01, "share of a weight that each step takes off, at a learning rate of 1 (AdamW)", zero=True
    )
    schedule: str = setting("linear", "how the learning rate falls", choices=("linear", "cosine", "constant"))
    warmup: float = setting(0.0, "share of the steps over which the learning rate rises", share=True)
    order: str = setting(
        "random", "by_length batches texts of like length: less padding", choices=("random", "by_length")
    )
    checkpoint_steps: int = setting(100, "steps between checkpoints, from which a killed run goes on")
    patience: int = setting(
        0, "stop after so many epochs without a better score on the stays kept back; 0: never stop early", zero=True
    )


@functools.cache
def matrix_speed(dtype: torch.dtype) -> float:
    """Measure the speed of one linear layer of a small LLaMA on this machine's CPU, in GFLOP/s."""
    x, w = torch.randn(1024, 576).to(dtype), torch.randn(1536, 576).to(dtype)
    seconds = []
    for _ in range(12):
        start = time.perf_counter()
        torch.nn.functional.linear(x, w)
        seconds.append(time.perf_counter() - start)
    return 2 * 1024 * 576 * 1536 / min(seconds) / 1e9


def fast_dtype() -> torch.dtype:
    """bfloat16 where this machine multiplies it at least 1.5 times as fast as float32, else float32.

    Processors with AMX or AVX512-BF16 are 4 to 6 times as fast with it; the others are as much slower.
    """
    if torch.cuda.is_available():
        return torch.bfloat16 if torch.cuda.is_bf16_supported(including_emulation=False) else torch.float32
    faster = matrix_speed(torch.bfloat16) > 1.5 * matrix_speed(torch.float32)
    return torch.bfloat16 if faster else torch.float32


def device() -> torch.device:
    """This process's GPU if there is one, else the CPU."""
    return torch.device(f"cuda:{os.environ.get('LOCAL_RANK', 0)}" if torch.cuda.is_available() else "cpu")


class TokenDataset(torch.utils.data.Dataset):
    """Token ids or measurements, and what is to be learned of each stay, as the trainer takes them.

    Parameters
    ----------
    input_ids : list of list of int, or numpy.ndarray of float32, shape (stays, hours, variables)
    labels : numpy.ndarray, optional
        int: label indices, of shape (stays,) or (stays, 2); float: one number for each stay, of shape (stays,).
    states : callable, optional
        Gives what the first layers made of a text's ids already, shape (tokens, hidden).
    """

    def __init__(
        self,
        input_ids: list[list[int]] | np.ndarray,
        labels: np.ndarray | None = None,
        states: Callable[[list[int]], torch.Tensor] | None = None,
    ):
        self.input_ids, self.labels, self.states = input_ids, labels, states

    def __len__(self) -> int:
        return len(self.input_ids)

    def __getitem__(self, i: int) -> dict:
        row = {"input_ids": self.input_ids[i]}
        row |= {} if self.states is None else {"states": self.states(self.input_ids[i])}
        return row if self.labels is None else row | {"labels": self.labels[i]}


class PadRight:
    """Collate token ids, and states of tokens, into one batch, padded at the end to the length of its longest text."""

    def __init__(self, pad_id: int):
        self.pad_id = pad_id

    def __call__(self, rows: list[dict]) -> dict[str, torch.Tensor]:
        width = max(len(row["input_ids"]) for row in rows)
        ids = torch.full((len(rows), width), self.pad_id)  # (batch, tokens)
        mask = torch.zeros_like(ids)  # (batch, tokens)
        for i, row in enumerate(rows):
            ids[i, : len(row["input_ids"])] = torch.as_tensor(row["input_ids"])
            mask[i, : len(row["input_ids"])] = 1
        batch = {"input_ids": ids, "attention_mask": mask}
        if "states" in rows[0]:
            batch["states"] = pad_sequence([row["states"] for row in rows], batch_first=True)  # (batch, tokens, hidden)
        if "labels" in rows[0]:
            batch["labels"] = torch.as_tensor(np.array([row["labels"] for row in rows]))  # (batch,) or (batch, 2)
        return batch


class ByLength(torch.utils.data.Sampler):
    """Batches of texts of similar length, in a random order that is the same in every run of a seed and an epoch.

    Shuffled texts are sorted within groups of 50 batches, as transformers' sampler by length does. Unlike there, the
    batches are shuffled too (there, each group ends with its shortest texts), and a resumed run draws the same order.
    """

    def __init__(self, lengths: list[int], batch_size: int, seed: int):
        self.lengths, self.batch_size, self.seed, self.epoch = np.asarray(lengths), batch_size, seed, 0

    def set_epoch(self, epoch: int) -> None:
        self.epoch = epoch

    def __len__(self) -> int:
        return len(self.lengths)

    def __iter__(self):
        rng, size = np.random.default_rng([self.seed, self.epoch]), self.batch_size
        order = rng.permutation(len(self))
        groups = [order[i : i + 50 * size] for i in range(0, len(self), 50 * size)]
        order = np.concatenate([group[np.argsort(self.lengths[group], kind="stable")] for group in groups])
        whole = len(self) // size * size  # an incomplete batch comes last
        batches = rng.permutation(order[:whole].reshape(-1, size))
        return iter([*batches.ravel().tolist(), *order[whole:].tolist()])


def _right(outputs: np.ndarray, labels: np.ndarray) -> np.ndarray:
    """Whether the label is right, shape (stays,); of two labels, whether both are."""
    if labels.ndim == 1:
        return outputs.argmax(-1) == labels
    base, severity = np.split(outputs, [-len(CC_LABELS)], axis=1)
    return (base.argmax(1) == labels[:, 0]) & (severity.argmax(1) == labels[:, 1])


_SCORES = {  # of outputs (stays, outputs) and labels (stays,) or (stays, 2): one number for each stay
    "accuracy": _right,
    "mean_absolute_error": lambda outputs, labels: np.abs(outputs[:, 0] - labels),
}


class _Trainer(checkpoints.Trainer):
    """Transformers' trainer, which takes the texts in the order of `sampler`, if there is one."""

    sampler: torch.utils.data.Sampler | None = None

    def _get_train_sampler(self, train_dataset=None):
        return self.sampler or super()._get_train_sampler(train_dataset)


def train(
    model,
    collate,
    data: TokenDataset,
    settings: NeuralSettings,
    folder: Path,
    seed: int,
    autocast: bool = False,
    validation: TokenDataset | None = None,
) -> dict:
    """Train `model` in place and return what it cost.

    Parameters
    ----------
    model : torch.nn.Module
        Takes a batch of `collate`; returns an object or a dict with ``loss`` and ``logits`` (batch, labels).
    collate : callable
        Makes a batch (dict of tensors) of a list of items of `data`.
    data : TokenDataset
        Training stays with labels. Where the labels are numbers, the model's one output is judged by its mean absolute
        error.
    settings : NeuralSettings
    folder : Path
        Where checkpoints live while training; a killed run goes on from the last one.
    seed : int
    autocast : bool
        Multiply in bfloat16 (float32 weights stay float32).
    validation : TokenDataset, optional
        Stays by which the best epoch is chosen; without them the last one counts, and nothing stops early.

    Returns
    -------
    dict
        ``train_seconds`` and how many of these are ``seconds_before_kill``; ``train_steps``, ``train_examples`` and
        ``train_tokens`` (without padding), counted over all processes; ``history``, the trainer's log, one dict for
        each entry with a loss or a validation score; and the number of ``processes``, if there are several.

    Raises
    ------
    StudyError
        If a checkpoint holds more than tensors and plain values, or the disk is full.
    """
    parts = [data] if validation is None else [data, validation]
    read = [x for part in parts for x in (part.input_ids, part.labels.tolist())]
    saved = checkpoints.place(folder, vars(settings), seed, *read)
    metric = "mean_absolute_error" if data.labels.dtype.kind == "f" else "accuracy"
    arguments = TrainingArguments(
        output_dir=str(saved),
        num_train_epochs=settings.epochs,
        per_device_train_batch_size=settings.batch_size,
        per_device_eval_batch_size=4 * settings.batch_size,
        learning_rate=settings.learning_rate,
        weight_decay=settings.weight_decay,
        lr_scheduler_type=settings.schedule,
        warmup_steps=settings.warmup,
        logging_steps=10,
        save_strategy="epoch" if validation else "steps",  # the trainer wants those of the epochs that it judges
        save_steps=settings.checkpoint_steps,
        save_total_limit=1,
        eval_strategy="epoch" if validation else "no",
        load_best_model_at_end=bool(validation),
        metric_for_best_model=metric if validation else None,
        greater_is_better=metric == "accuracy",
        seed=seed,
        bf16=autocast,
        use_cpu=not torch.cuda.is_available(),
        disable_tqdm=True,
        report_to="none",
        label_names=["labels"],
        remove_unused_columns=False,
        restore_callback_states_from_checkpoint=True,
        average_tokens_across_devices=False,  # a process's loss is a mean, and so is the processes' gradient
        ddp_timeout=86400,
    )
    arguments._n_gpu = 1  # further GPUs are for further processes, not for DataParallel
    trainer = _Trainer(
        model=model,
        args=arguments,
        data_collator=collate,
        train_dataset=data,
        eval_dataset=validation,
        compute_metrics=lambda p: {metric: float(_SCORES[metric](p.predictions, p.label_ids).mean())},
        preprocess_logits_for_metrics=lambda logits, labels: logits,
    )
    if settings.order == "by_length":
        together = settings.batch_size * arguments.world_size  # texts of one step, shared among the processes
        trainer.sampler = ByLength([len(ids) for ids in data.input_ids], together, seed)
    last, clock = checkpoints.last_whole(saved), checkpoints.Clock(saved)
    trainer.remove_callback(PrinterCallback)
    trainer.add_callback(clock)
    if validation:
        trainer.add_callback(checkpoints.Every(settings.checkpoint_steps))
    if validation and settings.patience:
        trainer.add_callback(EarlyStoppingCallback(settings.patience))
    try:
        result = trainer.train(resume_from_checkpoint=last and str(last))  # all of it read as weights_only
    except UnpicklingError:
        raise StudyError(f"{last} holds more than a checkpoint does; remove it, and the run begins again") from None
    several = {"processes": arguments.world_size} if arguments.world_size > 1 else {}
    return several | {
        "train_seconds": clock.seconds(),
        "seconds_before_kill": clock.seconds_before,
        "train_steps": result.global_step,
        "train_examples": round(trainer.state.epoch * len(data)),
        "train_tokens": round(trainer.state.epoch * sum(map(len, data.input_ids))),
        "history": [entry for entry in trainer.state.log_history if "loss" in entry or f"eval_{metric}" in entry],
    }


def trained(net) -> dict[str, torch.Tensor]:
    """The trained parameters by name, each whole on every process, even where FSDP leaves a process only a share."""
    learned = {name: part for name, part in net.state_dict(keep_vars=True).items() if part.requires_grad}
    return {name: getattr(part, "full_tensor", lambda part=part: part)().detach() for name, part in learned.items()}


def batches(collate, data: TokenDataset, tokens_per_batch: int) -> Iterator[tuple[np.ndarray, dict[str, torch.Tensor]]]:
    """Yield batches of texts of similar length, the longest first, on this process's device: their indices, and the batch."""
    order = np.argsort([len(ids) for ids in data.input_ids], kind="stable")[::-1]
    with progress(total=len(order), desc="predicting", unit="text") as bar:
        while len(order):
            size = max(1, tokens_per_batch // max(1, len(data.input_ids[order[0]])))
            rows, order = order[:size], order[size:]
            yield rows, {key: value.to(device()) for key, value in collate([data[i] for i in rows]).items()}
            bar.update(len(rows))


@torch.no_grad()
def predict(
    forward, collate, data: TokenDataset | list[list[int]] | np.ndarray, tokens_per_batch: int = 4096
) -> np.ndarray:
    """Apply `forward` to every text, in batches of similar length, and return the rows in the texts' order.

    Parameters
    ----------
    forward : callable
        Takes a batch of `collate` on the model's device, returns a tensor of shape (batch, columns).
    collate : callable
        As for `train`.
    data : TokenDataset, or what it takes as ``input_ids``
    tokens_per_batch : int
        Padded tokens in one batch.

    Returns
    -------
    numpy.ndarray of float32, shape (texts, columns)
    """
    data = data if isinstance(data, TokenDataset) else TokenDataset(data)
    made: dict[int, torch.Tensor] = {}
    for rows, batch in batches(collate, data, tokens_per_batch):
        made |= zip(rows, forward(batch).float().cpu(), strict=True)
    return torch.stack([made[i] for i in range(len(data))]).numpy()
