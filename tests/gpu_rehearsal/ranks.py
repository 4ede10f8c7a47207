"""A cell of several cards, seen from rank 0; no other rank exists.

    python -m tests.gpu_rehearsal.ranks --size 7b --cards 4
    python -m tests.gpu_rehearsal.ranks --size 13b --cards 2 --method lora

`full` is divided by FSDP2: torch's `fake` process group answers every collective at once, and
zbench's own `Parallel`, `Ranks` and `fit` run. What comes back of a collective has no numbers; its
sizes are those of a real group. Adapters go through DDP, whose C++ part reads what collectives give
back and crashes on a fake group: rank 0 of an adapter is a process alone that trains its shard of
the optimizer batch, without DDP's buckets, which are as large as the adapter's gradients.
"""

from __future__ import annotations

from tests.gpu_rehearsal import before_torch  # noqa: F401

# isort: split

import argparse
import contextlib
import logging
import os
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any
from unittest import mock

import torch

from harness.training import parallel
from harness.training.process_group import RankInfo
from tests.gpu_rehearsal import stage
from tests.gpu_rehearsal.card import rehearsal
from tests.gpu_rehearsal.cards import CARDS
from tests.gpu_rehearsal.steps import Step, recorded_steps


@dataclass
class Rank:
    """What rank 0 holds, in bytes, from the loaded model to the gathered one."""

    loaded_peak: int = 0
    sharding_peak: int = 0
    """While the model is divided; 0 for adapters, which are not."""
    sharded: int = 0
    """Alive before the first step."""
    gathering_peak: int = 0
    """While the trained tensors are gathered on rank 0; 0 for adapters."""
    steps: list[Step] = field(default_factory=list)

    def figures(self) -> dict[str, Any]:
        """What is expected of a rank, and compared."""
        sizes = {
            "loaded_peak_gb": self.loaded_peak,
            "sharding_peak_gb": self.sharding_peak,
            "sharded_gb": self.sharded,
            "gathering_peak_gb": self.gathering_peak,
        }
        rounded = {name: round(size / 1e9, 3) for name, size in sizes.items()}
        return rounded | {f"step {n}": step.figures() for n, step in enumerate(self.steps, 1)}


def measure(
    method: str,
    *,
    size: str,
    layers: int | None = None,
    cards: int,
    card_name: str = "a100-80",
    precision: str = "bf16",
    steps: int = 2,
    sites: bool = True,
    **settings: Any,
) -> Rank:
    """Trains for some steps as rank 0 of `cards`.

    Args:
        sites: whether call sites are kept, at a cost in time.
        settings: of the training, beside the method's recipe, such as `token_budget`.
    """
    shape = stage.shape_of(size, layers)
    spec = stage.train_spec(method, precision=precision, **settings)
    examples = stage.examples(spec.batch_size * steps, spec.max_length)
    sharded = method == "full" and cards > 1
    group = _fake_group(cards) if sharded else _shard_alone(cards)
    with group, rehearsal(card_name) as card:
        card.memory.keep_sites = sites
        model, entry, hook = stage.apply(
            method, stage.base_model(shape, precision), shape, cards=cards
        )
        rank = Rank(loaded_peak=card.peak)
        card.reset()
        with recorded_steps(card) as recorded:
            stage.fit(model, entry, hook, examples, spec, precision)
        rank.steps = recorded.steps
        rank.sharded = rank.steps[0].live_before
        if sharded:
            rank.sharding_peak = card.peak_before
            card.reset()
            parallel.gather_trained(model)
            rank.gathering_peak = card.peak
    return rank


@contextlib.contextmanager
def _fake_group(size: int) -> Iterator[None]:
    from torch.testing._internal.distributed.fake_pg import FakeStore

    with mock.patch.dict(os.environ, RankInfo(0, size).environment):  # as zbench starts a rank
        torch.distributed.init_process_group("fake", rank=0, world_size=size, store=FakeStore())
        try:
            yield
        finally:
            torch.distributed.destroy_process_group()


@contextlib.contextmanager
def _shard_alone(size: int) -> Iterator[None]:
    """Gives a process alone the sequences that rank 0 of `size` would have."""
    own = parallel.Ranks.shard

    def shard(ranks: parallel.Ranks, sequences: Any) -> Any:
        return own(parallel.Ranks(0, size, ranks.device), sequences)

    with mock.patch.object(parallel.Ranks, "shard", shard):
        yield


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--method", default="full")
    parser.add_argument("--size", default="7b", choices=stage.SIZES)
    parser.add_argument("--layers", type=int)
    parser.add_argument("--cards", type=int, default=4)
    parser.add_argument("--card", default="a100-80", choices=CARDS)
    parser.add_argument("--precision", default="bf16", choices=stage.DTYPES)
    parser.add_argument("--token-budget", type=int)
    given = parser.parse_args()
    logging.getLogger("harness").setLevel(logging.ERROR)
    settings = {} if given.token_budget is None else {"token_budget": given.token_budget}
    begun = time.perf_counter()
    rank = measure(
        given.method,
        size=given.size,
        layers=given.layers,
        cards=given.cards,
        card_name=given.card,
        precision=given.precision,
        **settings,
    )
    wrapped = rank.steps[0].wrapped_by
    print(f"{given.method} {given.size}, rank 0 of {given.cards} ({wrapped}):")
    for name, value in rank.figures().items():
        print(f"   {name}: {value}")
    for number, step in enumerate(rank.steps, 1):
        print(f"   at the peak of step {number}:")
        for site, size in step.at_peak:
            print(f"      {size / 1e9:5.1f} GB {site}")
    print(f"   rehearsed in {time.perf_counter() - begun:.0f} s")


if __name__ == "__main__":
    main()
