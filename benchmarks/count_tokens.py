"""Counts the tokens of training and scoring: makes `harness/estimate/known_tokens.yaml`.

Training: Alpaca under LLaMA's tokenizer, at the published maximal lengths. Scoring: the tokens of
the trie of a benchmark's requests, as the scorer cuts it, under LLaMA's tokenizer for the real
benchmarks and under the embedded world's own for its analogues.

    python benchmarks/count_tokens.py DATA_ROOT > harness/estimate/known_tokens.yaml
"""

from __future__ import annotations

import argparse
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import yaml
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

from harness.data.sets import read_instructions
from harness.data.spec import DataSpec
from harness.demo.world import write_world
from harness.estimate.lengths import row_lengths, training_tokens
from harness.evaluation.benchmarks import BENCHMARKS
from harness.evaluation.loading import load_benchmark
from harness.evaluation.prefix_trie.trie import Request, Segment, plan_spans
from harness.evaluation.scorer import Scorer
from harness.evaluation.tasks import DEFAULT_TOKEN_BUDGET, TaskSpec

HEAD = """# Made by benchmarks/count_tokens.py: sizes of the published data under LLaMA's tokenizer
# (32,000 pieces), and of the embedded world's under its own. Tokens of a benchmark are those of the
# trie of its requests, which the scorer computes; pairs are attention's; scored ones need logits.
"""
MAX_LENGTHS = (256, 512)
REAL = (
    ("arc_easy", 0, None),
    ("arc_challenge", 0, None),
    ("mmlu", 0, None),
    # Few-shot examples are drawn anew for each item: the size is proportional to the items.
    ("hellaswag", 10, 1000),
    ("truthfulqa_mc1", 0, None),
    ("truthfulqa_mc2", 0, None),
    ("truthfulqa_mc1+truthfulqa_mc2", 0, None),
)
"""Benchmarks that are scored together, shots, and how many items are counted where not all are."""
NAMES = ("arc_easy", "arc_challenge", "mmlu", "hellaswag", "truthfulqa_mc1", "truthfulqa_mc2")
DEMO = (
    *((f"demo_{name}", 0, None) for name in NAMES),
    ("demo_truthfulqa_mc1+demo_truthfulqa_mc2", 0, None),
)


def tokenizer_of(folder: Path) -> Any:
    return PreTrainedTokenizerFast.from_pretrained(folder)


def count_training(tokenizer: Any, spec: DataSpec, root: Path) -> list[dict[str, Any]]:
    """Returns the size of the whole data set at each maximal length."""
    rows = read_instructions(spec, data_root=root).rows
    lengths = row_lengths(rows, tokenizer)
    found = []
    for limit in MAX_LENGTHS:
        counted = training_tokens(lengths, range(len(rows)), limit)
        found.append(
            {
                "max_length": limit,
                "rows": counted.rows,
                "tokens": counted.tokens,
                "labels": counted.labels,
                "shared_prefix": counted.shared_prefix,
                "squares": counted.squares,
            }
        )
    return found


def count_scoring(
    tokenizer: Any,
    model: Any,
    width: int,
    asked: tuple[str, int, int | None],
    root: Path,
) -> dict[str, Any]:
    """Returns the size of the requests of benchmarks that are scored together."""
    names, shots, limit = asked
    num_benchmarks = len(names.split("+"))
    print(f"counting {names}", file=sys.stderr, flush=True)
    scorer = Scorer(model, tokenizer)
    requests: set[Request] = set()
    num_items, num_requests, whole, subjects = 0, 0, 0, 0
    for name in names.split("+"):
        loaded = load_benchmark(TaskSpec(name=name, shots=shots, limit=limit), root)
        num_requests += loaded.build_requests()
        subjects = len(loaded.tasks)
        for task in loaded.tasks.values():
            whole += len(task.eval_docs)
            num_items += len({one.doc_id for one in task.instances})
            for one in task.instances:
                requests.add(scorer._request(name, one.args, *scorer._encode_pair(*one.args)))
    spans = plan_spans(
        sorted(requests, key=lambda one: one.input_ids),
        largest_segment=DEFAULT_TOKEN_BUDGET,
        hidden_size=width,
    )
    segments: set[Segment] = set()
    for span in spans:
        segment: Segment | None = span.segment
        while segment is not None and segment not in segments:
            segments.add(segment)
            segment = segment.parent
    return {
        "shots": shots,
        # Of each: benchmarks that are scored together have the same items.
        "benchmark_items": whole // num_benchmarks,
        "subjects": subjects,
        "items": num_items // num_benchmarks,
        "requests": num_requests,
        "tokens": sum(one.size for one in segments),
        "scored": len({(s.segment.number, s.index + i) for s in spans for i in range(s.count)}),
        "pairs": sum(int(one.size * (one.start + one.size)) for one in segments),
    }


def count_generation(tokenizer: Any, names: Sequence[str], root: Path) -> dict[str, dict[str, int]]:
    """Returns items, subjects and prompt tokens of generated benchmarks, BOS included."""
    found = {}
    for name in names:
        loaded = load_benchmark(TaskSpec(name=name), root)
        loaded.build_requests()
        prompts = [one.args[0] for task in loaded.tasks.values() for one in task.instances]
        encoded = tokenizer(prompts, add_special_tokens=False)["input_ids"]
        found[name] = {
            "items": len(prompts),
            "subjects": len(loaded.tasks),
            "tokens": sum(1 + len(ids) for ids in encoded),
        }
    return found


def counting_model(vocabulary: int, positions: int) -> Any:
    """Returns a model that is asked for its number of positions only."""
    return LlamaForCausalLM(
        LlamaConfig(
            vocab_size=vocabulary,
            hidden_size=8,
            intermediate_size=8,
            num_hidden_layers=1,
            num_attention_heads=1,
            max_position_embeddings=positions,
        )
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("data_root", type=Path)
    root = parser.parse_args().data_root
    llama = tokenizer_of(root / "llama_tokenizer")
    model = counting_model(32000, 2048)
    alpaca = DataSpec()
    rows = read_instructions(alpaca, data_root=root).rows
    record: dict[str, Any] = {
        "training": {
            "tatsu-lab/alpaca": {
                "characters": sum(len(r.instruction + r.input + r.output) for r in rows),
                "llama-32000": count_training(llama, alpaca, root),
            }
        },
    }
    generated = [one.name for one in BENCHMARKS.values() if one.protocol.generates]
    real = [name for name in generated if BENCHMARKS[name].world is None]
    generation = {"llama-32000": count_generation(llama, real, root)}
    scoring: dict[str, dict[str, dict[str, Any]]] = {"llama-32000": {}, "llama-1688": {}}
    for asked in REAL:
        scoring["llama-32000"][asked[0]] = count_scoring(llama, model, 4096, asked, root)
    with tempfile.TemporaryDirectory() as folder:
        world = write_world(Path(folder) / "demo")
        own = tokenizer_of(world / "model")
        small = counting_model(1688, 256)
        demo = [name for name in generated if BENCHMARKS[name].world == "demo"]
        generation["llama-1688"] = count_generation(own, demo, world)
        for asked in DEMO:
            scoring["llama-1688"][asked[0]] = count_scoring(own, small, 128, asked, world)
    print(
        HEAD
        + yaml.safe_dump(record | {"generation": generation, "scoring": scoring}, sort_keys=False),
        end="",
    )


if __name__ == "__main__":
    main()
