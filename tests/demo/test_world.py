"""The embedded world: made from its seed alone, fair in its items, complete as a data root."""

from __future__ import annotations

import json
import subprocess
import sys
from collections import Counter
from importlib.resources import files
from pathlib import Path
from typing import Any

import pytest

from harness.demo.corpus import (
    TEMPLATE,
    TEMPLATE_PIECES,
    TEMPLATE_WITH_INPUT,
    documents,
    question_about,
)
from harness.demo.facts import HERB, PERSON, SECOND_HOPS, SUBJECTS
from harness.demo.people import World, build_world
from harness.demo.stories import STORIES
from harness.demo.world import CHECKPOINT, CHECKPOINT_FILES, TASKS, build_tables, write_world
from harness.errors import StorageError

BENCHMARKS = ("arc_easy/test", "arc_challenge/test", "mmlu/test", "truthfulqa_mc/validation")


@pytest.fixture(scope="module")
def world() -> World:
    return build_world()


@pytest.fixture(scope="module")
def tables(world: World) -> dict[str, list[dict[str, Any]]]:
    return build_tables(world)


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_world(tmp_path_factory.mktemp("data") / "world")


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


def test_same_seed_gives_the_same_bytes(root: Path, tmp_path: Path) -> None:
    code = "import sys, pathlib; from harness.demo.world import write_world as w; "
    code += "w(pathlib.Path(sys.argv[1]))"
    subprocess.run([sys.executable, "-c", code, str(tmp_path / "again")], check=True)
    first, second = (json.loads((f / "world.json").read_text()) for f in (root, tmp_path / "again"))
    assert first == second
    assert first["sha256"]


def test_another_seed_gives_another_world(world: World) -> None:
    other = build_world(world.seed + 1)
    assert {e.name for e in other.entities} != {e.name for e in world.entities}


def test_a_second_call_writes_nothing(root: Path) -> None:
    before = {path: path.stat().st_mtime_ns for path in root.rglob("*")}
    assert write_world(root) == root
    assert {path: path.stat().st_mtime_ns for path in root.rglob("*")} == before


def test_a_damaged_world_is_made_anew(tmp_path: Path) -> None:
    root = write_world(tmp_path / "world")
    victim = root / "arc_easy" / "test.parquet"
    whole = victim.read_bytes()
    victim.write_bytes(whole[:100])
    write_world(root)
    assert victim.read_bytes() == whole
    assert [path.name for path in tmp_path.iterdir()] == ["world"]


def test_a_foreign_folder_is_left_alone(tmp_path: Path) -> None:
    (tmp_path / "thesis.txt").write_text("years of work")
    with pytest.raises(StorageError, match="not a demo world"):
        write_world(tmp_path)
    assert (tmp_path / "thesis.txt").read_text() == "years of work"


def test_a_file_in_the_way_is_one_clear_line(tmp_path: Path) -> None:
    (tmp_path / "world").write_text("not a folder")
    with pytest.raises(StorageError, match="cannot write the demo world"):
        write_world(tmp_path / "world")


def test_the_files_have_the_columns_of_the_real_benchmarks(root: Path) -> None:
    from pyarrow import parquet

    columns = {
        "alpaca/train": ["instruction", "input", "output"],
        "arc_easy/test": ["id", "question", "choices", "answerKey"],
        "mmlu/test": ["question", "subject", "choices", "answer"],
        "mmlu/dev": ["question", "subject", "choices", "answer"],
        "truthfulqa_mc/validation": ["question", "mc1_targets", "mc2_targets"],
        "validation/arc_challenge/test": ["id", "question", "choices", "answerKey"],
    }
    for stem, expected in columns.items():
        assert parquet.read_schema(root / f"{stem}.parquet").names == expected, stem
    assert {"ctx", "endings", "label"} <= set(
        parquet.read_schema(root / "hellaswag" / "validation.parquet").names
    )


def test_every_gold_is_once_among_its_options(tables: dict[str, list[dict[str, Any]]]) -> None:
    num_items = 0
    for stem, rows in tables.items():
        for row in rows if not stem.endswith("alpaca/train") else []:
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


def test_the_checkpoint_loads_and_is_small(root: Path) -> None:
    import torch
    from transformers import AutoModelForCausalLM

    model = AutoModelForCausalLM.from_pretrained(root / "model", dtype=torch.float32)
    assert 1_000_000 < model.num_parameters() < 1_300_000
    assert sum(path.stat().st_size for path in CHECKPOINT.iterdir()) <= 3 * 1024**2
    assert {path.name for path in CHECKPOINT.iterdir()} == set(CHECKPOINT_FILES)
    logits = model(input_ids=torch.tensor([[0, 5, 6]])).logits
    assert torch.isfinite(logits).all()


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
    import random

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


def test_every_task_file_asks_in_the_template_and_holds_no_address() -> None:
    from lm_eval.tasks._yaml_loader import load_yaml

    question = {"mmlu": "{{question.strip()}}"}
    paths = sorted(TASKS.glob("*.yaml"))
    assert len(paths) == 5 + len(SUBJECTS)
    for file in paths:
        config = load_yaml(file)
        assert config["task"] == file.stem
        assert not {"dataset_path", "dataset_kwargs", "custom_dataset"} & set(config)
        assert config["output_type"] == "multiple_choice"
        assert config["metadata"]["version"]
        if file.stem == "demo_hellaswag":  # raw text, as lm-eval's own
            continue
        asked = question.get(file.stem.split("_")[1], "{{question}}")
        expected = _published_templates()["without_input"].format(instruction=asked)
        assert config["doc_to_text"] == expected
        assert config["target_delimiter"] == ""


def _published_templates() -> dict[str, str]:
    import yaml

    text = (files("harness") / "data" / "prompts.yaml").read_text(encoding="utf-8")
    return yaml.safe_load(text)["training"]


def test_planning_imports_no_torch() -> None:
    code = "import sys, harness.demo.world as w; "
    code += "print({'torch', 'transformers', 'pandas'} & set(sys.modules))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "set()"
