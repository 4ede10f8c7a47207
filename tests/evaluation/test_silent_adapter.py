"""An adapter that changes no log-likelihood is told; one that changes a single one is not."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from peft import PeftModel
from transformers import LlamaForCausalLM, PreTrainedTokenizerFast

from harness.evaluation import evaluate
from harness.evaluation.prefix_trie.trie import Request
from harness.evaluation.silent_adapter import NOTE, NUM_TRIED, silent_benchmarks, without_adapter
from harness.evaluation.tasks import TaskSpec
from harness.methods import METHODS
from tests.fixtures.tiny_models import stir


def adapted(base: LlamaForCausalLM, method: str) -> PeftModel:
    options = {"num_layers": 1} if method.startswith("zero") else {}
    kind = METHODS[method]
    return kind.apply(base, kind.options.model_validate(options), 0)


@pytest.mark.parametrize("method", ["lora", "zero-init-nonlinear"])
def test_an_adapter_that_was_never_trained_is_told_beside_every_score(
    method: str,
    shared_root: Path,
    make_model: Callable[..., LlamaForCausalLM],
    tokenizer: PreTrainedTokenizerFast,
) -> None:
    def notes(model: torch.nn.Module) -> tuple[list[str | None], tuple[str, ...], list[float]]:
        task = TaskSpec(name="hellaswag", limit=6)
        found = evaluate(model, tokenizer, task, data_root=shared_root, precision="fp32")
        return [s.note for s in found.scores], found.warnings, [s.value for s in found.scores]

    base = notes(make_model())
    assert NOTE not in (base[0][0] or "")
    model = adapted(make_model(), method).requires_grad_(False)
    told, warnings, scores = notes(model)
    assert warnings == (NOTE,)
    assert all(NOTE in (note or "") for note in told)
    assert scores == base[2]
    assert not any(parameter.requires_grad for parameter in model.parameters())
    told, warnings, _ = notes(stir(adapted(make_model(), method)))
    assert warnings == ()
    assert told == base[0]


class StubScorer:
    """Log-likelihoods that an adapter changes for the requests of some lengths alone."""

    batching = SimpleNamespace()

    def __init__(self, changed: set[int]) -> None:
        self.changed, self.on, self.scored = changed, True, 0

    @contextlib.contextmanager
    def disable_adapter(self) -> Iterator[None]:
        self.on = False
        yield
        self.on = True

    def parameters(self) -> list[torch.nn.Parameter]:
        return []

    def score_alone(self, request: Request) -> float:
        self.scored += 1
        return float(self.on and len(request.input_ids) in self.changed)

    def score(
        self, requests: list[Request], on_done: Callable[[Request, float, bool], None]
    ) -> None:
        for request in requests:
            on_done(request, self.score_alone(request), False)


@pytest.mark.parametrize(
    ("changed", "silent", "most"),
    [
        (set(), {"a", "b"}, 100),
        ({19}, {"b"}, 100),  # which no sample shows
        ({1, 11}, set(), 4),
        (set(range(20)), set(), 4),
    ],
)
def test_nothing_is_said_on_a_sample_and_little_is_scored_twice(
    changed: set[int], silent: set[str], most: int
) -> None:
    every = {
        length: Request(input_ids=(1,) * length, continuation_ids=(2,)) for length in range(1, 20)
    }
    requests = {
        "a": [every[length] for length in (*range(1, 8), 19)],
        "b": [every[length] for length in range(11, 18)],
    }
    scorer = StubScorer(changed)
    used = {one for of_it in requests.values() for one in of_it}
    answers = {one: (scorer.score_alone(one), False) for one in used}
    scorer.scored = 0
    assert silent_benchmarks(scorer, scorer, requests, answers) == silent  # type: ignore[arg-type]
    assert scorer.scored <= max(most, 4 * NUM_TRIED)
    if not silent:
        assert scorer.scored <= most


def test_what_is_trainable_stays_so(make_model: Callable[..., LlamaForCausalLM]) -> None:
    model = adapted(make_model(), "lora")
    before = {name: p.requires_grad for name, p in model.named_parameters()}
    with pytest.raises(KeyError), without_adapter(model):
        raise KeyError
    assert {name: p.requires_grad for name, p in model.named_parameters()} == before
