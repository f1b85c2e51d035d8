"""LLaMA with LoRA, computed faster: the same function in fewer and larger operations.

On a CPU, a training step of a small model with PEFT's LoRA under autocast spends most of its time outside the model's
matrix products: in the backward pass of the fused attention kernel, in dropout masks, in dozens of thin products and in
casts. `accelerate_on_cpu` gives the blocks and norms of a PEFT model other forward passes, in place, with backward
passes of their own; `accelerate_on_gpu` does what helps on a GPU. Parameters stay where PEFT keeps them, so PEFT itself saves and
loads them. Tests compare outputs and gradients with those of the plain model.

Shapes: the query heads of a layer fall into `groups` that share a key head and a value head; `size` is a head's width,
`rank` LoRA's, and `rows` are batch * tokens.
"""

from __future__ import annotations

import types

import torch
from peft.tuners.lora import LoraLayer
from torch.nn.functional import linear, rms_norm, silu
from torch.utils.checkpoint import checkpoint
from transformers.models.llama.modeling_llama import LlamaAttention, LlamaMLP, LlamaRMSNorm

BLOCK = 128  # queries whose attention is computed at once


def _keep_mask(x: torch.Tensor, dropout: float) -> torch.Tensor:
    """Inverted-dropout mask like `x` from one random byte for each number, where torch draws four.

    The dropout rate is rounded to a multiple of 1/256.
    """
    cut = round(dropout * 256)
    draws = torch.randint(-(2**63), 2**63 - 1, (x.numel() // 8 + 1,)).view(torch.int16)
    draws = torch.cat([draws, draws << 8])[: x.numel()].view_as(x)  # the high byte decides, then the low one
    return draws.ge_(256 * cut - 2**15).to(x.dtype).mul_(256 / (256 - cut))  # in place, for bools convert slowly


class _LoraLinear(torch.autograd.Function):
    """y = x Wᵀ + (x ∘ mask) Aᵀ Bᵀ with W frozen; A and B may hold the adapters of several projections of one x.

    x and mask are (rows, inputs), W is (outputs, inputs), A (rank, inputs), B (outputs, rank); rank is that of all.
    """

    @staticmethod
    def forward(ctx, x, weight, a, b, mask):
        hidden = (x if mask is None else x * mask) @ a.T  # (rows, rank)
        ctx.save_for_backward(x, hidden, weight, a, b, mask)
        return (x @ weight.T).addmm_(hidden, b.T)  # (rows, outputs)

    @staticmethod
    def backward(ctx, grad):
        x, hidden, weight, a, b, mask = ctx.saved_tensors
        grad_hidden = grad @ b  # (rows, rank)
        grad_x = None
        if ctx.needs_input_grad[0]:
            low = grad_hidden @ a  # (rows, inputs)
            grad_x = (grad @ weight).add_(low if mask is None else low.mul_(mask))
        masked = x if mask is None else x * mask
        return grad_x, None, grad_hidden.T @ masked, grad.T @ hidden, None


class _RMSNorm(torch.autograd.Function):
    """Root-mean-square norm in float32, with a frozen weight; keeps one number for each token beside its input."""

    @staticmethod
    def forward(ctx, x, weight, eps):
        length = torch.linalg.vector_norm(x, dim=-1, keepdim=True, dtype=torch.float32)  # (batch, tokens, 1)
        scale = length.square_().div_(x.shape[-1]).add_(eps).rsqrt_()
        ctx.save_for_backward(x, scale, weight)
        return (x * scale).to(x.dtype).mul_(weight)

    @staticmethod
    def backward(ctx, grad):
        x, scale, weight = ctx.saved_tensors
        grad, normed = (grad * weight).float(), x.float() * scale
        grad.addcmul_(normed, (grad * normed).mean(-1, keepdim=True), value=-1)
        return grad.mul_(scale).to(x.dtype), None, None


class _GatedSiLU(torch.autograd.Function):
    """silu(gate) ∘ up; keeps only these two inputs, so the backward pass computes silu(gate) again."""

    @staticmethod
    def forward(ctx, gate, up):
        ctx.save_for_backward(gate, up)
        return silu(gate).mul_(up)

    @staticmethod
    def backward(ctx, grad):
        gate, up = ctx.saved_tensors
        return torch.ops.aten.silu_backward(grad * up, gate), silu(gate).mul_(grad)


def _rotate(x: torch.Tensor, cos: torch.Tensor, sin: torch.Tensor) -> torch.Tensor:
    """Rotary positions: x is (batch, tokens, heads, size), cos and sin are (batch or 1, tokens, 1, size)."""
    half = x.shape[-1] // 2
    return (x * cos).addcmul_(torch.cat((-x[..., half:], x[..., :half]), -1), sin)


def _by_group(x: torch.Tensor, groups: int) -> torch.Tensor:
    """(batch, tokens, heads, size) -> (batch * groups, tokens * each, size), with `each` the heads of one group."""
    return x.unflatten(2, (groups, -1)).transpose(1, 2).reshape(len(x) * groups, -1, x.shape[-1])


def _by_token(x: torch.Tensor, groups: int, tokens: int) -> torch.Tensor:
    """The way back from `_by_group`: (batch * groups, tokens * each, size) -> (batch, tokens, heads, size)."""
    return x.view(len(x) // groups, groups, tokens, -1, x.shape[-1]).transpose(1, 2).flatten(2, 3)


class _CausalAttention(torch.autograd.Function):
    """Grouped-query attention with rotary positions, in blocks of queries; a block meets no key beyond its last token.

    So nearly half of the tokens * tokens scores of a long text are never computed. The query heads that share a key
    head are rows of one product. `qkv` is (batch, tokens, heads + 2 * groups, size); `cos` and `sin` are as in
    `_rotate`; `mask`, added to the scores, is (batch, 1, tokens, tokens). The result is (batch, tokens, heads, size).
    """

    @staticmethod
    def forward(ctx, qkv, cos, sin, mask, groups, scaling):
        texts, tokens, heads, _size = qkv.shape  # heads of queries, keys and values together
        each = heads // groups - 2  # query heads that share a key head
        qk, v = _rotate(qkv[:, :, :-groups], cos, sin), _by_group(qkv[:, :, -groups:], groups)
        q, k = _by_group(qk[:, :, :-groups] * scaling, groups), _by_group(qk[:, :, -groups:], groups)
        shares, mixed = [], []
        for start in range(0, tokens, BLOCK):  # q is (batch * groups, tokens * each, size), k and v have each = 1
            end = min(start + BLOCK, tokens)
            scores = torch.bmm(q[:, start * each : end * each], k[:, :end].transpose(1, 2))
            scores.view(texts, groups, end - start, each, end).add_(mask[:, :, start:end, None, :end])
            shares.append(scores.softmax(-1))  # (batch * groups, (end - start) * each, end)
            mixed.append(torch.bmm(shares[-1], v[:, :end]))  # (batch * groups, (end - start) * each, size)
        ctx.save_for_backward(q, k, v, cos, sin, *shares)
        ctx.groups, ctx.scaling = groups, scaling
        return _by_token(torch.cat(mixed, 1), groups, tokens)

    @staticmethod
    def backward(ctx, grad):
        q, k, v, cos, sin, *shares = ctx.saved_tensors
        tokens, grad, row = grad.shape[1], _by_group(grad, ctx.groups), 0
        grad_q, grad_k, grad_v = [], torch.zeros_like(k), torch.zeros_like(v)
        for share in shares:
            rows, end = slice(row, row + share.shape[1]), share.shape[2]
            row = rows.stop
            grad_v[:, :end].baddbmm_(share.transpose(1, 2), grad[:, rows])
            grad_share = torch.bmm(grad[:, rows], v[:, :end].transpose(1, 2))  # as share
            grad_scores = torch._softmax_backward_data(grad_share, share, -1, share.dtype)
            grad_q.append(torch.bmm(grad_scores, k[:, :end]))  # (batch * groups, rows of share, size)
            grad_k[:, :end].baddbmm_(grad_scores.transpose(1, 2), q[:, rows])
        grads = torch.cat(grad_q, 1).mul_(ctx.scaling), grad_k, grad_v
        grad_q, grad_k, grad_v = (_by_token(x, ctx.groups, tokens) for x in grads)
        # The transpose of a rotation is the rotation back.
        grad_qk = _rotate(torch.cat([grad_q, grad_k], 2), cos, -sin)  # (batch, tokens, heads + groups, size)
        return torch.cat([grad_qk, grad_v], 2), None, None, None, None, None


def _lora(x: torch.Tensor, weight: torch.Tensor, projections: list) -> torch.Tensor:
    """Outputs (rows, outputs) of several projections of x (rows, inputs), whose weights `weight` stacks; PEFT's, or plain."""
    if not isinstance(projections[0], LoraLayer):
        return x @ weight.T
    name = projections[0].active_adapters[0]
    dropout = getattr(projections[0].lora_dropout[name], "p", 0.0)
    a = torch.cat([p.lora_A[name].weight for p in projections]).to(x.dtype)  # (projections * rank, inputs)
    b = torch.block_diag(*(p.lora_B[name].weight * p.scaling[name] for p in projections)).to(x.dtype)
    mask = _keep_mask(x, dropout) if projections[0].training and dropout else None
    return _LoraLinear.apply(x, weight, a, b, mask)


def _weight(projection) -> torch.Tensor:
    return getattr(projection, "base_layer", projection).weight


def _attention(self, hidden_states, position_embeddings=None, attention_mask=None, **_):
    batch, length, _width = hidden_states.shape
    x = hidden_states.reshape(batch * length, -1)  # (rows, hidden)
    qkv = _lora(x, self.qkv_weight, [self.q_proj, self.k_proj, self.v_proj])
    qkv = qkv.view(batch, length, -1, self.head_dim)  # (batch, tokens, heads + 2 * groups, size)
    cos, sin = (x.unsqueeze(2) for x in position_embeddings)
    mixed = _CausalAttention.apply(qkv, cos, sin, attention_mask, self.config.num_key_value_heads, self.scaling)
    mixed = mixed.reshape(batch * length, -1)  # (rows, heads * size)
    return _lora(mixed, _weight(self.o_proj), [self.o_proj]).view(batch, length, -1), None


def _norm(self, x):
    return _RMSNorm.apply(x, self.weight, self.variance_epsilon)


def _mlp(self, x):
    return self.down_proj(_GatedSiLU.apply(self.gate_proj(x), self.up_proj(x)))


def _replace(model, norm, mlp) -> None:
    for module in model.modules():
        for kind, forward in ((LlamaRMSNorm, norm), (LlamaMLP, mlp)):
            if isinstance(module, kind):
                module.forward = types.MethodType(forward, module)


def accelerate_on_cpu(model) -> bool:
    """Replace, in place, the forward passes of a PEFT LLaMA's blocks and norms by faster ones with equal results.

    Returns
    -------
    bool
        False, with nothing changed, if the model is not a LLaMA with plain LoRA on q, k, v and o of its tuned layers.
    """
    blocks = [m for m in model.modules() if isinstance(m, LlamaAttention)]
    groups = [[getattr(block, name) for name in ("q_proj", "k_proj", "v_proj", "o_proj")] for block in blocks]
    tuned = {p for group in groups if all(isinstance(p, LoraLayer) for p in group) for p in group}
    alike = tuned == {m for m in model.modules() if isinstance(m, LoraLayer)}
    plain = alike and all(getattr(p, "base_layer", p).bias is None for group in groups for p in group)
    if not blocks or not plain or model.config.hidden_act != "silu":
        return False
    for block in blocks:
        block.qkv_weight = torch.cat([_weight(p) for p in (block.q_proj, block.k_proj, block.v_proj)]).detach()
        block.forward = types.MethodType(_attention, block)
    _replace(model, _norm, _mlp)
    model.config._attn_implementation = "eager"  # so that transformers builds the additive mask that `_attention` adds
    return True


def _thin(self, x):
    return linear(x, self.weight.to(x.dtype))


def _fused_norm(self, x):
    return rms_norm(x, self.weight.shape, self.weight, self.variance_epsilon)


def _recomputed_mlp(self, x):
    def gated(gate, up):
        return self.act_fn(gate) * up

    kept = checkpoint(gated, self.gate_proj(x), self.up_proj(x), use_reentrant=False, preserve_rng_state=False)
    return self.down_proj(kept)


def accelerate_on_gpu(model) -> None:
    """Make a PEFT LLaMA cheaper on a GPU, outside its matrix products, in place and without changing its function.

    LoRA's float32 weights are cast to the type of the hidden states, instead of these to float32. The norm is torch's
    fused one. The activation of an MLP is computed again in the backward pass, which is cheaper than keeping it.
    """
    for module in model.modules():
        if isinstance(module, LoraLayer):
            module.cast_input_dtype_enabled = False
            for thin in (*module.lora_A.values(), *module.lora_B.values()):
                thin.forward = types.MethodType(_thin, thin)
        if hasattr(module, "support_avx512bf16_for_cpu"):
            module.support_avx512bf16_for_cpu = False  # bitsandbytes' packing on a CPU stops the gradients
    _replace(model, _fused_norm, _recomputed_mlp)
