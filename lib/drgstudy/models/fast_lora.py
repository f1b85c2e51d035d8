"""LLaMA with LoRA, computed faster on a CPU: the same function, fewer and larger operations.

In PEFT's LoRA under autocast most of a small model's step is not its matrix products: the backward pass of the fused
attention kernel, the dropout masks, dozens of thin products, and casts. `accelerate_on_cpu` replaces the forward pass
of a PEFT model's attention blocks and norms in place. Parameters stay where PEFT keeps them, so saving and loading
are PEFT's own; a test holds outputs and gradients against the unaccelerated model.
"""

from __future__ import annotations

import types

import torch
from transformers.models.llama.modeling_llama import LlamaAttention, LlamaRMSNorm


def _keep_mask(x: torch.Tensor, dropout: float) -> torch.Tensor:
    """Inverted-dropout mask from random bytes; the rate is rounded to a multiple of 1/256 (torch draws 32 bits each)."""
    cut = round(dropout * 256)
    draws = torch.randint(-(2**63), 2**63 - 1, (x.numel() // 8 + 1,)).view(torch.uint8)[: x.numel()].view_as(x)
    return (draws >= cut).to(x.dtype).mul_(256 / (256 - cut))


class _LoraLinear(torch.autograd.Function):
    """y = x Wᵀ + (x ∘ mask) Aᵀ Bᵀ with W frozen; A and B may hold the adapters of several projections of one x."""

    @staticmethod
    def forward(ctx, x, weight, a, b, mask):
        hidden = (x if mask is None else x * mask) @ a.T
        ctx.save_for_backward(x, hidden, weight, a, b, mask)
        return (x @ weight.T).addmm_(hidden, b.T)

    @staticmethod
    def backward(ctx, grad):
        x, hidden, weight, a, b, mask = ctx.saved_tensors
        grad_hidden = grad @ b
        grad_x = None
        if ctx.needs_input_grad[0]:
            low = grad_hidden @ a
            grad_x = (grad @ weight).add_(low if mask is None else low.mul_(mask))
        masked = x if mask is None else x * mask
        return grad_x, None, grad_hidden.T @ masked, grad.T @ hidden, None


class _RMSNorm(torch.autograd.Function):
    """Root-mean-square norm in float32 with a frozen weight; keeps one number a token for the backward pass."""

    @staticmethod
    def forward(ctx, x, weight, eps):
        wide = x.float()
        scale = torch.rsqrt(wide.square().mean(-1, keepdim=True) + eps)
        ctx.save_for_backward(x, scale, weight)
        return (wide * scale).to(x.dtype) * weight

    @staticmethod
    def backward(ctx, grad):
        x, scale, weight = ctx.saved_tensors
        grad, normed = (grad * weight).float(), x.float() * scale
        return ((grad - normed * (grad * normed).mean(-1, keepdim=True)) * scale).to(x.dtype), None, None


def _lora(x: torch.Tensor, weight: torch.Tensor, projections: list) -> torch.Tensor:
    name = projections[0].active_adapters[0]
    dropout = getattr(projections[0].lora_dropout[name], "p", 0.0)
    a = torch.cat([p.lora_A[name].weight for p in projections]).to(x.dtype)
    b = torch.block_diag(*(p.lora_B[name].weight * p.scaling[name] for p in projections)).to(x.dtype)
    mask = _keep_mask(x, dropout) if projections[0].training and dropout else None
    return _LoraLinear.apply(x, weight, a, b, mask)


def _attention(self, hidden_states, position_embeddings=None, attention_mask=None, **_):
    batch, length, _width = hidden_states.shape
    heads, groups = self.config.num_attention_heads, self.config.num_key_value_heads
    x = hidden_states.reshape(batch * length, -1)
    qkv = _lora(x, self.qkv_weight, [self.q_proj, self.k_proj, self.v_proj])
    qkv = qkv.view(batch, length, -1, self.head_dim).transpose(1, 2)
    qk, (cos, sin) = qkv[:, : heads + groups], position_embeddings
    half = self.head_dim // 2
    rotated = torch.cat((-qk[..., half:], qk[..., :half]), -1)
    qk = qk * cos[:, None] + rotated * sin[:, None]
    # The query heads of one group share a key head: one product per group, no repeated keys.
    q = (qk[:, :heads] * self.scaling).reshape(batch * groups, -1, self.head_dim)
    k = qk[:, heads:].reshape(batch * groups, length, self.head_dim)
    v = qkv[:, heads + groups :].reshape(batch * groups, length, self.head_dim)
    scores = torch.bmm(q, k.transpose(1, 2)).view(batch, heads, length, length)
    scores = scores + attention_mask
    mixed = torch.bmm(scores.softmax(-1).view(batch * groups, -1, length), v)
    mixed = mixed.view(batch, heads, length, self.head_dim).transpose(1, 2).reshape(batch * length, -1)
    return _lora(mixed, self.o_proj.base_layer.weight, [self.o_proj]).view(batch, length, -1), None


def accelerate_on_cpu(model) -> bool:
    """Replace, in place, the forward passes of a PEFT LLaMA's attention blocks and norms by faster equal ones.

    Returns
    -------
    bool
        False, with nothing changed, if the model is not a LLaMA with plain LoRA on q, k, v and o of every layer.
    """
    blocks = [m for m in model.modules() if isinstance(m, LlamaAttention)]
    projections = [getattr(block, name) for block in blocks for name in ("q_proj", "k_proj", "v_proj", "o_proj")]
    if not blocks or not all(hasattr(p, "lora_A") and p.base_layer.bias is None for p in projections):
        return False
    for block in blocks:
        weights = [p.base_layer.weight for p in (block.q_proj, block.k_proj, block.v_proj)]
        block.qkv_weight = torch.cat(weights).detach()
        block.forward = types.MethodType(_attention, block)
    for norm in (m for m in model.modules() if isinstance(m, LlamaRMSNorm)):
        norm.forward = types.MethodType(lambda self, x: _RMSNorm.apply(x, self.weight, self.variance_epsilon), norm)
    model.config._attn_implementation = "eager"  # so that transformers builds the additive mask that `_attention` adds
    return True
