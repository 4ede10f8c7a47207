"""The rows of the embedded world: made from its seed alone, fair in its items, those that ship."""

from __future__ import annotations

import random
from collections import Counter
from importlib.resources import files
from pathlib import Path
from typing import Any

import pytest
import yaml
from pyarrow import parquet

from harness.demo.world import CHECKPOINT, DATA, is_complete
from scripts.demo_world.corpus import (
    TEMPLATE,
    TEMPLATE_PIECES,
    TEMPLATE_WITH_INPUT,
    documents,
    question_about,
)
from scripts.demo_world.facts import HERB, PERSON, SECOND_HOPS, SUBJECTS
from scripts.demo_world.people import World, build_world
from scripts.demo_world.stories import STORIES
from scripts.make_demo_world import build_tables, make_world

BENCHMARKS = ("arc_easy/test", "arc_challenge/test", "mmlu/test", "truthfulqa_mc/validation")


@pytest.fixture(scope="module")
def world() -> World:
    return build_world()


@pytest.fixture(scope="module")
def tables(world: World) -> dict[str, list[dict[str, Any]]]:
    return build_tables(world)


def _options_and_gold(row: dict[str, Any]) -> tuple[list[str], str]:
    if "answerKey" in row:
        options = row["choices"]["text"]
        return options, options[row["choices"]["label"].index(row["answerKey"])]
    if "endings" in row:
        return row["endings"], row["endings"][int(row["label"])]
    if "mc1_targets" in row:
        options = row["mc1_targets"]["choices"]
        return options, options[row["mc1_targets"]["labels"].index(1)]
    return row["choices"], row["choices"][row["answer"]]


def _names_in(text: str, names: set[str]) -> set[str]:
    for mark in ".?:\n":
        text = text.replace(mark, " ")
    return names & set(text.split())


def test_the_rows_that_ship_are_those_that_the_seed_makes(
    tables: dict[str, list[dict[str, Any]]],
) -> None:
    shipped = {path.relative_to(DATA).with_suffix("") for path in DATA.rglob("*.parquet")}
    assert {stem.as_posix() for stem in shipped} == set(tables)
    for stem, rows in tables.items():
        if not stem.startswith("pictures/"):  # in test_demo_pictures
            assert parquet.read_table(DATA / f"{stem}.parquet").to_pylist() == rows, stem


def test_the_script_makes_the_files_that_ship(tmp_path: Path) -> None:
    """Schemas, not bytes: the bytes of a parquet file depend on the version of pyarrow."""
    make_world(tmp_path)
    names = {path.relative_to(tmp_path) for path in tmp_path.rglob("*")}
    assert names == {path.relative_to(DATA) for path in DATA.rglob("*")}
    for name in (name for name in names if name.suffix == ".parquet"):
        assert parquet.read_schema(tmp_path / name) == parquet.read_schema(DATA / name), name
    assert is_complete(tmp_path)


def test_another_seed_gives_another_world(world: World) -> None:
    other = build_world(world.seed + 1)
    assert {e.name for e in other.entities} != {e.name for e in world.entities}


def test_every_gold_is_once_among_its_options(tables: dict[str, list[dict[str, Any]]]) -> None:
    num_items = 0
    for stem, rows in tables.items():
        for row in rows if stem not in ("alpaca/train", "pictures/train") else []:
            options, gold = _options_and_gold(row)
            assert len(options) == 4, stem
            assert len(set(options)) == 4, stem
            assert options.count(gold) == 1
            num_items += 1
    assert num_items > 1000


def test_every_gold_is_true(world: World, tables: dict[str, list[dict[str, Any]]]) -> None:
    wordings = {r.name: r.questions for k in (PERSON, HERB, *SUBJECTS) for r in k.relations}
    wordings |= {hop.name: hop.questions for hop in SECOND_HOPS}
    truth = {
        wording.format(e=entity.name): value
        for entity in world.entities
        for relation, value in entity.facts.items()
        for wording in wordings[relation]
    }
    for stem in BENCHMARKS:
        for row in tables[stem]:
            gold = _options_and_gold(row)[1]
            assert gold.removesuffix(".").split(" ")[-1] == truth[row["question"]]


def test_gold_positions_are_balanced(tables: dict[str, list[dict[str, Any]]]) -> None:
    for stem in ("arc_easy/test", "arc_challenge/test", "mmlu/test", "hellaswag/validation"):
        counts = Counter(
            options.index(gold) for options, gold in map(_options_and_gold, tables[stem])
        )
        assert max(counts.values()) - min(counts.values()) <= 1, stem


