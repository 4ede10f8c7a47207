"""Measures zbench's generation against lm-eval's own `HFLM.generate_until`, on ARC's prompts.

    ZBENCH_DATA_ROOT=... python benchmarks/generation_speed.py [--quick] [--json] [--models 110M]

Both get the same prompts of the paper's protocol, the same sampling settings and the same largest
number of new tokens, in one process, in turn; each time is the median of the repeats. HFLM runs
with the better of 8 and 32 prompts per batch. The models are random and never say that they are
done, so two cases are made: `fixed`, where every response has the largest number of tokens and is
decoded greedily, so that the texts can be compared; and `varied`, where the end of text comes with
the same chance at each step and the protocol's sampling is used. There both draw their own numbers,
so that tokens per second are compared.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import logging
import os
import statistics
import sys
from collections.abc import Iterator
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import torch
from lm_eval.api.instance import Instance
from lm_eval.models.huggingface import HFLM
from transformers import AutoTokenizer

sys.path.insert(0, str(Path(__file__).parents[1]))

from benchmarks.measuring import timed
from benchmarks.subjects import load_model
from harness.evaluation.benchmarks import BENCHMARKS, Decoding
from harness.evaluation.loading import load_benchmark
from harness.evaluation.paper.model import GeneratingModel
from harness.evaluation.tasks import DEFAULT_NUM_ROWS, TaskSpec

HFLM_BATCH_SIZES = (8, 32)
ITEMS = {"15M": 192, "110M": 96, "7B": 256}
QUICK_ITEMS = {"15M": 64, "110M": 40, "7B": 64}
NEW_TOKENS = {"fixed": 32, "varied": 128}
"""Largest number; the protocol's 512 would only favour who ends each response by itself."""
MEAN_TOKENS = 32
"""Of a response in `varied`."""


@dataclass(frozen=True)
class Measured:
    """One case with one model."""

    case: str
    model: str
    items: int
    ratio: float
    """Our tokens per second over HFLM's."""
    seconds: float
    hflm_seconds: float
    hflm_batch_size: int
    tokens_per_second: float
    hflm_tokens_per_second: float
    prompt_tokens: int
    computed_prompt_tokens: int
    """Without what all prompts begin with, but once."""
    token_limit: float | None
    """Tokens that HFLM feeds, padding apart, over those that have to be computed; None where HFLM
    goes on with responses that have ended."""
    same_texts: int | None
    """Greedy texts that are equal; low bits may move a near-tie of a random model."""


