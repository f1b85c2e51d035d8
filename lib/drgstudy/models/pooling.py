"""From the hidden states of a text's tokens to one vector, which a head reads."""

from __future__ import annotations

import torch


def pool(hidden: torch.Tensor, mask: torch.Tensor, how: str) -> torch.Tensor:
    """One vector for each text from the hidden states: the last real token's, or the mean over real tokens.

    Parameters
    ----------
    hidden : torch.Tensor of float, shape (batch, tokens, hidden)
    mask : torch.Tensor of int, shape (batch, tokens)
        1 for real tokens, 0 for padding, which may be on either side.
    how : {"last", "mean"}

    Returns
    -------
    torch.Tensor of float32, shape (batch, hidden)
    """
    if how == "last":
        last = (torch.arange(mask.shape[1], device=mask.device) * mask).argmax(-1)  # (batch,)
        return hidden[torch.arange(len(hidden), device=hidden.device), last].float()
    kept = mask.unsqueeze(-1)  # (batch, tokens, 1)
    return (hidden.float() * kept).sum(1) / kept.sum(1)
