"""Tracked peaks beside what the memory model says, for methods, sizes and numbers of ranks.

python -m tests.gpu_rehearsal.memory lora full --size 7b --ranks 1,4 [--layers 4] [--fullest 200]

Adapters on several ranks: DDP cannot be rehearsed, so that one rank trains its shard of a batch
alone, and the buckets in which DDP adds up gradients are added to what was tracked.
"""

from __future__ import annotations

from tests.gpu_rehearsal import before_torch  # noqa: F401

# isort: split

import argparse
import functools
import json
import os
from collections.abc import Sequence
from typing import Any
from unittest import mock

import torch

from harness.cell.memory_model import CONTEXT_BYTES, TokenPass, Training
from harness.data.instructions import Example, epoch_batches, tokenize
from harness.estimate.compute import training_flops
from harness.estimate.lengths import TrainingTokens
from harness.methods import METHODS, Workload
from harness.models.shape import ModelShape
from harness.training import loop
from harness.training import step as step_code
from harness.training.loss import ResponseLoss
from harness.training.micro_batches import number_sequences
from harness.training.parallel import Ranks
from harness.training.process_group import RankInfo
from harness.training.spec import TrainSpec
from tests.gpu_rehearsal import stage
from tests.gpu_rehearsal.card import rehearsal


@functools.cache
def batch_of(size: int, max_length: int, ranks: int, looked_at: int) -> tuple[Example, ...]:
    """Returns the fullest of the first optimizer batches of Alpaca, by tokens."""
    rows = stage.rows()
    batches = epoch_batches(len(rows), size, seed=0, epoch=0)
    found = [
        tokenize([rows[row] for row in batch], stage.tokenizer(), max_length)
        for _, batch in zip(range(looked_at), batches, strict=False)
    ]
    return tuple(max(found, key=lambda batch: sum(len(one.token_ids) for one in batch)))


def own_share(examples: Sequence[Example], ranks: int) -> list[Example]:
    """Returns the examples of a batch that rank 0 gets."""
    sequences = number_sequences(examples)
    kept = {one.token_ids for one in Ranks(0, ranks, torch.device("cpu")).shard(sequences)}
    return [one for one in examples if one.token_ids in kept]


def passes_of(batches: Sequence[Any], work: Workload) -> list[TokenPass]:
    """Returns the sizes of micro-batches, with padding and virtual tokens."""
    found = []
    for batch in batches:
        nodes = slots = batch.num_tokens
        if hasattr(batch, "packing"):
            documents = batch.packing.documents
            slots = len(batch.packing.node_of_slot_M)
            if documents is not None:  # without padding
                slots = sum(len(nodes) for nodes in documents.nodes)
            sequences = sum(bucket.num_sequences for bucket in batch.packing.buckets)
        else:
            sequences = len(batch.input_ids_BT)
            nodes += sequences * work.virtual_tokens
            slots += sequences * work.virtual_tokens
        found.append(TokenPass(nodes, slots, len(batch.labels), sequences, len(batches) > 1))
    return found


def track(
    method: str, *, size: str = "7b", layers: int | None = None, ranks: int = 1,
    precision: str = "bf16", card_name: str = "h200", looked_at: int = 1, steps: int | None = None,
    **settings: Any,
) -> dict[str, Any]:  # fmt: skip
    """Returns the tracked peak of a rank, the passes of its last step, and its FLOPs.

    Args:
        looked_at: the batch is the fullest of the first so many.
        steps: full fine-tuning is at its peak in the second, when AdamW's state is there.
        **settings: of the training, such as `token_budget`.
    """
    shape = stage.shape_of(size, layers)
    entry = METHODS[method]
    shards = entry.name == "full" and ranks > 1
    steps = (2 if entry.name == "full" else 1) if steps is None else steps
    spec = stage.train_spec(method, precision=precision, **settings)
    batch = list(batch_of(spec.batch_size, spec.max_length, ranks, looked_at))
    if not shards and ranks > 1:
        batch = own_share(batch, ranks)
    spec = spec.model_copy(update={"batch_size": len(batch)})
    found = _fitted(method, shape, spec, batch * steps, ranks if shards else 1, card_name)
    if ranks > 1 and not shards:
        found["peak"] += 4.0 * found["trained"]  # DDP's buckets
    found["loading"] = found.pop("loading_peak")
    found["batch"] = own_share(batch, ranks) if shards else batch
    return found


def _fitted(
    method: str, shape: ModelShape, spec: TrainSpec, examples: list[Example], ranks: int,
    card_name: str,
) -> dict[str, Any]:  # fmt: skip
    found: dict[str, Any] = {}
    precision = str(spec.precision)
    work = METHODS[method].workload_on(shape, stage.options_of(method, shape))
    if ranks > 1:
        from torch.testing._internal.distributed.fake_pg import FakeStore

        os.environ.update(RankInfo(0, ranks).environment)
        torch.distributed.init_process_group("fake", rank=0, world_size=ranks, store=FakeStore())
    try:
        with rehearsal(card_name) as card:
            model, entry, hook = stage.apply(
                method, stage.base_model(shape, precision), shape, cards=ranks
            )
            found["trained"] = sum(p.numel() for p in model.parameters() if p.requires_grad)
            split, backward, update = (
                ResponseLoss.micro_batches, step_code.TrainStep.backward, step_code.TrainStep.update
            )  # fmt: skip

            def noted(self: Any, sequences: Any, **kwargs: Any) -> Any:
                batches = list(split(self, sequences, **kwargs))
                found["passes"] = passes_of(batches, work)
                found["positions"] = sum(batch.num_tokens for batch in batches)
                return batches

            def tracked(self: Any, chosen: Any, key: int) -> Any:
                found.setdefault("loading_peak", max(card.peak, card.peak_before))
                card.reset()
                totals = backward(self, chosen, key)
                found["flops"], found["tokens"] = card.counts.flops, totals.num_tokens
                return totals

            def updated(self: Any, rate: float, **kwargs: Any) -> None:
                update(self, rate, **kwargs)
                found["peak"] = card.peak
                found["at_peak"] = card.at_peak.most_common(40)

            with (
                mock.patch.object(ResponseLoss, "micro_batches", noted),
                mock.patch.object(step_code.TrainStep, "backward", tracked),
                mock.patch.object(step_code.TrainStep, "update", updated),
            ):
                loop.fit(
                    model, examples, spec, seed=0, device="cuda", precision=precision,
                    pad_token_id=0, data_sha256="", hook=hook,
                    callbacks=stage.callbacks(model, entry, hook),
                )  # fmt: skip
    finally:
        if ranks > 1:
            torch.distributed.destroy_process_group()
    return found