def requests_of(items: int, root: Path) -> list[Instance]:
    """Returns the requests of ARC's first items: half of Easy, half of Challenge."""
    found = []
    for name in ("paper_arc_easy", "paper_arc_challenge"):
        loaded = load_benchmark(TaskSpec(name=name, limit=items // 2), root)
        loaded.build_requests()
        found += [one for task in loaded.tasks.values() for one in task.instances]
    return found


def with_settings(requests: list[Instance], decoding: Decoding) -> list[Instance]:
    """Returns the requests with their decoding as HFLM reads it."""
    settings: dict[str, Any] = {"until": [], "max_gen_toks": decoding.max_new_tokens}
    if decoding.temperature:
        settings |= {
            "do_sample": True,
            "temperature": decoding.temperature,
            "top_p": decoding.top_p,
        }
        settings |= {"top_k": 0}  # else transformers takes the likeliest 50
    else:
        settings |= {"do_sample": False, "temperature": 0.0}
    return [
        Instance("generate_until", doc={}, arguments=(one.args[0], dict(settings)), idx=0,
                 metadata=(one.task_name, number, 1))
        for number, one in enumerate(requests)
    ]  # fmt: skip


@contextlib.contextmanager
def ending(model: Any, end_token: int, share: float) -> Iterator[None]:
    """Makes every response end with this chance at each step; 0 for never."""
    torch.manual_seed(0)

    def change(_head: Any, _arguments: Any, logits: torch.Tensor) -> torch.Tensor:
        ends = torch.rand(logits.shape[:-1], device=logits.device) < share
        logits = logits.clone()
        logits[..., end_token] = torch.where(ends, 1e4, -1e4).to(logits.dtype)
        return logits

    hook = model.get_output_embeddings().register_forward_hook(change)
    try:
        yield
    finally:
        hook.remove()


def measure(arguments: argparse.Namespace, name: str, case: str, model: Any) -> Measured:
    """Measures one case with one model."""
    tokenizer = AutoTokenizer.from_pretrained(arguments.data_root / "llama_tokenizer")
    decoding = replace(BENCHMARKS["paper_arc_easy"].decoding, max_new_tokens=NEW_TOKENS[case])
    if case == "fixed":
        decoding = replace(decoding, temperature=0.0)
    items = (QUICK_ITEMS if arguments.quick else ITEMS)[name]
    requests = with_settings(requests_of(items, arguments.data_root), decoding)
    peers = {
        size: HFLM(pretrained=model, tokenizer=tokenizer, batch_size=size, add_bos_token=True)
        for size in HFLM_BATCH_SIZES
    }
    ours: list[tuple[float, int]] = []
    theirs: dict[int, list[tuple[float, int]]] = {size: [] for size in peers}
    count = _TokenCount()
    share = 1 / MEAN_TOKENS if case == "varied" else 0.0
    with ending(model, tokenizer.eos_token_id, share):
        for one in (*peers.values(), _speaker(model, tokenizer, decoding)):  # warm
            one.generate_until(requests[:2], disable_tqdm=True)
        for _ in range(arguments.repeats):
            for size, peer in peers.items():
                with count.of(peer):
                    seconds, texts = timed(
                        lambda peer=peer: peer.generate_until(requests, disable_tqdm=True)  # type: ignore[misc]
                    )
                theirs[size].append((seconds, count.tokens))
            speaker = _speaker(model, tokenizer, decoding)
            seconds, own_texts = timed(lambda: speaker.generate_until(requests))  # noqa: B023
            tokens = sum(len(one.tokens) + one.ended for one in speaker.responses.values())
            ours.append((seconds, tokens))
    rates = {size: statistics.median(n / s for s, n in found) for size, found in theirs.items()}
    best = max(rates, key=rates.__getitem__)
    rate = statistics.median(n / s for s, n in ours)
    prompts = [speaker.encode_prompt(one.args[0]) for one in requests]
    shared = len(os.path.commonprefix(prompts))  # type: ignore[type-var]
    lengths = sum(map(len, prompts))
    computed = lengths - shared * (len(prompts) - 1)
    generated = len(prompts) * decoding.max_new_tokens
    return Measured(
        case=case,
        model=name,
        items=len(requests),
        ratio=rate / rates[best],
        seconds=statistics.median(s for s, _ in ours),
        hflm_seconds=statistics.median(s for s, _ in theirs[best]),
        hflm_batch_size=best,
        tokens_per_second=rate,
        hflm_tokens_per_second=rates[best],
        prompt_tokens=lengths,
        computed_prompt_tokens=computed,
        token_limit=None if share else (lengths + generated) / (computed + generated),
        same_texts=None if decoding.temperature else sum(
            a.strip() == b.strip() for a, b in zip(texts, own_texts, strict=True)
        ),
    )  # fmt: skip


def _speaker(model: Any, tokenizer: Any, decoding: Decoding) -> GeneratingModel:
    return GeneratingModel(model, tokenizer, decoding=decoding, num_rows=DEFAULT_NUM_ROWS)


class _TokenCount:
    """Counts what HFLM generates, up to each first end of text."""

    tokens = 0

    @contextlib.contextmanager
    def of(self, peer: HFLM) -> Iterator[None]:
        """Counts while the context lasts."""
        self.tokens, end, plain = 0, peer.tokenizer.eos_token_id, peer._model_generate

        def counting(context: torch.Tensor, **settings: Any) -> torch.Tensor:
            found = plain(context=context, **settings)
            for row in found[:, context.shape[1] :].tolist():
                self.tokens += row.index(end) + 1 if end in row else len(row)
            return found

        peer._model_generate = counting
        try:
            yield
        finally:
            del peer._model_generate


def parse() -> argparse.Namespace:
    """Returns the command line."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--models", nargs="+", choices=ITEMS, default=["110M"])
    parser.add_argument("--cases", nargs="+", choices=NEW_TOKENS, default=list(NEW_TOKENS))
    parser.add_argument("--repeats", type=int, default=None)
    parser.add_argument("--quick", action="store_true", help="few items, one repeat")
    parser.add_argument("--json", action="store_true", help="one object, for machines")
    parser.add_argument("--data-root", type=Path, default=os.environ.get("ZBENCH_DATA_ROOT"))
    arguments = parser.parse_args()
    if arguments.data_root is None:
        parser.error("name the folder of the data sets with --data-root or ZBENCH_DATA_ROOT")
    arguments.repeats = arguments.repeats or (1 if arguments.quick else 3)
    return arguments


def main() -> None:
    """Prints a table of ratios, or one JSON object {case: {model: ...}}."""
    arguments = parse()
    for name in ("transformers", "lm_eval"):
        logging.getLogger(name).setLevel(logging.ERROR)
    if not arguments.json:
        print("case     model  items  ratio    ours tok/s  HFLM tok/s (batch)  same greedy texts")
    found: dict[str, dict[str, Any]] = {}
    for name in arguments.models:
        model = load_model(name)
        for case in arguments.cases:
            one = measure(arguments, name, case, model)
            found.setdefault(case, {})[name] = asdict(one)
            if not arguments.json:
                same = "-" if one.same_texts is None else f"{one.same_texts} of {one.items}"
                print(
                    f"{case:8} {name:5} {one.items:6} {one.ratio:5.2f}×",
                    f"{one.tokens_per_second:12.1f} {one.hflm_tokens_per_second:12.1f}",
                    f"({one.hflm_batch_size:2})  {same:>18}",
                    flush=True,
                )
    if arguments.json:
        print(json.dumps(found))


if __name__ == "__main__":
    main()
