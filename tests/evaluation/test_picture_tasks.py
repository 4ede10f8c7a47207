"""Tasks of one's own whose YAML shows pictures, through lm-eval's own task objects."""

from __future__ import annotations

import io
from dataclasses import replace
from pathlib import Path
from typing import Any

import PIL.Image
import pytest
from datasets import Dataset, Features, Image, List, Value

from harness.errors import EvaluationError
from harness.evaluation import evaluate
from harness.evaluation.benchmarks import BENCHMARKS
from harness.evaluation.items import question_id
from harness.evaluation.loading import load_benchmark
from harness.evaluation.local_data import undecoded
from harness.evaluation.scores import TaskOutcome
from harness.evaluation.tasks import LocalFile, TaskSpec
from harness.readers.pictures import Picture
from tests.evaluation.conftest import png, write_rows
from tests.evaluation.test_pictures import encode, looking

COMMON = 'test_split: test\nmetadata: {version: 1}\ndoc_to_text: "{{question}}"\n'
CHOICE = 'output_type: multiple_choice\ndoc_to_choice: "{{options}}"\ndoc_to_target: 0\n'
ANSWER = """output_type: generate_until
doc_to_target: "{{options[0]}}"
generation_kwargs: {until: ["\\n"], max_gen_toks: 5}
metric_list: [{metric: exact_match, aggregation: mean, higher_is_better: true}]
"""
TASKS = {
    "look": CHOICE + "doc_to_image: image\n",
    "look_opened": CHOICE + "doc_to_image: !function code.opened\n",
    "look_twice": CHOICE + "doc_to_image: [image, image]\n",
    "look_text": CHOICE + "doc_to_image: question\n",
    "say": ANSWER + "doc_to_image: image\n",
    "say_text": ANSWER,
}
CODE = """
import io
from PIL import Image

def opened(doc):
    held = doc["image"]
    return [] if held is None else [Image.open(io.BytesIO(held["bytes"]))]
"""
COLOURS = [None, "red", "blue", None, "red"]


@pytest.fixture(scope="module")
def tasks(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("tasks")
    for name, text in TASKS.items():
        own = text.replace("doc_to_target: 0", 'doc_to_target: "{{gold}}"')
        (folder / f"{name}.yaml").write_text(f"task: {name}\n{COMMON}{own}", encoding="utf-8")
    (folder / "code.py").write_text(CODE, encoding="utf-8")
    rows = [
        {
            "question": "river stone",
            "options": ["cloud", "apple lamp"],
            "gold": 1,
            "image": colour and {"bytes": png(colour), "path": None},
        }
        for colour in COLOURS
    ]
    write_rows(folder / "rows.parquet", rows)
    return folder


def spec(name: str, folder: Path) -> TaskSpec:
    file = LocalFile(task=name, split="test", path=str(folder / "rows.parquet"))
    return TaskSpec(name=name, include=str(folder), files=(file,))


def score(name: str, folder: Path, model: Any, tokenizer: Any, **settings: Any) -> TaskOutcome:
    task = spec(name, folder)
    return evaluate(model, tokenizer, task, data_root=None, precision="fp32", **settings)


@pytest.mark.parametrize("name", ["look", "look_opened", "say"])
def test_items_are_told_apart_by_their_pictures_alone(
    name: str, tasks: Path, tokenizer: Any
) -> None:
    model = looking("llama", "random-init")
    outcome = score(name, tasks, model, tokenizer, encode_pictures=encode)
    assert outcome.warnings == ()
    items = outcome.items
    column = "response" if name == "say" else "choices_loglikelihoods"
    answers = [str(one) for one in items[column]]
    assert answers[0] == answers[3]
    assert answers[1] == answers[4]
    if name != "say":
        assert len(set(answers)) == 3
    names = [one if isinstance(one, str) else None for one in items["picture"]]
    if name != "look_opened":
        assert names == [c and Picture.of(png(c)).sha256 for c in COLOURS]
    assert [one is None for one in names] == [one is None for one in COLOURS]
    assert names[1] == names[4] != names[2]


def test_a_model_that_takes_no_pictures_says_so_once(
    tasks: Path, model: Any, tokenizer: Any
) -> None:
    outcome = score("say", tasks, model, tokenizer, encode_pictures=encode)
    said = "3 of 5 items have a picture that the model was not shown: it has no image encoder"
    assert outcome.warnings == (said,)
    assert str(outcome.scores[0].note).count(said) == 1
    plain = score("say_text", tasks, model, tokenizer)
    assert plain.warnings == ()
    assert "picture" not in plain.items
    assert outcome.items["response"].tolist() == plain.items["response"].tolist()


def test_items_whose_pictures_are_paths_alone_are_told_of(
    tasks: Path, tmp_path: Path, tokenizer: Any
) -> None:
    row = {"question": "river stone", "options": ["cloud", "apple lamp"], "gold": 1}
    write_rows(tmp_path / "rows.parquet", [row | {"image": {"bytes": None, "path": "cat.png"}}] * 2)
    file = LocalFile(task="look", split="test", path=str(tmp_path / "rows.parquet"))
    task = TaskSpec(name="look", include=str(tasks), files=(file,))
    outcome = evaluate(
        looking("llama", "random-init"), tokenizer, task, data_root=None, precision="fp32",
        encode_pictures=encode,
    )  # fmt: skip
    (said,) = outcome.warnings
    assert said.startswith("none of its 2 items has a picture: the data hold no bytes of any")


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("look_twice", "look_twice: item 1 has 2 pictures, and a model is shown one"),
        ("look_text", "look_text: item 0 shows a str where a picture is due"),
    ],
)
def test_what_cannot_be_shown_is_told_before_a_model_is_trained(
    name: str, said: str, tasks: Path
) -> None:
    loaded = load_benchmark(spec(name, tasks), None)
    with pytest.raises(EvaluationError, match=said):
        loaded.build_requests()


def test_pictures_in_lists_stay_bytes_too() -> None:
    held = {"bytes": png("red"), "path": None}
    features = Features({"images": List(Image()), "more": {"image": Image()}})
    rows = Dataset.from_dict({"images": [[held]], "more": [{"image": held}]}, features=features)
    assert undecoded(rows).to_list() == [{"images": [held], "more": {"image": held}}]


def test_an_item_with_a_picture_of_pillows_has_one_id() -> None:
    def id_of(colour: str) -> str:
        doc = {"question": "what?", "image": PIL.Image.open(io.BytesIO(png(colour)))}
        return question_id(benchmark, doc)

    benchmark = replace(BENCHMARKS["scienceqa"], columns=(), id_column=None)
    assert id_of("red") == id_of("red") != id_of("blue")


def test_pictures_of_the_hub_stay_bytes() -> None:
    features = Features({"image": Image(), "text": Value("string")})
    held = [{"bytes": png("red"), "path": None}, None]
    rows = Dataset.from_dict({"image": held, "text": ["a", "b"]}, features=features)
    assert undecoded(rows).to_list() == [
        {"image": held[0], "text": "a"},
        {"image": None, "text": "b"},
    ]
