"""Attention in blocks against plain attention; `test_models.py` holds the whole model against PEFT."""

import pytest
import torch
from transformers.models.llama.modeling_llama import apply_rotary_pos_emb, repeat_kv

from drgstudy.models import fast_lora

TEXTS, HEADS, GROUPS, SIZE = 2, 6, 2, 8


def plain_attention(qkv, cos, sin, mask, scaling):
    q, k, v = (x.transpose(1, 2) for x in qkv.split([HEADS, GROUPS, GROUPS], 2))
    q, k = apply_rotary_pos_emb(q, k, cos, sin)
    k, v = (repeat_kv(x, HEADS // GROUPS) for x in (k, v))
    return ((q @ k.transpose(2, 3) * scaling + mask).softmax(-1) @ v).transpose(1, 2)


@pytest.mark.parametrize("side", ["right", "left"])
@pytest.mark.parametrize("tokens", [1, 7, 8, 19])  # blocks of 8: fewer, one, and several with an incomplete one
def test_attention_in_blocks_equals_plain_attention_and_its_gradient(monkeypatch, tokens, side):
    monkeypatch.setattr(fast_lora, "BLOCK", 8)
    torch.manual_seed(0)
    real = torch.ones(TEXTS, tokens, dtype=torch.bool)
    padding = slice(tokens - tokens // 3, None) if side == "right" else slice(0, tokens // 3)
    real[1, padding] = False
    seen = real[:, None, None] & torch.ones(tokens, tokens, dtype=torch.bool).tril()
    mask = torch.zeros(TEXTS, 1, tokens, tokens, dtype=torch.float64).masked_fill(~seen, torch.finfo(torch.float32).min)
    angles = torch.rand(TEXTS, tokens, SIZE // 2, dtype=torch.float64).repeat(1, 1, 2)
    cos, sin = angles.cos(), angles.sin()
    qkv = torch.randn(TEXTS, tokens, HEADS + 2 * GROUPS, SIZE, dtype=torch.float64, requires_grad=True)
    other = torch.randn(TEXTS, tokens, HEADS, SIZE, dtype=torch.float64) * real[:, :, None, None]  # padding is not read
    results = []
    for attend in (
        lambda: fast_lora._CausalAttention.apply(qkv, cos[:, :, None], sin[:, :, None], mask, GROUPS, 0.3),
        lambda: plain_attention(qkv, cos, sin, mask, 0.3),
    ):
        out = attend()
        results.append((out * real[:, :, None, None], *torch.autograd.grad((out * other).sum(), qkv)))
    for fast, plain in zip(*results, strict=True):
        assert plain.abs().max() > 0
        torch.testing.assert_close(fast, plain, rtol=1e-9, atol=1e-11)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_both_halves_of_the_dropout_mask_keep_the_rate_and_are_independent(dtype):
    torch.manual_seed(0)
    mask = fast_lora._keep_mask(torch.ones(1000, 1000, dtype=dtype), 0.25)
    assert mask.dtype == dtype and mask.unique().tolist() == [0, pytest.approx(4 / 3, rel=2e-3)]
    first, second = (mask == 0).view(2, -1)
    for share, expected in ((first, 1 / 4), (second, 1 / 4), (first & second, 1 / 16)):
        assert share.float().mean() == pytest.approx(expected, abs=3e-3)


def test_norm_equals_transformers_in_output_and_gradient():
    from transformers.models.llama.modeling_llama import LlamaRMSNorm

    torch.manual_seed(0)
    norm = LlamaRMSNorm(16)
    norm.weight.data.uniform_(0.5, 2)
    x, other = torch.randn(3, 5, 16, requires_grad=True), torch.randn(3, 5, 16)
    results = []
    for apply in (lambda: fast_lora._RMSNorm.apply(x, norm.weight, norm.variance_epsilon), lambda: norm(x)):
        out = apply()
        results.append((out, *torch.autograd.grad((out * other).sum(), x)))
    for fast, plain in zip(*results, strict=True):
        torch.testing.assert_close(fast, plain, rtol=1e-5, atol=1e-6)
