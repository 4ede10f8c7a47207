"""How a benchmark is measured: one record per protocol, with all that tells it from the others.

Imports nothing heavy: a record names its scorer, and `harness.evaluation.evaluate_together` loads
it.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from harness.evaluation.paper.matching import RESPONSE_FLAGS
from harness.evaluation.scienceqa.matching import RESPONSE_FLAGS as SCIENCEQA_FLAGS


@dataclass(frozen=True, eq=False)
class Protocol:
    """One way to turn a model's answers to a benchmark's items into scores."""

    name: str
    """The name in results, MLflow and request keys."""
    title: str
    """The name on pages and figures."""
    scorer: str
    """`module:function`, called with the loaded benchmarks, the model, its tokenizer, and the
    keywords `precision`, `token_budget` and `on_progress`; it returns a TaskOutcome of each."""
    mark: str = ""
    """What its columns and files are told apart by; none for the protocol of lm-eval's own
    definitions."""
    generates: bool = False
    """Whether responses are generated. Its tokens are those of the prompts and the responses then;
    else those of the trie of the requests, each of which a model is given once."""
    judge: str | None = None
    """`module:function` that takes a response, the options and the number of the right one, and
    gives a verdict: `right`, `prediction` (an option's number, or None) and the response flags.
    None where nothing is generated."""
    response_flags: tuple[str, ...] = ()
    """What its tasks count of the responses beside the metrics: fields of their results."""


LM_EVAL = Protocol(
    name="lm-eval",
    title="lm-eval protocol",
    scorer="harness.evaluation.scoring:score_benchmarks",
)

PAPER = Protocol(
    name="paper",
    title="paper protocol",
    scorer="harness.evaluation.paper.run:score_benchmarks",
    mark="paper",
    generates=True,
    judge="harness.evaluation.paper.matching:judge",
    response_flags=RESPONSE_FLAGS,
)
"""The protocol of the published ARC, MMLU and TruthfulQA numbers: see docs/paper-protocol.md."""

SCIENCEQA = Protocol(
    name="scienceqa",
    title="ScienceQA's protocol",
    scorer="harness.evaluation.paper.run:score_benchmarks",
    mark="scienceqa",
    generates=True,
    judge="harness.evaluation.scienceqa.matching:judge",
    response_flags=SCIENCEQA_FLAGS,
)
"""The protocol of the published ScienceQA numbers: see docs/benchmarks.md."""

PROTOCOLS: Mapping[str, Protocol] = {one.name: one for one in (LM_EVAL, PAPER, SCIENCEQA)}
