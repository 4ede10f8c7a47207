"""Memory of a cell, from shapes alone: what `plan` says and what a cell checks before it begins.

One GPU's peak while a cell is trained or scored, the moment in which a model is loaded and
sharded, and what the host must hold. Every constant is derived where it stands; a test holds the
whole against the tracked peaks of `tests/gpu_rehearsal`. Fragments of the allocator and workspaces
of the libraries are no part of a tracked peak: CONTEXT_BYTES stands for them and for the driver.

Letters: D hidden size, I inner size of the feed-forward network, Q and K sizes of all query and of
all key heads, V vocabulary; e bytes of a value in the compute precision (2 or 4).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Self

from harness.evaluation.prefix_trie.batches import MAX_SCORED_FRACTION
from harness.evaluation.tasks import DEFAULT_TOKEN_BUDGET as SCORING_BUDGET
from harness.methods import METHODS
from harness.methods.method import Workload
from harness.models.families import FAMILIES
from harness.models.shape import ModelShape
from harness.training.optimizer_options import state_bytes

if TYPE_CHECKING:
    from harness.grid.schema import Cell

CONTEXT_BYTES = 1.0e9
"""What the driver's context, workspaces and the allocator's fragments take of a GPU: an
assumption."""
CHUNK_LOGITS = 2**26
"""Logits of a chunk of the loss on CUDA: `harness.training.cross_entropy`, which imports torch."""
QUANTISED_BYTES = {"int8": 1.0, "nf4": 0.5 + 4 / 64}
"""Bytes of a weight of a decoder layer's matrices. int8: and an fp32 scale for each row, which is
little. nf4: half a byte, and an fp32 scale for each block of 64 (no double quantisation)."""
WORKER_BYTES = 1.5e9
"""Of host memory for a process beside weights: libraries, data, items. 0.7 GB were measured with a
tiny model."""

LOGIT_BYTES = 10
"""Of a logit in scoring: in half precision, in fp32, and its log-probability."""
HOST_COPIES = 1
"""Of a checkpoint in host memory while it is written."""


@dataclass(frozen=True)
class TokenPass:
    """The tokens of one forward pass."""

    nodes: float
    """Rows of every linear layer: tokens, a shared prefix counted once."""
    slots: float
    """Rows of attention: tokens of all of its sequences."""
    labels: float
    """Tokens in the loss."""
    sequences: float = 1
    several: bool = True
    """Whether an optimizer step takes more passes, so that gradients are there during this one."""


@dataclass(frozen=True)
class Training:
    """What is trained, and how: all that the memory of a training depends on but its passes."""

    shape: ModelShape
    work: Workload
    trained: int
    """Trained parameters."""
    precision: str = "bf16"
    """Of the frozen base, and of products."""
    quantization: str | None = None
    optimizer: Mapping[str, Any] | None = None
    ranks: int = 1
    checkpointing: bool = False
    """Gradient checkpointing: a layer keeps its input alone, and is computed again."""

    @classmethod
    def of(cls, cell: Cell, precision: str, *, ranks: int | None = None) -> Self:
        """The training of a cell.

        Args:
            cell: trained, or scored only.
            precision: of its base, resolved: see `resolve_precision`.
            ranks: GPUs that train it; None: as many as the cell asks for.
        """
        method, train = METHODS[cell.method], cell.train
        return cls(
            cell.model.shape,
            method.workload_on(cell.model.shape, cell.options),
            method.count_parameters(cell.model.shape, cell.options),
            precision=precision,
            quantization=train.base_quantization if train else None,
            optimizer=train.optimizer if train else None,
            ranks=cell.gpus_per_cell if ranks is None else ranks,
            checkpointing=bool(getattr(train, "gradient_checkpointing", False)),
        )

    @property
    def value_bytes(self) -> int:
        """e."""
        return 4 if self.precision == "fp32" else 2

    @property
    def sharded(self) -> bool:
        """Whether every GPU keeps a shard (FSDP), not a copy (DDP)."""
        return self.work.trains_base and self.ranks > 1

    @property
    def layer_weights(self) -> int:
        """Weights of the matrices of one decoder layer."""
        return sum(inputs * outputs for inputs, outputs in self.shape.linear_layers.values())

    @property
    def embedding_weights(self) -> int:
        """V · D: of the embeddings, and as many of the head."""
        return self.shape.vocab_size * self.shape.hidden_size

    def frozen_bytes(self) -> float:
        """The frozen base: e for each weight, less for quantised matrices; the embeddings, the
        head and the norms are not quantised."""
        frozen = max(0, self.shape.num_parameters - self.trained)
        if self.work.trains_base:
            frozen = 0
        quantised = 0.0
        if self.quantization is not None:
            quantised = min(frozen, self.shape.num_hidden_layers * self.layer_weights)
        size = QUANTISED_BYTES.get(self.quantization or "", 0.0)
        return self.value_bytes * (frozen - quantised) + size * quantised

    def trained_bytes(self) -> float:
        """fp32 weights and the optimizer's state of what is trained, or of a GPU's shard of it."""
        share = self.ranks if self.sharded else 1
        return (4 + state_bytes(self.optimizer)) * self.trained / share

    def gradient_bytes(self) -> float:
        """fp32 gradients of what is trained, or of a shard; DDP adds them up in buckets beside."""
        if self.sharded:
            return 4.0 * self.trained / self.ranks
        return 4.0 * self.trained * (2 if self.ranks > 1 else 1)

    def weights_and_optimizer(self) -> float:
        """Bytes of a GPU from the second step on, activations apart."""
        return self.frozen_bytes() + self.trained_bytes() + self.gradient_bytes()

    def loading_bytes(self) -> float:
        """Peak while the model is loaded and, for several GPUs, sharded.

        What one GPU trains is made fp32 tensor by tensor: the largest one, the embeddings, is there
        twice. Several load it in e; then one layer after the other is sharded and its shard made
        fp32, the embeddings and the head last: see `harness.training.parallel.parallelize`.
        """
        if not self.work.trains_base:
            return self.frozen_bytes() + 4.0 * self.trained
        if not self.sharded:
            return 4.0 * self.trained + 2.0 * self.embedding_weights
        unit = max(self.layer_weights, 2 * self.embedding_weights)
        moved = (self.value_bytes + 4.0 + self.value_bytes / self.ranks) * unit
        return max(self.value_bytes * self.trained, 4.0 * self.trained / self.ranks) + moved

    def weight_bytes(self) -> float:
        """Weights alone, as a trained cell is loaded to be scored: what was trained is fp32."""
        return self.frozen_bytes() + 4.0 * self.trained

    def least_bytes(self) -> float:
        """What every training of it needs of a GPU, however small its passes."""
        return max(self.loading_bytes(), self.weights_and_optimizer())

    def copies_bytes(self) -> float:
        """Copies of trained weights: autocast keeps one in half precision of every matrix for the
        backward pass; FSDP gathers two layers and, for the whole pass, embeddings and head."""
        if not self.work.trains_base:
            return 0.0
        if self.sharded:
            return self.value_bytes * (2.0 * self.layer_weights + 2 * self.embedding_weights)
        if self.precision == "fp32":
            return 0.0
        return 2.0 * (self.shape.num_hidden_layers * self.layer_weights + self.embedding_weights)

    @property
    def varlen(self) -> bool:
        """Whether attention is one variable-length call per layer and norms are fused: in bf16,
        which the GPUs that can do so compute in. In fp16 the older GPUs are assumed."""
        return self.precision == "bf16"

    def layer_bytes(self, tokens: TokenPass) -> float:
        """What autograd keeps of one decoder layer, the method's additions apart.

        Frozen base. Feed-forward network: the gate's product, its activation, and the other
        factor, 3 e I; inputs of frozen matrices are not kept. With variable-length attention:
        queries and output, 2 e Q, of every node, keys and values, 2 e K, of every slot; and the
        inputs of two norms, e D each. By buckets: all four of every slot, and the norms' inputs in
        fp32, 4 D each.

        Trained base: each matrix keeps its input as well. On one GPU the residual stream is fp32,
        4 D for each norm, and autocast casts what norms give for each of the five matrices behind
        them, 5 e D. Under FSDP layers compute in e: e D given and e D taken, for each norm. The
        last matrix's input is e I, the output's the attention's own. By buckets each norm also
        keeps what it has normalised, and the attention's output is gathered once more, e Q.
        """
        shape, e = self.shape, self.value_bytes
        hidden, inner = shape.hidden_size, shape.intermediate_size
        query, key = shape.query_size, shape.key_value_size
        norms = (FAMILIES[shape.model_type].norms_per_layer or 2) * hidden
        trained, half = self.work.trains_base, e == 2
        if self.varlen:
            by_slot, by_node = 2 * e * key, 2 * e * query
            norm = (2 * e if self.sharded else 4) if trained else e
        else:
            by_slot, by_node = 2 * e * (query + key), e * query if trained else 0
            norm = (4 + 2 * e if self.sharded or not half else 8) if trained else 4
        by_node += norm * norms + (4 if trained else 3) * e * inner
        if trained and half and not self.sharded:
            by_node += 5 * e * hidden
        return by_slot * tokens.slots + by_node * tokens.nodes

    def activation_bytes(self, tokens: TokenPass) -> float:
        """What is kept of one pass until its backward pass is through."""
        shape, work, e = self.shape, self.work, self.value_bytes
        layers = shape.num_hidden_layers if work.adapted_layers is None else work.adapted_layers
        added = (e * work.kept_values + 4 * work.kept_floats) * tokens.nodes
        added += e * work.kept_by_sequence * tokens.sequences
        if e == 2:
            added += e * work.kept_copies
        ends = 2 * e * shape.hidden_size * tokens.nodes  # embeddings, and the last hidden states
        whole = layers * self.layer_bytes(tokens) + added
        if not self.checkpointing:
            return whole + ends
        kept = layers * e * shape.hidden_size * tokens.nodes
        return kept + whole / max(1, layers) + ends

    def head_bytes(self, tokens: TokenPass) -> float:
        """The loss' moment: a chunk's logits in fp32 and in e, and their gradient in e; the labels'
        hidden states and gradients; where the head is trained, its copy in e, its gradient in fp32
        and the product that is added to it."""
        shape, e = self.shape, self.value_bytes
        rows = min(CHUNK_LOGITS / shape.vocab_size, tokens.labels)
        found = rows * shape.vocab_size * (4 if e == 4 else 4 + 2 * e)
        found += 2 * e * shape.hidden_size * tokens.labels
        if self.work.trains_base:
            found += (4 + e) * self.embedding_weights
        return found

    def backward_bytes(self, tokens: TokenPass) -> float:
        """What a layer's backward pass makes at once: gradients of the three inner tensors of the
        feed-forward network and of the hidden states; of a sharded layer its gradients in e and
        in fp32, which are reduced, and the head's."""
        shape, e = self.shape, self.value_bytes
        found = e * (3 * shape.intermediate_size + 2 * shape.hidden_size) * tokens.nodes
        found += self.work.transient_bytes
        if self.sharded:
            found += (e + 4) * self.layer_weights + e * self.embedding_weights
        if self.quantization is not None:  # a matrix in e, from 8 or 4 bits, for its product
            found += e * max(a * b for a, b in shape.linear_layers.values())
        return found

    def training_bytes(self, tokens: TokenPass) -> float:
        """Peak of a GPU while it trains, from the second step on."""
        needed = self.frozen_bytes() + self.trained_bytes() + self.copies_bytes()
        moment = max(self.head_bytes(tokens), self.backward_bytes(tokens))
        running = self.activation_bytes(tokens) + moment
        gradients = self.gradient_bytes()
        # In a step's only pass gradients come as activations go.
        during = gradients + running if tokens.several else max(gradients, running)
        return needed + during

    def peak_bytes(self, tokens: TokenPass) -> float:
        """Peak of a GPU: while the model is loaded, or while it is trained."""
        return max(self.loading_bytes(), self.training_bytes(tokens)) + CONTEXT_BYTES

    def largest_pass(self, room: float, like: TokenPass) -> float:
        """The most nodes of a pass, of tokens like these, that a GPU of `room` bytes holds."""
        low, high = 0.0, 1.0e6
        for _ in range(40):
            middle = (low + high) / 2
            fits = self.peak_bytes(scaled(like, middle)) <= room
            low, high = (middle, high) if fits else (low, middle)
        return low


