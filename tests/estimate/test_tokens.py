"""Counts of tokens, against the rows themselves and the published sizes."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest

from harness.cell.examples import cell_examples
from harness.data.instructions import tokenize
from harness.data.rows import Instruction
from harness.data.sets import choose, read_instructions
from harness.estimate.lengths import row_lengths, training_tokens
from harness.estimate.tokens import known_training_tokens, num_items, scoring_tokens, token_counter
from harness.evaluation.tasks import TaskSpec
from harness.models.shape import ModelShape
from harness.models.tokenizer_files import load_tokenizer
from tests.estimate.conftest import cells_of


def test_counted_tokens_are_those_of_the_chosen_rows(world: Path, tmp_path: Path) -> None:
    cell = cells_of("demo")["tiny-llama/zero-init-linear/30%/seed1"]
    assert cell.train is not None
    count = token_counter(runs_dir=tmp_path, data_root=world, num_rows={None: 600})
    first, again = count(cell), count(cell)  # the second from what was kept
    assert first == again
    assert list((tmp_path / "estimates").glob("lengths-*.json"))
    rows = choose(read_instructions(cell.data, data_root=world).rows, 0.3, 1)
    tokenizer = load_tokenizer(world / "model", cell.model.shape.vocab_size)
    examples = tokenize(rows, tokenizer, cell.train.max_length)
    assert first is not None
    assert first.source == "counted"
    assert first.rows == len(examples)
    assert first.tokens == sum(len(one.token_ids) for one in examples)
    assert first.labels == sum(one.num_labels for one in examples)
    assert first.squares == sum(len(one.token_ids) ** 2 for one in examples)


def test_the_shared_prefix_is_what_rows_of_a_form_begin_with(world: Path) -> None:
    cell = cells_of("demo")["tiny-llama/full/100%/seed0"]
    tokenizer = load_tokenizer(world / "model", cell.model.shape.vocab_size)
    rows = [Instruction("a b", "", "c"), Instruction("d", "", "e f"), Instruction("g", "h", "i")]
    lengths = row_lengths(rows, tokenizer)
    examples = tokenize(rows, tokenizer, 512)
    one, two = examples[0].token_ids, examples[1].token_ids
    assert lengths.shared_prefix[0] == lengths.shared_prefix[1] > 0
    assert one[: lengths.shared_prefix[0]] == two[: lengths.shared_prefix[0]]
    assert one[lengths.shared_prefix[0]] != two[lengths.shared_prefix[0]]


def test_rows_are_cut_at_the_maximal_length(world: Path) -> None:
    cell = cells_of("demo")["tiny-llama/full/100%/seed0"]
    tokenizer = load_tokenizer(world / "model", cell.model.shape.vocab_size)
    lengths = row_lengths([Instruction("a", "", "b")], tokenizer)
    whole = training_tokens(lengths, [0], 512)
    cut = training_tokens(lengths, [0], whole.tokens - 1)
    assert cut.tokens == whole.tokens - 1
    assert cut.labels == whole.labels - 1


@pytest.mark.parametrize("policy", [None, "drop", "fail"])
def test_what_is_counted_of_cut_rows_is_what_is_trained_on(world: Path, policy: str | None) -> None:
    cell = cells_of("demo")["tiny-llama/full/100%/seed0"]
    assert cell.train is not None
    tokenizer = load_tokenizer(world / "model", cell.model.shape.vocab_size)
    data = cell.data.model_copy(update={"on_bad_rows": policy})
    rows = [Instruction("a", "", "b " * n) for n in range(40)] + [Instruction("a " * 99, "", "b")]
    lengths = row_lengths(rows, tokenizer)
    limit = lengths.whole[20]
    found = training_tokens(lengths, range(len(rows)), limit, data)
    train = cell.train.model_copy(update={"max_length": limit})
    cell = cell.model_copy(update={"data": data, "train": train})
    cut = sum(one.is_cut for one in tokenize(rows, tokenizer, limit))
    assert 1 < cut < len(rows)
    if policy == "fail":
        assert f"{cut} of 41 rows are cut, which" in str(found.note(data))
        return
    examples = cell_examples(cell, rows, tokenizer, None)
    assert found.rows == len(examples)
    assert found.tokens == sum(len(one.token_ids) for one in examples)
    assert found.labels == sum(one.num_labels for one in examples)
    dropped = f"{cut} of 41 examples are longer than max_length and dropped"
    lost = "1 of 41 examples have a prompt that fills max_length"
    assert str(found.note(data)).startswith(dropped if policy else lost)


def test_alpaca_is_known_under_llamas_tokenizer_and_estimated_under_others(
    shape_7b: ModelShape,
) -> None:
    known = known_training_tokens("tatsu-lab/alpaca", shape_7b, 52002, 512)
    assert known is not None
    assert known.source == "known"
    assert known.tokens / known.rows == pytest.approx(126.9, abs=0.05)
    assert known.labels / known.tokens == pytest.approx(0.515, abs=0.001)
    other = shape_7b.model_copy(update={"vocab_size": 128256})
    guessed = known_training_tokens("tatsu-lab/alpaca", other, 52002, 512)
    assert guessed is not None
    assert guessed.source == "estimated"
    assert 0.7 < guessed.tokens / known.tokens < 1.3
    assert known_training_tokens("someone/else", shape_7b, 100, 512) is None


def test_benchmarks_scale_with_their_items(shape_7b: ModelShape) -> None:
    whole = scoring_tokens([TaskSpec(name="mmlu")], shape_7b)
    some = scoring_tokens([TaskSpec(name="mmlu", limit=10)], shape_7b)
    assert whole is not None
    assert some is not None
    assert (whole.items, some.items) == (14042, 570)
    assert whole.source == "known"
    assert some.tokens == pytest.approx(whole.tokens * 570 / 14042, rel=1e-3)
    assert num_items(TaskSpec(name="hellaswag")) == 10042


def test_what_is_scored_together_is_computed_once(shape_7b: ModelShape) -> None:
    one, two = TaskSpec(name="truthfulqa_mc1"), TaskSpec(name="truthfulqa_mc2")
    apart = [scoring_tokens([task], shape_7b) for task in (one, two)]
    together = scoring_tokens([one, two], shape_7b)
    assert together is not None
    assert all(part is not None for part in apart)
    assert together.tokens < sum(part.tokens for part in apart if part is not None)
    assert together.items == 817


def test_other_shots_are_an_estimate(shape_7b: ModelShape) -> None:
    few = scoring_tokens([TaskSpec(name="arc_easy", shots=4)], shape_7b)
    none = scoring_tokens([TaskSpec(name="arc_easy")], shape_7b)
    assert few is not None
    assert none is not None
    assert few.source == "estimated"
    assert few.tokens == 5 * none.tokens
    assert replace(few, source="known") != none


def test_a_task_that_was_never_counted_is_estimated_from_its_rows(
    tmp_path: Path, shape_7b: ModelShape
) -> None:
    row = {"question": "q" * 400, "answer": "a #### 1"}
    for split, count in (("test", 10), ("train", 5)):
        lines = "".join(json.dumps(row) + "\n" for _ in range(count))
        (tmp_path / "gsm8k").mkdir(exist_ok=True)
        (tmp_path / "gsm8k" / f"{split}.jsonl").write_text(lines)
    found = scoring_tokens([TaskSpec(name="gsm8k", limit=4)], shape_7b, tmp_path)
    assert found is not None
    assert (found.items, found.source) == (4, "estimated")
    assert found.new_tokens == 4 * 256
    assert found.tokens == pytest.approx(4 * 6 * 102, rel=0.05)
    assert scoring_tokens([TaskSpec(name="gsm8k")], shape_7b) is None
