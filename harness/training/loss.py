"""The forward pass of training: the summed loss of the responses in a micro-batch.

A micro-batch is a packed row of real tokens (`harness.training.packing`). Models that cannot run
on one are given padded batches. They are padded on the right to their longest sequence, and no mask
is passed: in causal attention no token attends to later ones, and the loss reads real positions
only. Without a mask SDPA takes its causal path.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.nn.modules.dropout import _DropoutNd

from harness.data.instructions import label_runs
from harness.methods.row_dropout import DropoutKey, RowDropout
from harness.methods.zero_init.attention import PROMPT_ATTENTION_PREFIX
from harness.models.families import FAMILIES
from harness.models.packed_attention import register_packed, using_attention
from harness.models.pictures import (
    PassPictures,
    PictureFeatures,
    no_picture,
    project,
    takes_pictures,
)
from harness.models.positions import group_by_frequencies, num_virtual_tokens
from harness.models.varlen_attention import AttentionPath
from harness.training.cross_entropy import summed_cross_entropy
from harness.training.gradient_checkpointing import recomputed_layers
from harness.training.micro_batches import cheapest_cuts, fullest_cuts, packed_rows
from harness.training.packing import PackedRow, TokenSequence, picture_places

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class PaddedBatch:
    """A micro-batch of sequences padded to their longest: B of them, T tokens each."""

    input_ids_BT: Tensor
    positions: Tensor
    """(labels,), indices into B·T of the tokens before the labels."""
    columns: Tensor
    """Where in their sequences these lie, 0..T - 1: each once, in order."""
    labels: Tensor
    sequence_ids_B: Tensor
    """The sequences' indices in the optimizer batch."""
    pictures: tuple[str, ...] = ()
    """Its distinct pictures."""
    picture_rows: Tensor | None = None
    """(B,), each sequence's place in `pictures`, their number for none; None where there are
    none."""

    @property
    def num_tokens(self) -> int:
        """Rows of every linear layer, padding counted."""
        return self.input_ids_BT.numel()


MicroBatch = PackedRow | PaddedBatch


class ResponseLoss(nn.Module):
    """A causal language model whose output is the summed loss of its labels.

    Logits are computed at label positions only: with a vocabulary of 32,000 they are the largest
    tensor of a step. DDP or FSDP wraps this module, so that its output is the loss.

    Args:
        model: with or without an adapter.
        pictures: features of the pictures of all sequences that it is given.
        gradient_checkpointing: whether layers are computed again in the backward pass.
        path: how it attends over packed rows.
    """

    def __init__(
        self,
        model: nn.Module,
        pictures: PictureFeatures | None = None,
        *,
        gradient_checkpointing: bool = False,
        path: AttentionPath = "buckets",
    ) -> None:
        super().__init__()
        self.model = model
        self.pictures = pictures
        self.gradient_checkpointing = gradient_checkpointing
        self.path = path
        self.largest_pass = 0
        """The most tokens of a micro-batch so far, padding counted."""
        self.refusal = packing_refusal(model)
        """Why the model is given padded batches; None where it is given packed rows."""
        self.attention = None if self.refusal else register_packed(base_model(model))
        if self.refusal:
            logger.info("sequences are padded, not packed: %s", self.refusal)

    def micro_batches(
        self,
        sequences: Sequence[TokenSequence],
        *,
        token_budget: int,
        pad_token_id: int,
        device: torch.device,
        share: bool = True,
    ) -> Iterator[MicroBatch]:
        """Splits an optimizer batch; each part is an argument of `forward`.

        Args:
            sequences: all of the batch that this process trains on, in any order.
            token_budget: tokens of a forward pass, padding counted; no sequence is longer.
            pad_token_id: any token; no result depends on it.
            share: whether shared prefixes are computed once, where that is exact.
        """
        if not sequences:
            return
        share = share and shares_prefixes(self.model)
        batches: Iterator[MicroBatch]
        for alike in group_by_frequencies(self.model, self._positions, sequences):
            if self.refusal:
                batches = padded_batches(
                    alike, token_budget, pad_token_id=pad_token_id, device=device
                )
            else:
                batches = packed_rows(
                    alike,
                    token_budget=token_budget,
                    share=share,
                    device=device,
                    varlen=self.path == "varlen",
                )
            for batch in batches:
                self.largest_pass = max(self.largest_pass, batch.num_tokens)
                yield batch

    def _positions(self, sequence: TokenSequence) -> int:
        """The positions that a sequence takes where it goes through the model alone."""
        if not self.refusal:
            return sequence.num_inputs
        return len(sequence.token_ids) + num_virtual_tokens(self.model)

    def forward(self, batch: MicroBatch) -> Tensor:
        """The sum of the labels' cross-entropies, fp32, in nats."""
        base = base_model(self.model)
        if not self.gradient_checkpointing:
            return self._loss(base, batch)
        with recomputed_layers(base):
            return self._loss(base, batch)

    def _loss(self, base: Any, batch: MicroBatch) -> Tensor:
        if _is_prompt_learning(self.model):
            assert isinstance(batch, PaddedBatch)
            logits = _logits_after_prompts(self.model, batch)
            return functional.cross_entropy(logits.float(), batch.labels, reduction="sum")
        loss = summed_cross_entropy(
            base.get_output_embeddings(),
            self._states(batch),
            batch.labels,
            soft_cap=_soft_cap(base),
        )
        if batch.picture_rows is None and takes_pictures(self.model):
            loss = loss + no_picture(self.model)
        return loss

    def label_logits(self, batch: MicroBatch) -> Tensor:
        """The logits at the tokens before the labels, (labels, vocabulary), in fp32.

        Of a model without virtual tokens before its inputs.
        """
        base = base_model(self.model)
        logits: Tensor = base.get_output_embeddings()(self._states(batch))
        if (cap := _soft_cap(base)) is not None:
            logits = torch.tanh(logits / cap) * cap
        return logits.float()

    def _states(self, batch: MicroBatch) -> Tensor:
        """The hidden states at the tokens before the labels, (labels, D)."""
        base = base_model(self.model)
        if isinstance(batch, PaddedBatch):
            arguments: dict[str, Any] = {"input_ids": batch.input_ids_BT}
            attention = base.config._attn_implementation
        else:
            assert self.attention is not None
            attention = self.attention
            arguments = {
                "input_ids": batch.input_ids_1N,
                "position_ids": batch.position_ids_1N,
                "packing": batch.packing,
            }
        if (pictures := self._pictures_of(batch)) is not None:
            arguments["pictures"] = pictures
        with using_attention(base, attention):
            hidden: Tensor = base.base_model(**arguments, use_cache=False).last_hidden_state
        return hidden.flatten(0, 1)[batch.positions]

    def _pictures_of(self, batch: MicroBatch) -> PassPictures | None:
        """The distinct pictures of a micro-batch, each projected once."""
        if batch.picture_rows is None:
            return None
        assert self.pictures is not None
        return project(self.model, self.pictures.select(batch.pictures), batch.picture_rows)


