"""What the frozen layers of a language model make of texts: computed once, kept in files, read by every epoch and run.

A causal model's state at a token does not depend on the tokens after it. So the first 32 states of a text are those of
the text cut after 32 tokens, and what is kept of a text serves each of its cuts that were asked for. Texts are known by
a digest of their tokens; the tokens themselves are not kept.
"""

from __future__ import annotations

import copy
import hashlib
import json
import shutil
from pathlib import Path

import numpy as np
import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file

from drgstudy.provenance import relative
from drgstudy.study import StudyError, atomic

TEXTS = 256
"""Texts in one file. A killed pass goes on after the last whole one."""


class _Skipped(torch.nn.Module):
    def forward(self, hidden, *_, **__):
        return hidden


def _digest(ids: list[int]) -> int:
    return int.from_bytes(hashlib.sha256(np.array(ids, "<i4")).digest()[:8], "little", signed=True)


def divided(decoder: torch.nn.Module, below: int) -> tuple[torch.nn.Module, torch.nn.Module]:
    """A decoder's first `below` layers without the norm, and the others, which read embeddings; both share its weights.

    Raises
    ------
    StudyError
        If one after the other does not do what the whole decoder does.
    """
    lower, upper = copy.copy(decoder), copy.copy(decoder)
    skipped = [_Skipped() for _ in range(below)]  # a decoder may ask a layer's number what kind of layer it is
    lower._modules = decoder._modules | {"layers": decoder.layers[:below], "norm": torch.nn.Identity()}
    upper._modules = decoder._modules | {"layers": torch.nn.ModuleList([*skipped, *decoder.layers[below:]])}
    with torch.no_grad():
        ids = torch.arange(8, device=decoder.device)[None]
        whole = decoder(ids, use_cache=False).last_hidden_state
        states = lower(ids, use_cache=False).last_hidden_state
        apart = upper(inputs_embeds=states, use_cache=False).last_hidden_state
    if not torch.allclose(apart, whole, rtol=1e-3, atol=1e-3):
        raise StudyError(f"setting tuned_layers: {decoder.config.model_type} can't be divided; leave it out")
    return lower, upper


class Kept:
    """The texts whose states lie in some folders, and these states.

    Parameters
    ----------
    of : dict
        What made the states, as JSON values. Files that something else made are passed over.
    layers, tokens : int
        The reader's depth, and after how many tokens it cuts its texts.
    below : int
        Number of layers below those that the reader tunes; 0 if it reads no states, but only pooled ones.
    """

    def __init__(self, of: dict, layers: int, tokens: int, below: int):
        self.of, self.cut, self.below = of, [layers, tokens], below
        self.places: dict[
            int, tuple
        ] = {}  # by a text's digest: the file, its first row of states, its row of pooled states

    def open(self, folder: Path) -> Kept:
        """Take in the files of a folder, if there is one, and return this object."""
        for file in sorted(folder.glob("[0-9]*.safetensors")):
            try:
                kept = safe_open(file, "pt")
            except SafetensorError as error:
                raise StudyError(
                    f"{relative(file)} can't be read ({error}); remove its folder and its run's run.json"
                ) from None
            about = json.loads(kept.metadata()["about"])
            if about["of"] == self.of and self.cut in about["cuts"] and self.below in (0, about["below"]):
                cut = about["cuts"].index(self.cut)
                texts, starts = kept.get_tensor("texts")[:, cut].tolist(), kept.get_tensor("starts").tolist()
                for row, (text, start) in enumerate(zip(texts, starts, strict=True)):
                    self.places[text] = kept, start, (row, cut)
        return self

    def __contains__(self, ids: list[int]) -> bool:
        return _digest(ids) in self.places

    def states(self, ids: list[int]) -> torch.Tensor:
        """What the tuned layers read of a text, shape (tokens, hidden)."""
        kept, start, _ = self.places[_digest(ids)]
        return kept.get_slice("states")[start : start + len(ids)]

    def pooled(self, texts: list[list[int]]) -> torch.Tensor:
        """What a head reads of each text, float32, shape (texts, hidden)."""
        found = [self.places[_digest(ids)] for ids in texts]
        return torch.stack([kept.get_slice("pooled")[place] for kept, _, place in found])


def refuse_too_large(folder: Path, tokens: int, width: int, dtype: torch.dtype) -> None:
    """Raise StudyError if the states of so many tokens, each of `width` numbers, do not fit the disk."""
    needed, free = tokens * width * dtype.itemsize, shutil.disk_usage(folder).free
    if needed > free:
        raise StudyError(
            f"setting tuned_layers: the frozen layers' states of these texts take {needed / 1e9:,.0f} GB, and {relative(folder)} "
            f"has {free / 1e9:,.0f} GB left; free some, or set 0, and all layers are tuned"
        )


def save(
    folder: Path, about: dict, ids: list[list[int]], states: list[torch.Tensor | None], pooled: list[torch.Tensor]
) -> None:
    """Write one more file of texts.

    Parameters
    ----------
    folder : Path
    about : dict
        ``of`` and ``below``, as for `Kept`, and ``cuts``, the [layers, tokens] of each pooled state.
    ids : list of list of int
    states : list of torch.Tensor, shape (tokens, hidden)
        For each text, what the layers below the tuned ones hand on; None, if nobody reads that.
    pooled : list of torch.Tensor of float32, shape (cuts, hidden)
    """
    tensors = (
        {
            "texts": torch.tensor(
                [[_digest(row[:tokens]) for _, tokens in about["cuts"]] for row in ids]
            ),  # (texts, cuts)
            "starts": torch.tensor([0, *(len(row) for row in ids[:-1])]).cumsum(0),
            "pooled": torch.stack(pooled),
        }
        | ({} if states[0] is None else {"states": torch.cat(states)})
    )
    folder.mkdir(parents=True, exist_ok=True)
    last = max((int(file.stem) for file in folder.glob("[0-9]*.safetensors")), default=-1)
    with atomic(folder / f"{last + 1:04}.safetensors") as beside:
        save_file(tensors, beside, {"about": json.dumps(about)})
