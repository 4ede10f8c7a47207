"""A small data root in the layout of the real one, and a tiny random LLaMA with its tokenizer."""

from __future__ import annotations

import io
import random
from collections.abc import Callable, Iterator
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pyarrow
import pyarrow.parquet
import pytest
import torch
from PIL import Image
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, processors, trainers
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

from harness.data.pins import MISMATCH
from tests.fixtures.own_tasks import write_tasks
from tests.fixtures.real_data import DATA_ROOT, HAS_REAL_DATA

TEXT = "river stone cloud apple lamp seven quick brown fox under bright metal sings the a of"
WORDS = TEXT.split()
DEMO_SUBJECTS = ["astronomy", "music"]


def mmlu_subjects() -> list[str]:
    """The subjects of lm-eval's own mmlu, from its file names."""
    found = find_spec("lm_eval")
    assert found is not None
    assert found.origin is not None
    folder = Path(found.origin).parent / "tasks" / "mmlu" / "default"
    return sorted(path.stem.removeprefix("mmlu_") for path in folder.glob("mmlu_*.yaml"))


def write_rows(path: Path, rows: list[dict[str, Any]]) -> None:
    """Writes a parquet file."""
    path.parent.mkdir(parents=True, exist_ok=True)
    pyarrow.parquet.write_table(pyarrow.Table.from_pylist(rows), path)


class Rows:
    """Rows of each benchmark, from one seed."""

    def __init__(self) -> None:
        self.rng = random.Random(7)

    def text(self, low: int, high: int) -> str:
        return " ".join(self.rng.choices(WORDS, k=self.rng.randint(low, high)))

    def arc(self, count: int) -> list[dict[str, Any]]:
        labels = [["A", "B", "C", "D"], ["1", "2", "3"]]
        rows = []
        for number in range(count):
            label = labels[number % 5 == 4]
            choices = {"text": [self.text(1, 6) for _ in label], "label": label}
            answer = self.rng.choice(label)
            question = self.text(4, 12) + "?"
            row = {"id": f"q{number}", "question": question, "choices": choices}
            rows.append(row | {"answerKey": answer})
        return rows

    def pictures(self, count: int) -> list[dict[str, Any]]:
        told = {"asked": "animal", "pair": "seen"}
        return [
            row | told | {"image": {"bytes": self.picture(), "path": f"{number}.png"}}
            for number, row in enumerate(self.arc(count))
        ]

    def picture(self) -> bytes:
        file = io.BytesIO()
        Image.new("RGB", (8, 6), tuple(self.rng.choices(range(256), k=3))).save(file, "PNG")
        return file.getvalue()

    def mmlu(self, subjects: list[str], sizes: list[int]) -> list[dict[str, Any]]:
        return [
            {
                "question": f" {self.text(4, 10)}?",
                "subject": subject,
                "choices": [self.text(1, 4) for _ in range(4)],
                "answer": self.rng.randrange(4),
            }
            for index, subject in enumerate(subjects)
            for _ in range(sizes[index % len(sizes)])
        ]

    def hellaswag(self, count: int) -> list[dict[str, Any]]:
        rows = []
        for number in range(count):
            ctx_a, ctx_b = self.text(3, 8) + ".", self.text(1, 3)
            row = {
                "activity_label": self.text(1, 2),
                "ctx_a": ctx_a,
                "ctx_b": ctx_b,
                "ctx": f"{ctx_a} {ctx_b}",
                "endings": [self.text(2, 7) + " [title] end." for _ in range(4)],
                "label": str(self.rng.randrange(4)),
            }
            rows.append(row | {"ind": number})
        return rows

    def truthfulqa(self, count: int) -> list[dict[str, Any]]:
        rows = []
        for _ in range(count):
            first = [self.text(2, 6) for _ in range(self.rng.randint(3, 5))]
            second = [self.text(2, 6) for _ in range(5)]
            mc1 = {"choices": first, "labels": [1] + [0] * (len(first) - 1)}
            mc2 = {"choices": second, "labels": [1, 1, 0, 0, 0]}
            row = {"question": self.text(4, 9) + "?", "mc1_targets": mc1, "mc2_targets": mc2}
            rows.append(row)
        return rows

    def scienceqa(self, count: int) -> list[dict[str, Any]]:
        """Every second one has a picture; the data lack those of the last two of these."""
        rows = []
        for number in range(count):
            choices = [self.text(1, 3) for _ in range(2 + number % 3)]
            data = png((20 * number, 0, 255)) if number % 2 and number < count - 4 else None
            row = {"pid": f"{number}", "question": f"{self.text(4, 9)}?", "choices": choices}
            row |= {"answer": self.rng.randrange(len(choices)), "has_image": bool(number % 2)}
            row |= {"hint": self.text(3, 6) if number % 3 else "", "subject": "natural science"}
            row |= {"grade": f"grade{number + 1}" if number else None}
            rows.append(row | {"image": data and {"bytes": data, "path": f"{number}.png"}})
        return rows


