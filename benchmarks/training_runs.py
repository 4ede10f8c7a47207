"""What the training speed measurement runs: zbench's own training step, and the field's loops."""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from transformers import (
    AutoTokenizer,
    PrinterCallback,
    Trainer,
    TrainerCallback,
    TrainingArguments,
)

from benchmarks import trl_runs
from benchmarks.measuring import clock
from benchmarks.subjects import SHAPES, load_model
from harness.data.instructions import Example, epoch_batches, label_runs, tokenize
from harness.data.sets import read_instructions, shuffled
from harness.data.spec import DataSpec
from harness.methods import METHODS
from harness.models.loading import trained_parameters
from harness.training.loss import shares_prefixes
from harness.training.micro_batches import number_sequences, packed_rows, resolve_budget
from harness.training.spec import TrainSpec
from harness.training.step import TrainStep

MAX_LENGTH = 512
MATRIX_SIZE = {"cpu": 2048, "cuda": 8192}
Batches = Sequence[Sequence[Example]]


@dataclass(frozen=True)
class Run:
    """One way to train: a method, and the loop that it runs in."""

    method: str
    loop: str
    """`zbench`, `plain` (a loop over padded micro-batches), `trainer` (transformers') or `trl`."""
    micro_batch_size: int = 4
    """Sequences; of `trl` packed rows."""
    pad_to: int | None = None
    """Width of every micro-batch; None for its longest sequence's."""
    grouped: bool = False
    """Whether the Trainer groups sequences of like length."""


def alpaca_batches(root: Path, count: int, size: int) -> list[list[Example]]:
    """Returns the first optimizer batches of an epoch over all of Alpaca, for seed 0."""
    data = read_instructions(DataSpec(), data_root=root)
    tokenizer = AutoTokenizer.from_pretrained(root / "llama_tokenizer")
    batches = epoch_batches(len(data.rows), size, seed=0, epoch=0)
    chosen = [next(batches) for _ in range(count)]
    assert chosen[0] == shuffled(len(data.rows), "epoch/0/0")[:size]
    return [tokenize([data.rows[row] for row in rows], tokenizer, MAX_LENGTH) for rows in chosen]


def fitted_options(method: str, size: str) -> Any:
    """Returns a method's default options, of prompts fitted to models of few layers."""
    options, layers = METHODS[method].options, SHAPES[size][2]
    few = layers < SHAPES["15M"][2] and "num_layers" in options.model_fields
    return options(**({"num_layers": layers - 1} if few else {}))


def adapt(
    method: str,
    size: str,
    *,
    moved: bool = False,
    device: str | None = None,
    dtype: torch.dtype | None = None,
) -> Any:
    """Returns a random model of a size under a method with its default options.

    Args:
        method: of the registry.
        size: a key of `subjects.SHAPES`.
        moved: whether trained tensors are moved off their start, where many gradients are zero.
        device: see `load_model`; so is `dtype`.
    """
    model = load_model(size, device=device, dtype=dtype)
    model = METHODS[method].apply(model, fitted_options(method, size), 0)
    if moved:
        random = torch.Generator().manual_seed(1)
        with torch.no_grad():
            for parameter in trained_parameters(model).values():
                step = 0.05 * torch.randn(parameter.shape, generator=random)
                parameter += step.to(parameter.device)
    return model


def runner(
    run: Run, model: Any, *, token_budget: int | None = None
) -> Callable[[Batches], float | None]:
    """Returns what trains the model on optimizer batches: gradients and AdamW's steps.

    Args:
        run: the loop.
        model: under the run's method.
        token_budget: ours.
    """
    if run.loop == "zbench":
        return _zbench(model, token_budget)
    if run.loop == "plain":
        return _plain(model, run)
    if run.loop == "trl":
        return trl_runs.sft_trainer(model, run.micro_batch_size, MAX_LENGTH, _labelled)
    return _hf_trainer(model, run)


def _zbench(model: Any, token_budget: int | None) -> Callable[[Batches], float | None]:
    device = next(model.parameters()).device
    train_step = TrainStep(
        model.train(),
        TrainSpec(learning_rate=1e-4, token_budget=token_budget),
        device=device,
        precision="bf16" if device.type == "cuda" else "fp32",
        pad_token_id=0,
    )

    begun = []

    def train(batches: Batches) -> None:
        if not begun:  # as a training does before its first step
            begun.append(train_step.choose_kernels(batches[0], 1))
        for examples in batches:
            train_step.backward(examples, 1)
            train_step.update(1e-4)

    return train


def _plain(model: Any, run: Run) -> Callable[[Batches], float | None]:
    model.train()
    optimizer = torch.optim.AdamW(trained_parameters(model).values(), lr=1e-4, fused=True)

    def train(batches: Batches) -> None:
        for examples in batches:
            plain_gradients(model, examples, run.micro_batch_size, run.pad_to)
            optimizer.step()
            optimizer.zero_grad(set_to_none=True)

    return train