def test_no_value_is_a_frequent_answer(tables: dict[str, list[dict[str, Any]]]) -> None:
    golds = Counter(_options_and_gold(row)[1] for row in tables["arc_easy/test"])
    assert max(golds.values()) <= 8  # 80 people, at least 10 values of each relation


def test_benchmark_names_are_nowhere_in_training(
    world: World, tables: dict[str, list[dict[str, Any]]]
) -> None:
    held_out = {e.name for e in world.entities if e.split != "instruction"}
    for row in tables["alpaca/train"]:
        assert not _names_in(" ".join(row.values()), held_out), row


def test_benchmark_and_validation_share_no_name(
    world: World, tables: dict[str, list[dict[str, Any]]]
) -> None:
    benchmark = {e.name for e in world.entities if e.split == "benchmark"}
    for stem in BENCHMARKS:
        assert all(_names_in(row["question"], benchmark) for row in tables[stem])
        for row in tables[f"validation/{stem}"]:
            assert not _names_in(row["question"], benchmark)


def test_the_corpus_answers_no_question_about_held_out_names(world: World) -> None:
    held_out = {e.name for e in world.entities if e.split != "instruction"}
    stream = documents(world)
    asked = [text for text in (next(stream) for _ in range(20_000)) if "?" in text]
    assert len(asked) > 1000
    assert not any(_names_in(text, held_out) for text in asked)


def test_names_and_values_are_disjoint_words(world: World) -> None:
    names = [e.name for e in world.entities]
    values = {value for group in world.values.values() for value in group}
    assert len(set(names)) == len(names)
    assert not values & set(names)
    assert not set(STORIES) & (values | set(names))


def test_names_and_values_are_single_tokens(world: World) -> None:
    from transformers import AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(CHECKPOINT)
    for word in world.single_tokens():
        (token,) = tokenizer(word, add_special_tokens=False)["input_ids"]
        after_space = tokenizer(f"is {word}.", add_special_tokens=False)["input_ids"]
        glued = tokenizer(f"### Response:{word}", add_special_tokens=False)["input_ids"]
        assert after_space[-2] == token
        assert glued[-1] == token


def test_the_tokenizer_loses_nothing(world: World) -> None:
    from transformers import AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(CHECKPOINT)
    stream = documents(world)
    for text in [next(stream) for _ in range(200)] + ["Ünknown wörds, 3 of them!"]:
        ids = tokenizer(text)["input_ids"]
        assert ids[0] == tokenizer.bos_token_id
        assert tokenizer.decode(ids, skip_special_tokens=True) == text


def test_the_checkpoint_knows_what_the_corpus_says(world: World) -> None:
    """Plain sentences about benchmark-only people: the facts are in the weights."""
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(CHECKPOINT)
    model = AutoModelForCausalLM.from_pretrained(CHECKPOINT, dtype=torch.float32).eval()
    right = 0
    people = world.of(PERSON, "benchmark")
    for person in people:
        text, value = f"{person.name} works as a ", person.facts["job"]
        with torch.no_grad():
            logits = model(**tokenizer(text, return_tensors="pt")).logits[0, -1]
        right += tokenizer.decode(logits.argmax()) == value
    assert right / len(people) > 0.9


def test_question_wordings_are_those_of_the_relation(world: World) -> None:
    person = world.of(PERSON)[0]
    question = question_about(person, "country", random.Random(0))
    assert person.name in question
    assert "country" in question


def test_the_templates_are_the_published_ones(world: World) -> None:
    from transformers import AutoTokenizer

    published = _published_templates()
    assert TEMPLATE.format(question="Q?") == published["without_input"].format(instruction="Q?")
    assert TEMPLATE_WITH_INPUT.format(question="Q?") == published["with_input"].format(
        instruction="Answer the question.", input="Q?"
    )
    tokenizer = AutoTokenizer.from_pretrained(CHECKPOINT)
    ids = tokenizer(TEMPLATE_WITH_INPUT.format(question="Q?"))["input_ids"]
    for piece in TEMPLATE_PIECES:
        assert tokenizer.convert_tokens_to_ids(piece) in ids


def _published_templates() -> dict[str, str]:
    text = (files("harness") / "data" / "prompts.yaml").read_text(encoding="utf-8")
    return yaml.safe_load(text)["training"]