def png(colour: str | tuple[int, int, int]) -> bytes:
    """A small picture of one colour."""
    buffer = io.BytesIO()
    Image.new("RGB", (8, 6), colour).save(buffer, "PNG")
    return buffer.getvalue()


def other_notes(note: str | None) -> list[str]:
    """A score's notes, but for that its tiny data are not the real ones of that name."""
    return [part for part in (note or "").split("; ") if part and not part.startswith(MISMATCH)]


@pytest.fixture(scope="session")
def shared_root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """All benchmarks' files; read only."""
    root, rows = tmp_path_factory.mktemp("data"), Rows()
    for name in ("arc_easy", "arc_challenge"):
        write_rows(root / name / "test.parquet", rows.arc(12))
        write_rows(root / name / "train.parquet", rows.arc(6))
    write_rows(root / "mmlu" / "test.parquet", rows.mmlu(mmlu_subjects(), [2, 3, 4]))
    write_rows(root / "mmlu" / "dev.parquet", rows.mmlu(mmlu_subjects(), [2]))
    write_rows(root / "hellaswag" / "validation.parquet", rows.hellaswag(10))
    write_rows(root / "hellaswag" / "train.parquet", rows.hellaswag(14))
    write_rows(root / "truthfulqa_mc" / "validation.parquet", rows.truthfulqa(8))
    write_rows(root / "scienceqa" / "test.parquet", rows.scienceqa(12))
    return root


@pytest.fixture(scope="session")
def demo_root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The embedded world's layout, with two subjects of different size."""
    root, rows = tmp_path_factory.mktemp("demo"), Rows()
    for name in ("arc_easy", "arc_challenge"):
        write_rows(root / name / "test.parquet", rows.arc(6))
    write_rows(root / "mmlu" / "test.parquet", rows.mmlu(DEMO_SUBJECTS, [3, 5]))
    write_rows(root / "hellaswag" / "validation.parquet", rows.hellaswag(6))
    write_rows(root / "truthfulqa_mc" / "validation.parquet", rows.truthfulqa(6))
    write_rows(root / "pictures" / "test.parquet", rows.pictures(6))
    return root


@pytest.fixture(scope="session")
def tokenizer() -> PreTrainedTokenizerFast:
    """A byte-level BPE that puts BOS in front, as LLaMA's does."""
    backend = Tokenizer(models.BPE(unk_token="<unk>"))
    backend.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    backend.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=320,
        special_tokens=["<unk>", "<s>", "</s>"],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    backend.train_from_iterator([TEXT] * 3, trainer)
    backend.post_processor = processors.TemplateProcessing(
        single="<s> $A", pair="<s> $A <s> $B", special_tokens=[("<s>", 1)]
    )
    return PreTrainedTokenizerFast(
        tokenizer_object=backend, bos_token="<s>", eos_token="</s>", unk_token="<unk>"
    )


@pytest.fixture(autouse=True)
def _tokenizer_as_it_was(tokenizer: PreTrainedTokenizerFast) -> Iterator[None]:
    """lm-eval's model class gives its tokenizer a padding token."""
    yield
    tokenizer.pad_token = None


@pytest.fixture(scope="session")
def make_model(tokenizer: PreTrainedTokenizerFast) -> Callable[..., LlamaForCausalLM]:
    """Makes a random LLaMA of one seed, with weights large enough to have opinions."""

    def make(seed: int = 0, max_length: int = 1024) -> LlamaForCausalLM:
        torch.manual_seed(seed)
        config = LlamaConfig(
            vocab_size=len(tokenizer),
            hidden_size=32,
            intermediate_size=48,
            num_hidden_layers=2,
            num_attention_heads=4,
            num_key_value_heads=2,
            max_position_embeddings=max_length,
            initializer_range=0.2,
        )
        return LlamaForCausalLM(config).train()

    return make


@pytest.fixture(scope="session")
def model(make_model: Callable[..., LlamaForCausalLM]) -> LlamaForCausalLM:
    """The random LLaMA of seed 0."""
    return make_model()


@pytest.fixture(scope="session")
def real_root() -> Path:
    """The folder of real benchmark files, where the environment names it."""
    if DATA_ROOT is None:
        pytest.skip("needs real benchmark files: set ZBENCH_DATA_ROOT to their folder")
    if not HAS_REAL_DATA:
        pytest.skip(f"ZBENCH_DATA_ROOT is {DATA_ROOT}, which has no stories260k_hf")
    return Path(DATA_ROOT)


@pytest.fixture(scope="session")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Tasks of one's own, and their rows as JSON Lines; read only."""
    root = tmp_path_factory.mktemp("own")
    write_tasks(root)
    return root
