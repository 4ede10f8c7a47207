from __future__ import annotations

import numpy as np
import pytest
import torch
from transformers import LlamaForCausalLM

from harness.errors import EvaluationError
from harness.evaluation.prefix_trie.forward import TrieForward
from harness.evaluation.prefix_trie.scoring import (
    LOGITS_AT_ONCE,
    _greedy,
    _greedy_on_cpu,
    log_probabilities,
    score_requests,
)
from harness.evaluation.prefix_trie.trie import Request


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_log_probabilities_are_those_of_a_softmax_in_fp32(dtype: torch.dtype) -> None:
    logits = (4 * torch.randn(3 * LOGITS_AT_ONCE + 5, 50)).to(dtype)
    index = np.arange(2 * len(logits)) // 2
    targets = np.concatenate(
        [logits.argmax(-1).numpy()[:, None], np.ones((len(logits), 1), int)], 1
    )
    values, greedy = log_probabilities(logits, index, targets.flatten())
    expected = logits.float().log_softmax(-1)
    assert values == pytest.approx(expected[index, targets.flatten()].numpy(), abs=1e-5)
    assert greedy[::2].all()
    assert not greedy[1::2].all()


def test_of_equally_likely_tokens_the_first_is_greedy() -> None:
    logits = torch.tensor([[1.0, 3.0, 3.0, 0.0]])
    _, greedy = log_probabilities(logits, np.zeros(4, int), np.arange(4))
    assert greedy.tolist() == [False, True, False, False]


def test_greedy_answers_are_found_alike_on_every_device() -> None:
    """The CPU seeks an argmax only where one may be; a GPU everywhere, without a wait."""
    logs = torch.randint(0, 4, (40, 6)).float().log_softmax(-1)
    index, targets = torch.arange(80) // 2, torch.randint(0, 6, (80,))
    one, other = (find(logs, index, targets) for find in (_greedy, _greedy_on_cpu))
    assert torch.equal(one, other)
    assert 0 < one[1].sum() < 80


def test_a_memory_too_small_for_one_segment_is_one_clear_line(
    model: LlamaForCausalLM, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_args: object, **_named: object) -> None:
        raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 20.00 MiB")

    monkeypatch.setattr(TrieForward, "run", full)
    forward = TrieForward(model, torch.no_grad)
    with pytest.raises(EvaluationError, match="too small to score one question at a time"):
        score_requests(
            forward, [Request((1, 2), (3,))], 512, lambda *_: None, on_attempt=lambda _: None
        )


def test_other_faults_of_the_model_are_not_taken_for_full_memory(
    model: LlamaForCausalLM, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(*_args: object, **_named: object) -> None:
        raise RuntimeError("size mismatch")

    monkeypatch.setattr(TrieForward, "run", broken)
    forward = TrieForward(model, torch.no_grad)
    with pytest.raises(RuntimeError, match="size mismatch"):
        score_requests(
            forward, [Request((1, 2), (3,))], 512, lambda *_: None, on_attempt=lambda _: None
        )
