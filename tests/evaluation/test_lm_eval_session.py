from __future__ import annotations

import logging
from pathlib import Path

import lm_eval.utils
import torch
from transformers import LlamaForCausalLM, PreTrainedTokenizerFast

from harness.evaluation import evaluate
from harness.evaluation.tasks import TaskSpec


def test_model_and_tokenizer_are_left_as_they_were(
    shared_root: Path, model: LlamaForCausalLM, tokenizer: PreTrainedTokenizerFast
) -> None:
    model.train()
    model.model.layers[0].eval()
    model.config.use_cache = True
    before = {name: value.clone() for name, value in model.state_dict().items()}
    modes = [module.training for module in model.modules()]
    levels = logging.getLogger("lm_eval").level
    task = TaskSpec(name="arc_easy", limit=2)
    evaluate(model, tokenizer, task, data_root=shared_root, precision="fp32")
    assert [module.training for module in model.modules()] == modes
    assert model.config.use_cache is True
    assert tokenizer.pad_token is None
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())
    assert all(parameter.grad is None for parameter in model.parameters())
    assert logging.getLogger("lm_eval").level == levels
    assert "from_string" not in vars(lm_eval.utils.env)
    model.train()
