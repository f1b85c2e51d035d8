"""What a killed training leaves, and how the next one goes on from it, with its progress and its time.

Nothing here shapes what is learned, so this module is no part of a training's key (`runs.SHAPES`).
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import time
from pathlib import Path

import transformers

from drgstudy.study import StudyError, progress, rank, read_json, room_for, write_json


class Trainer(transformers.Trainer):
    """Transformers' trainer; on a full disk it raises StudyError and leaves no incomplete checkpoint."""

    def _save_checkpoint(self, model, trial):
        folder = Path(self.args.output_dir, f"checkpoint-{self.state.global_step}")
        try:
            with room_for(folder):
                super()._save_checkpoint(model, trial)
        except StudyError:
            shutil.rmtree(folder, ignore_errors=True)
            raise


class Clock(transformers.TrainerCallback):
    """One progress bar over all steps; saves the seconds spent, so that a resumed run's cost counts all of them."""

    def __init__(self, checkpoints: Path):
        file = checkpoints / "seconds.json"
        self.seconds_before = read_json(file) if file.exists() else 0.0

    def on_train_begin(self, args, state, control, **kwargs):
        self.start = time.perf_counter()
        self.bar = progress(total=state.max_steps, initial=state.global_step, desc="training", unit="step")

    def seconds(self) -> float:
        return self.seconds_before + time.perf_counter() - self.start

    def on_save(self, args, state, control, **kwargs):
        write_json(Path(args.output_dir) / "seconds.json", self.seconds())

    def on_step_end(self, args, state, control, **kwargs):
        self.bar.update()

    def on_log(self, args, state, control, logs=None, **kwargs):
        if logs and "loss" in logs:
            self.bar.set_postfix(loss=f"{float(logs['loss']):.3f}", refresh=False)  # the bar decides when

    def on_train_end(self, args, state, control, **kwargs):
        self.bar.close()


class Every(transformers.TrainerCallback):
    """Has a checkpoint saved after each so many steps, beside those that the trainer saves when it has judged an epoch."""

    def __init__(self, steps: int):
        self.steps = steps

    def on_step_end(self, args, state, control, train_dataloader, **kwargs):
        judged = state.global_step % len(train_dataloader) == 0 or state.global_step == state.max_steps
        control.should_save |= state.global_step % self.steps == 0 and not judged


def place(folder: Path, *what) -> Path:
    """The folder for the checkpoints of exactly this training; removes those of any other in the same folder.

    Parameters
    ----------
    folder : Path
        The run's own.
    *what
        All that identifies the training, as JSON values and NumPy arrays. The number of processes is added.
    """
    processes = filter(None, [os.environ.get("WORLD_SIZE")])
    text = json.dumps(
        [*what, *processes], default=lambda array: [array.shape, hashlib.sha256(array.tobytes()).hexdigest()]
    )
    chosen = folder / f"checkpoints-{hashlib.sha256(text.encode()).hexdigest()[:12]}"
    for other in folder.glob("checkpoints-*"):
        if other != chosen and not rank():
            shutil.rmtree(other)
    return chosen


def last_whole(checkpoints: Path) -> Path | None:
    """The last checkpoint that was saved completely; None if there is none."""
    whole = filter(_is_whole, checkpoints.glob("checkpoint-*"))
    return max(whole, key=lambda folder: int(folder.name.rpartition("-")[2]), default=None)


def _is_whole(checkpoint: Path) -> bool:
    """Whether the trainer's state, the last file of a checkpoint, is there; if not, a kill came while it was saved."""
    try:
        return bool(read_json(checkpoint / "trainer_state.json"))
    except StudyError:
        return False