def scaled(tokens: TokenPass, nodes: float) -> TokenPass:
    """A pass of so many nodes with the proportions of another."""
    ratio = nodes / max(tokens.nodes, 1.0)
    return TokenPass(
        nodes, tokens.slots * ratio, tokens.labels * ratio, tokens.sequences * ratio, True
    )


def scoring_peak(training: Training, token_budget: int = SCORING_BUDGET) -> float:
    """Peak of a GPU while a cell is scored: weights, one pass, its keys and values, and the logits.

    In a pass nothing is kept but keys and values; a layer holds its hidden states, its norms' in
    fp32, and the inner tensors of its feed-forward network. What is generated beside, as many
    responses at once as the memory holds, is not counted.

    Args:
        token_budget: tokens of a pass; it is halved where memory runs out.
    """
    shape, e = training.shape, training.value_bytes
    width = 12 * shape.hidden_size + 3 * e * shape.intermediate_size
    keys = 2 * e * shape.num_hidden_layers * shape.key_value_size
    logits = shape.vocab_size * LOGIT_BYTES * MAX_SCORED_FRACTION
    return training.weight_bytes() + token_budget * (width + keys + logits) + CONTEXT_BYTES


def gathered_bytes(training: Training) -> float:
    """What the first process holds on the host while a checkpoint is written: weights and the
    optimizer's state of what is trained, in fp32."""
    return HOST_COPIES * (4 + state_bytes(training.optimizer)) * training.trained