def planned(
    method: str, found: dict[str, Any], *, size: str, layers: int | None, ranks: int,
    precision: str = "bf16", **settings: Any,
) -> Training:  # fmt: skip
    """Returns the memory model of what was tracked."""
    shape = stage.shape_of(size, layers)
    options = stage.options_of(method, shape)
    entry = METHODS[method]
    return Training(
        shape,
        entry.workload_on(shape, options),
        entry.count_parameters(shape, options),
        precision=precision,
        ranks=ranks,
        checkpointing=bool(settings.get("gradient_checkpointing")),
    )


def batch_tokens(examples: Sequence[Example], passes: Sequence[TokenPass]) -> TrainingTokens:
    """Returns the tokens of a batch as a plan counts them; what its passes share is shared."""
    learned = [one for one in examples if one.num_labels]
    inputs = sum(len(one.token_ids) - 1 for one in learned)
    return TrainingTokens(
        rows=len(learned),
        tokens=sum(len(one.token_ids) for one in learned),
        labels=sum(one.num_labels for one in learned),
        shared_prefix=max(0, inputs - sum(round(one.nodes) for one in passes)),
        squares=sum(len(one.token_ids) ** 2 for one in learned),
    )


def compare(method: str, **asked: Any) -> dict[str, Any]:
    """Returns tracked and planned bytes of one method, size and number of ranks."""
    found = track(method, **asked)
    asked = {k: v for k, v in asked.items() if k not in ("card_name", "looked_at", "steps")}
    model = planned(method, found, **{"size": "7b", "layers": None, "ranks": 1} | asked)
    fullest = max(found["passes"], key=lambda one: one.nodes)
    tokens = batch_tokens(found["batch"], found["passes"])
    tracked = max(found["peak"], found["loading"])
    return {
        "method": method, **asked, "nodes": fullest.nodes, "slots": fullest.slots,
        "labels": fullest.labels, "sequences": fullest.sequences, "several": fullest.several,
        "tracked": tracked, "training": found["peak"], "loading": found["loading"],
        "planned": model.peak_bytes(fullest), "planned_training": model.training_bytes(fullest),
        "planned_loading": model.loading_bytes(), "at_peak": found["at_peak"],
        "planned_flops": training_flops(
            model.work, model.shape, tokens, padding=found["positions"] / tokens.tokens - 1
        ),
        "flops": found["flops"], "tokens": found["tokens"],
    }  # fmt: skip


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("methods", nargs="+")
    parser.add_argument("--sizes", default="7b")
    parser.add_argument("--ranks", default="1")
    parser.add_argument("--layers", type=int)
    parser.add_argument("--precision", default="bf16")
    parser.add_argument("--card", default="h200")
    parser.add_argument("--fullest", type=int, default=1, help="batches to look at")
    parser.add_argument("--token-budget", type=int)
    parser.add_argument("--batch-size", type=int)
    parser.add_argument("--top", type=int, default=0)
    parser.add_argument("--json", action="store_true", help="one line of JSON for each")
    given = parser.parse_args()
    settings = {"token_budget": given.token_budget, "batch_size": given.batch_size}
    settings = {name: value for name, value in settings.items() if value}
    for method in given.methods:
        for size in given.sizes.split(","):
            for ranks in map(int, given.ranks.split(",")):
                row = compare(
                    method, size=size, layers=given.layers, ranks=ranks, looked_at=given.fullest,
                    precision=given.precision, card_name=given.card, **settings,
                )  # fmt: skip
                sites = row.pop("at_peak")
                if given.json:
                    print(json.dumps(row), flush=True)
                    continue
                tracked, plan = row["tracked"] / 1e9, row["planned"] / 1e9
                room = 1.1 * tracked + 2
                print(
                    f"{method:20} {size:4} {ranks} ranks, pass {row['nodes']:6,} nodes "
                    f"{row['slots']:6,} slots {row['labels']:6,} labels: tracked {tracked:7.2f}, "
                    f"plan {plan:7.2f} GB, ratio {(plan - CONTEXT_BYTES / 1e9) / tracked:.3f} "
                    f"{'ok' if tracked <= plan <= room else 'OUT'} (training "
                    f"{row['training'] / 1e9:.2f}/{row['planned_training'] / 1e9:.2f}, loading "
                    f"{row['loading'] / 1e9:.2f}/{row['planned_loading'] / 1e9:.2f}); TFLOP "
                    f"{row['flops'] / 1e12:.1f}/{row['planned_flops'] / 1e12:.1f}",
                    flush=True,
                )
                for site, size_ in sites[: given.top]:
                    print(f"    {size_ / 1e9:8.3f} GB  {site}")


if __name__ == "__main__":
    main()
