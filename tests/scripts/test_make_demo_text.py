"""The demo's text of forgetting follows from the world's seed."""

from __future__ import annotations

import json

import pytest

from harness.evaluation.task_files import folder_of
from harness.evaluation.task_index import SHIPPED
from scripts.make_demo_text import NUMBER, build_text
from scripts.pretrain_demo import BATCH_SIZE, NUM_STEPS, ROW_LENGTH

TEXT = folder_of(SHIPPED) / "demo_text.jsonl"


@pytest.mark.slow
def test_the_text_that_ships_is_what_the_script_makes() -> None:
    assert TEXT.read_text(encoding="utf-8") == build_text()


def test_the_documents_are_many_and_lie_behind_those_that_were_read() -> None:
    texts = [json.loads(line)["text"] for line in TEXT.read_text(encoding="utf-8").splitlines()]
    assert len(texts) == NUMBER
    assert all(text.strip() for text in texts)
    # 38 tokens a document, BOS and EOS among them.
    assert NUM_STEPS * BATCH_SIZE * ROW_LENGTH / 38 < 150_000