def plain_gradients(
    model: Any, examples: Sequence[Example], size: int, pad_to: int | None = None
) -> None:
    """Adds up the gradient of the mean loss as a plain loop does: padded, with all logits."""
    device = next(model.parameters()).device
    labels = torch.tensor(sum(example.num_labels for example in examples), device=device)
    for start in range(0, len(examples), size):
        rows = [_labelled(example) for example in examples[start : start + size]]
        batch = {key: value.to(device) for key, value in pad(rows, pad_to).items()}
        if pad_to is not None:
            del batch["attention_mask"]  # causal attention needs none, and is faster so
        model(**batch, use_cache=False, num_items_in_batch=labels).loss.backward()


def _labelled(example: Example) -> dict[str, list[int]]:
    ids = list(example.token_ids)
    labels = [-100] * len(ids)
    for start, end in label_runs(example):
        labels[start:end] = ids[start:end]
    return {"input_ids": ids, "labels": labels}


def pad(rows: Sequence[dict[str, list[int]]], width: int | None = None) -> dict[str, Tensor]:
    """Returns a padded batch, as transformers' collators make it."""
    width = width or max(len(row["input_ids"]) for row in rows)

    def filled(key: str, value: int) -> Tensor:
        return torch.tensor([row[key] + [value] * (width - len(row[key])) for row in rows])

    seen = [[1] * len(row["input_ids"]) for row in rows]
    mask = torch.tensor([one + [0] * (width - len(one)) for one in seen])
    return {
        "input_ids": filled("input_ids", 0),
        "labels": filled("labels", -100),
        "attention_mask": mask,
    }


class TrainingClock(TrainerCallback):
    """Takes the time of training alone, without the Trainer's own set-up."""

    seconds = 0.0

    def on_train_begin(self, *_: Any, **__: Any) -> None:
        self._start = clock()

    def on_train_end(self, *_: Any, **__: Any) -> None:
        self.seconds = clock() - self._start


def _hf_trainer(model: Any, run: Run) -> Callable[[Batches], float]:
    def train(batches: Batches) -> float:
        rows = [_labelled(example) for examples in batches for example in examples]
        size = run.micro_batch_size
        watch = TrainingClock()
        with tempfile.TemporaryDirectory() as folder:
            settings = TrainingArguments(
                output_dir=folder,
                per_device_train_batch_size=size,
                gradient_accumulation_steps=len(batches[0]) // size,
                num_train_epochs=1,
                learning_rate=1e-4,
                train_sampling_strategy="group_by_length" if run.grouped else "random",
                optim="adamw_torch_fused",
                save_strategy="no",
                report_to="none",
                disable_tqdm=True,
                use_cpu=not torch.cuda.is_available(),
                bf16=torch.cuda.is_available(),  # adapters are fp32 over a base in bf16
                remove_unused_columns=False,
            )
            trainer = Trainer(
                model=model,
                args=settings,
                train_dataset=rows,  # type: ignore[arg-type]  # a list has all that is asked of it
                data_collator=pad,
                callbacks=[watch],
            )
            trainer.remove_callback(PrinterCallback)
            trainer.train()
        return watch.seconds

    return train


def operations(model: Any, examples: Sequence[Any], budget: int | None) -> float:
    """Returns the operations of linear layers and head in our gradient of an optimizer batch.

    A weight of the decoder costs 2 per node forward, 2 for the gradient of its input where a layer
    below trains something, and 2 for its own where it is trained. Attention is left out.
    """
    base = model.get_base_model() if hasattr(model, "get_base_model") else model
    layers = base.get_decoder().layers
    rows = packed_rows(
        number_sequences(examples),
        token_budget=resolve_budget(budget, examples, next(model.parameters()).device),
        share=shares_prefixes(model),
        device=torch.device("cpu"),
    )
    nodes, labels = 0, 0
    for row in rows:
        nodes, labels = nodes + row.num_tokens, labels + len(row.labels)
    trains = [any(p.requires_grad for p in layer.parameters()) for layer in layers]
    first = trains.index(True)
    total = 0.0
    for index, layer in enumerate(layers):
        weights = [p for n, p in layer.named_parameters() if p.ndim == 2 and "prompt" not in n]
        for weight in weights:
            passes = 1 + (index > first) + weight.requires_grad
            total += 2 * passes * weight.numel() * nodes
    head = base.get_output_embeddings().weight
    return total + 2 * (2 + head.requires_grad) * head.numel() * labels


def matrix_peak() -> float:
    """Returns the operations per second of one large matrix product, the best of ten."""
    device = "cuda" if torch.cuda.is_available() else "cpu"
    size = MATRIX_SIZE[device]
    dtype = torch.bfloat16 if device == "cuda" else torch.float32
    left = torch.randn(size, size, device=device, dtype=dtype)
    times = []
    for _ in range(10):
        start = clock()
        left @ left
        times.append(clock() - start)
    return 2 * size**3 / min(times)
