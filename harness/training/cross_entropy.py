"""Cross-entropy of labels, in chunks, so that few logits exist at any time.

The gradient with respect to the hidden states (and to the head, where it is trained) is computed
with a chunk's logits, and nothing of the vocabulary's size is saved for the backward pass.

Shapes: N labels, C of a chunk, D hidden size, V vocabulary.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable

CHUNK_LOGITS = {"cpu": 2**23, "cuda": 2**26}
"""Logits of a chunk: 262 or 2097 rows of a vocabulary of 32,000, 34 or 268 MB in fp32. On a CPU
half as many are slower (the head's product runs at 39 instead of 61 GFLOP/s), twice as many are not
faster."""
ROWS = 16
"""Least rows of logits that a CPU takes through the softmax together: they stay in its cache."""
HALF_SCALE = 1024.0
"""Scale of the logits' gradients in fp16, divided out of the products at once."""


class _SummedCrossEntropy(torch.autograd.Function):
    @staticmethod
    def forward(
        context: Any,
        hidden_ND: Tensor,
        weight_VD: Tensor,
        bias_V: Tensor | None,
        labels_N: Tensor,
        soft_cap: float | None,
    ) -> Tensor:
        dtype = _compute_dtype(hidden_ND, weight_VD)
        wants = [context.needs_input_grad[index] for index in range(3)]
        head_VD = weight_VD.to(dtype)
        # In fp16 what is under 6e-8 would be lost before the loss' own scale can reach it.
        scale = HALF_SCALE if dtype == torch.float16 else 1.0
        kept = torch.float32 if dtype == torch.float16 else hidden_ND.dtype
        hidden_gradient = torch.empty_like(hidden_ND, dtype=kept) if wants[0] else None
        weight_gradient = torch.zeros_like(weight_VD, dtype=torch.float32) if wants[1] else None
        bias_gradient = torch.zeros(len(weight_VD), device=weight_VD.device) if wants[2] else None
        losses = []
        size = max(1, CHUNK_LOGITS.get(hidden_ND.device.type, 2**23) // len(weight_VD))
        # One buffer for all chunks, of either: fresh memory costs a CPU more than the exponentials.
        buffer = hidden_ND.new_empty(min(size, len(labels_N)), len(weight_VD), dtype=torch.float32)
        product_VD = head_VD.new_empty(head_VD.shape) if wants[1] else None
        for start in range(0, len(labels_N), size):
            rows = slice(start, start + size)
            states_CD, labels_C1 = hidden_ND[rows].to(dtype), labels_N[rows, None]
            logits_CV, slopes_CV = _logits(states_CD, head_VD, bias_V, soft_cap, buffer)
            losses.append(_losses(logits_CV, labels_C1, gradient=any(wants)))
            if not any(wants):
                continue
            if slopes_CV is not None:
                logits_CV *= slopes_CV
            gradient_CV = (logits_CV if scale == 1 else logits_CV * scale).to(dtype)
            if hidden_gradient is not None:
                hidden_gradient[rows] = _unscaled(gradient_CV @ head_VD, scale)
            if weight_gradient is not None:
                product_VD = torch.mm(gradient_CV.T, states_CD, out=product_VD)
                weight_gradient += _unscaled(product_VD, scale)
            if bias_gradient is not None:
                total_V = gradient_CV.sum(dim=0, dtype=torch.float32)
                bias_gradient += _unscaled(total_V, scale)
        context.save_for_backward(hidden_gradient, weight_gradient, bias_gradient)
        context.dtypes = [
            None if tensor is None else tensor.dtype for tensor in (hidden_ND, weight_VD, bias_V)
        ]
        return torch.stack(losses).sum()

    @staticmethod
    @once_differentiable
    def backward(context: Any, gradient: Tensor) -> tuple[Tensor | None, ...]:
        found = [
            None if kept is None else kept.mul_(gradient).to(dtype)
            for kept, dtype in zip(context.saved_tensors, context.dtypes, strict=True)
        ]
        return (*found, None, None)


def _logits(
    states_CD: Tensor, head_VD: Tensor, bias_V: Tensor | None, cap: float | None, buffer: Tensor
) -> tuple[Tensor, Tensor | None]:
    """The logits, in the buffer, and the derivative of the soft cap at each."""
    logits_CV = buffer[: len(states_CD)]
    if head_VD.dtype == buffer.dtype and bias_V is None and cap is None:
        torch.mm(states_CD, head_VD.T, out=logits_CV)
        return logits_CV, None
    # In the precision and the order of operations of the model's own forward pass.
    own_CV = states_CD @ head_VD.T
    if bias_V is not None:
        own_CV += bias_V.to(own_CV.dtype)
    if cap is None:
        return logits_CV.copy_(own_CV), None
    own_CV = torch.tanh(own_CV / cap) * cap
    logits_CV.copy_(own_CV)
    return logits_CV, 1 - (logits_CV / cap).square()


def _losses(logits_CV: Tensor, labels_C1: Tensor, *, gradient: bool) -> Tensor:
    """The sum of the losses; the logits turn, in place, into their gradient where it is asked."""
    count = max(1, len(logits_CV) // ROWS) if logits_CV.device.type == "cpu" else 1
    found = []
    parts = zip(logits_CV.tensor_split(count), labels_C1.tensor_split(count), strict=True)
    for part_CV, part_C1 in parts:
        part_CV -= part_CV.amax(dim=1, keepdim=True)
        chosen_C1 = part_CV.gather(1, part_C1)
        sums_C1 = part_CV.exp_().sum(dim=1, keepdim=True)
        found.append((sums_C1, chosen_C1))
        if gradient:
            part_CV /= sums_C1
            part_CV.scatter_add_(1, part_C1, torch.full_like(chosen_C1, -1.0))
    sums_C1, chosen_C1 = found[0] if count == 1 else map(torch.cat, zip(*found, strict=True))
    return (sums_C1.log() - chosen_C1).sum()


def summed_cross_entropy(
    head: nn.Module, hidden_ND: Tensor, labels_N: Tensor, *, soft_cap: float | None
) -> Tensor:
    """The sum of the labels' cross-entropies, fp32, in nats.

    The softmax is fp32 whatever the precision of the head.

    Args:
        head: from hidden states to logits; any other class than nn.Linear is called, once.
        hidden_ND: the hidden states at the tokens before the labels.
        labels_N: token ids; at least one.
        soft_cap: bounds the logits: cap · tanh(logit / cap).
    """
    if type(head) is nn.Linear:
        loss: Tensor = _SummedCrossEntropy.apply(
            hidden_ND, head.weight, head.bias, labels_N, soft_cap
        )
        return loss
    logits_NV = head(hidden_ND)
    if soft_cap is not None:
        logits_NV = torch.tanh(logits_NV / soft_cap) * soft_cap
    return nn.functional.cross_entropy(logits_NV.float(), labels_N, reduction="sum")


def _unscaled(product: Tensor, scale: float) -> Tensor:
    return product if scale == 1 else product.float() / scale


def _compute_dtype(hidden: Tensor, weight: Tensor) -> torch.dtype:
    """Dtype of the head's product, as autocast decides it."""
    device = hidden.device.type
    if torch.is_autocast_enabled(device):
        return torch.get_autocast_dtype(device)
    return weight.dtype
