"""What one pass through the model computes: the loss of the responses in a micro-batch.

Padding. Micro-batches are padded on the right to their longest sequence, and no mask is passed: in
causal attention no token sees what is behind it, and the loss reads real positions only. Without
a mask SDPA takes its causal path.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn
from torch.nn import functional

from harness.data import Example


class ResponseLoss(nn.Module):
    """A causal language model whose output is the summed loss of chosen tokens.

    Logits are computed at label positions only: with 32,000 pieces they are the largest tensor of
    a step. Accelerate wraps this module, so that gradients meet where the loss is.
    """

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = model

    def forward(
        self, input_ids: torch.Tensor, positions: torch.Tensor, labels: torch.Tensor
    ) -> torch.Tensor:
        """Returns the sum of cross-entropies, fp32, in nats.

        Args:
            input_ids: (B, T), padded on the right.
            positions: (N,), indices into B·T of the tokens before the labels.
            labels: (N,).
        """
        model: Any = self.model
        if _learns_prompts(model):
            logits = _logits_behind_prompts(model, input_ids, positions)
        else:
            if hasattr(model, "get_base_model"):  # a PeftModel: its layers are in the base model
                model = model.get_base_model()
            hidden = model.base_model(input_ids=input_ids, use_cache=False).last_hidden_state
            logits = model.get_output_embeddings()(hidden.flatten(0, 1)[positions])
            cap = getattr(model.config.get_text_config(), "final_logit_softcapping", None)
            if cap is not None:  # Gemma 2, in its own model's order of operations
                logits = torch.tanh(logits / cap) * cap
        return functional.cross_entropy(logits.float(), labels, reduction="sum")


def _learns_prompts(model: Any) -> bool:
    """Returns whether a model is PEFT's wrapper that puts virtual tokens before the words."""
    config = getattr(model, "active_peft_config", None)
    return config is not None and bool(config.is_prompt_learning)


def _logits_behind_prompts(
    model: Any, input_ids: torch.Tensor, positions: torch.Tensor
) -> torch.Tensor:
    """Returns the logits at `positions`, (N, vocabulary), by the wrapper's own forward.

    The head is applied to each column of the batch in which any sequence has a label.
    """
    config = model.active_peft_config
    rows, columns = positions // input_ids.shape[1], positions % input_ids.shape[1]
    needed = columns.unique()
    # Prefixes stand in the cache and give no outputs; virtual words do, before the others'.
    in_cache = config.peft_type in ("PREFIX_TUNING", "CARTRIDGE")
    shift = 0 if in_cache else config.num_virtual_tokens
    logits = model(input_ids=input_ids, use_cache=False, logits_to_keep=needed + shift).logits
    return logits[rows, torch.searchsorted(needed, columns)]


@dataclass(frozen=True)
class MicroBatch:
    """What goes through the model at once: see `ResponseLoss.forward`."""

    input_ids: torch.Tensor
    positions: torch.Tensor
    labels: torch.Tensor
    rows: torch.Tensor
    """(B,), the sequences' places in the optimizer batch, the same for any micro-batch size."""


def micro_batches(
    examples: Sequence[Example],
    size: int,
    *,
    pad_token_id: int,
    device: torch.device,
    rows: Sequence[int] | None = None,
) -> Iterator[MicroBatch]:
    """Splits an optimizer batch: longest sequences first, so that little is padding.

    Examples without labels are left out: they have no gradient. Where the examples are one rank's
    share, `rows` are their places in the whole batch.
    """
    learned = [example for example in examples if example.num_labels]
    learned.sort(key=lambda example: len(example.token_ids), reverse=True)
    places = list(range(len(learned)) if rows is None else rows)
    for start in range(0, len(learned), size):
        part = learned[start : start + size]
        width = len(part[0].token_ids)
        padded: list[list[int]] = []
        positions: list[int] = []
        labels: list[int] = []
        for row, example in enumerate(part):
            ids, first = example.token_ids, example.num_prompt_tokens
            padded.append([*ids, *[pad_token_id] * (width - len(ids))])
            positions += range(row * width + first - 1, row * width + len(ids) - 1)
            labels += ids[first:]
        yield MicroBatch(
            torch.tensor(padded, device=device),
            torch.tensor(positions, device=device),
            torch.tensor(labels, device=device),
            torch.tensor(places[start : start + len(part)], device=device),
        )