def dropout_key(batch: MicroBatch, key: int) -> DropoutKey:
    """Key of the dropout masks of a micro-batch, in the step of `key`."""
    if isinstance(batch, PaddedBatch):
        return DropoutKey(key, batch.sequence_ids_B)
    return DropoutKey(key, batch.sequence_ids_1N, batch.position_ids_1N)


def padded_batches(
    sequences: Sequence[TokenSequence],
    token_budget: int,
    *,
    pad_token_id: int,
    device: torch.device,
) -> Iterator[PaddedBatch]:
    """Yields batches of at most `token_budget` tokens, longest first to need little padding."""
    ordered = sorted(sequences, key=lambda one: -len(one.token_ids))
    lengths = [len(one.token_ids) for one in ordered]
    # On a CPU the bits of older results stay.
    cuts = fullest_cuts if device.type == "cpu" else cheapest_cuts
    for cut in cuts(lengths, token_budget):
        part, width = ordered[cut], lengths[cut.start]
        rows: list[list[int]] = []
        positions: list[int] = []
        labels: list[int] = []
        for row, one in enumerate(part):
            rows.append([*one.token_ids, *[pad_token_id] * (width - len(one.token_ids))])
            for first, end in label_runs(one):
                positions += range(row * width + first - 1, row * width + end - 1)
                labels += one.token_ids[first:end]
        pictures, places = picture_places(part)
        yield PaddedBatch(
            torch.tensor(rows, device=device),
            torch.tensor(positions, device=device),
            torch.tensor(sorted({position % width for position in positions}), device=device),
            torch.tensor(labels, device=device),
            torch.tensor([one.index for one in part], device=device),
            pictures,
            torch.tensor(places, device=device) if pictures else None,
        )


def base_model(model: Any) -> Any:
    """The causal language model itself, without PEFT's wrapper."""
    return model.get_base_model() if hasattr(model, "get_base_model") else model


def _soft_cap(base: Any) -> float | None:
    cap: float | None = getattr(base.config.get_text_config(), "final_logit_softcapping", None)
    return cap


def _is_prompt_learning(model: Any) -> bool:
    """Whether a model is PEFT's wrapper that prepends virtual tokens to the input."""
    config = getattr(model, "active_peft_config", None)
    return config is not None and bool(config.is_prompt_learning)


def _logits_after_prompts(model: Any, batch: PaddedBatch) -> Tensor:
    """The logits at the tokens before the labels, (labels, vocabulary), by the wrapper's forward.

    The head is applied to each column of the batch in which any sequence has a label.
    """
    config, width = model.active_peft_config, batch.input_ids_BT.shape[1]
    rows, columns = batch.positions // width, batch.positions % width
    # A prefix lies in the KV cache and has no outputs; virtual tokens' come before the others'.
    in_cache = config.peft_type in ("PREFIX_TUNING", "CARTRIDGE")
    shift = 0 if in_cache else config.num_virtual_tokens
    kept = batch.columns + shift
    logits = model(input_ids=batch.input_ids_BT, use_cache=False, logits_to_keep=kept).logits
    return logits[rows, torch.searchsorted(batch.columns, columns)]


def packing_refusal(model: Any) -> str | None:
    """Why a model is trained on padded batches instead; None where it need not be."""
    if _is_prompt_learning(model):
        return "its virtual tokens are prepended to each sequence"
    base = base_model(model)
    if base.config.model_type not in FAMILIES:
        return f"the attention of {base.config.model_type} has not been checked"
    implementation = str(base.config._attn_implementation)
    prompts = implementation.startswith(PROMPT_ATTENTION_PREFIX)
    if implementation not in ("sdpa", "eager") and not prompts:
        return f"the attention implementation {implementation} has not been checked"
    if getattr(base.config, "attention_dropout", 0):
        return "its attention has dropout, whose mask would depend on the layout"
    return None


def shares_prefixes(model: nn.Module) -> bool:
    """Whether shared prefixes have equal hidden states: not under dropout or noise."""
    return not any(
        module.training
        and (
            (isinstance(module, RowDropout | _DropoutNd) and module.p > 0)
            or getattr(module, "draws_noise", False)
        )
        for module in model.modules()
    )
