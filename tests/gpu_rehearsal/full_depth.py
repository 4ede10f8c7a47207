"""Whole models against `expected_full.json`: 7B on one card, 13B as one rank of several.

    python -m tests.gpu_rehearsal.full_depth                     # all
    python -m tests.gpu_rehearsal.full_depth "lora | h200 bf16"  # by name
    python -m tests.gpu_rehearsal.full_depth --write             # renews the file

Batches are the first of Alpaca in each method's own recipe. Exit code 1 where anything differs.
"""

from __future__ import annotations

from tests.gpu_rehearsal import before_torch  # noqa: F401

# isort: split

import argparse
import logging
import sys
import time
from collections.abc import Callable
from functools import partial
from typing import Any

from tests.gpu_rehearsal import expectations, ranks, step


def one_card(method: str, card: str, steps: int) -> dict[str, Any]:
    """The steps of 7B on a card: the first, and for `full` the one that has the state too."""
    training = step.measure(method, card_name=card, steps=steps, sites=False)
    names = ("train", "train, step 2")
    return {name: one.figures() for name, one in zip(names, training.steps, strict=False)}


def one_rank(method: str, cards: int, steps: int) -> dict[str, Any]:
    """Rank 0 of 13B on A100-80GB."""
    return ranks.measure(method, size="13b", cards=cards, steps=steps, sites=False).figures()


ADAPTERS = ("zero-init-linear", "random-init", "lora")
CASES: dict[str, Callable[[], dict[str, Any]]] = {
    "full | h200 bf16": partial(one_card, "full", "h200", 2),
    **{
        f"{method} | {card} bf16": partial(one_card, method, card, 1)
        for method in ADAPTERS
        for card in ("h200", "a100-80")
    },
    **{
        f"{method} | 13b, rank 0 of {cards} | a100-80 bf16": partial(one_rank, method, cards, steps)
        for method, steps in (("zero-init-linear", 1), ("lora", 1), ("full", 2))
        for cards in (2, 4, 8)
    },
}
"""What is rehearsed at full depth, by the names of the entries."""


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("names", nargs="*", default=list(CASES), metavar="NAME")
    parser.add_argument("--write", action="store_true", help="renew these entries")
    given = parser.parse_args()
    logging.getLogger("harness").setLevel(logging.ERROR)
    failed = 0
    for name in given.names:
        begun = time.perf_counter()
        found = CASES[name]()
        if given.write:
            expectations.write({name: found}, expectations.FULL_DEPTH)
        faults = expectations.faults(name, found, expectations.FULL_DEPTH)
        failed += bool(faults)
        print(f"{name:48} {'FAULT' if faults else 'ok'} ({time.perf_counter() - begun:.0f} s)")
        print("".join(f"      {fault}\n" for fault in faults), end="", flush=True)
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
