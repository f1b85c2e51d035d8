"""From the hidden states of a text's tokens to one vector, which a head reads."""

from __future__ import annotations

import torch


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
