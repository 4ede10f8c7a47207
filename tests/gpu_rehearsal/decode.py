"""One step of generation: a token for each of 64 responses, from the last tokens to the next ones.

    python -m tests.gpu_rehearsal.decode zero-init-linear lora --size 7b --top 20

The prompts are of unlike lengths, as in a benchmark. The step that is counted follows another one.
"""

from __future__ import annotations

from tests.gpu_rehearsal import before_torch  # noqa: F401

# isort: split

import argparse

from harness.evaluation.benchmark import Decoding
from harness.evaluation.paper.model import GeneratingModel
from harness.evaluation.paper.pool import Pool, Prefix, prefill_prompts
from harness.evaluation.paper.sampling import choose_tokens
from harness.models.kept import weights_stay
from tests.gpu_rehearsal import stage
from tests.gpu_rehearsal.card import rehearsal
from tests.gpu_rehearsal.cards import CARDS
from tests.gpu_rehearsal.counting import Counts
from tests.gpu_rehearsal.steps import figures_of

DECODING = Decoding(temperature=0.1, top_p=0.75, max_new_tokens=512, seed=1)
ROWS, SHORTEST = 64, 120
"""Responses side by side; tokens of the shortest prompt, each other one being a token longer."""


def measure(
    method: str, *, size: str, layers: int | None, card_name: str, precision: str
) -> Counts:
    """What one step runs on the card."""
    shape = stage.shape_of(size, layers)
    with rehearsal(card_name) as card:
        model = stage.apply(method, stage.base_model(shape, precision), shape)[0].eval()
        generating = GeneratingModel(
            model, stage.tokenizer(), decoding=DECODING, precision=precision
        )
        prompts = [tuple(range(1, SHORTEST + row)) for row in range(ROWS)]
        with generating.autocast(), weights_stay():
            pool, tokens = Pool(model), [5] * ROWS
            pool.arrange([], [(prefill_prompts(model, prompts, Prefix((), [])), range(ROWS))])
            for _ in range(2):
                card.reset()
                tokens = choose_tokens(pool.step(tokens), DECODING, [0.5] * ROWS)
        return card.counts


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("methods", nargs="+")
    parser.add_argument("--size", default="7b", choices=stage.SIZES)
    parser.add_argument("--layers", type=int)
    parser.add_argument("--card", default="h200", choices=CARDS)
    parser.add_argument("--precision", default="bf16", choices=stage.DTYPES)
    parser.add_argument("--top", type=int, default=0, help="call sites to print")
    given = parser.parse_args()
    for method in given.methods:
        counts = measure(
            method,
            size=given.size,
            layers=given.layers,
            card_name=given.card,
            precision=given.precision,
        )
        print(f"{method}:", ", ".join(f"{k} {v}" for k, v in figures_of(counts).items()))
        for site, ops in counts.ops_by_site.most_common(given.top):
            print(f"   {ops:6,} ops, {counts.launches_by_site[site]:6,} launches at {site}")


if __name__ == "__main__":
    main()
