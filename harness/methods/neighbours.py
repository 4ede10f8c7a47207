"""The neighbours of the paper's methods, each through stock PEFT: other ways to train few numbers.

Every options class and recipe names its source; [choice] marks what no source says. All are
trained by zbench's AdamW, also where a paper used another optimizer.
"""

from __future__ import annotations

from harness.methods.adaption_prompt import (
    AdaptionPromptOptions,
    apply_adaption_prompt,
    count_adaption_prompt,
)
from harness.methods.dora import DORA_ALPACA, DoraOptions, apply_dora, count_dora
from harness.methods.ia3 import IA3_RATE, Ia3Options, apply_ia3, count_ia3
from harness.methods.lora import lora_workload
from harness.methods.method import Method
from harness.methods.prompt_tuning import (
    VIRTUAL_TOKENS,
    PrefixTuningOptions,
    PromptTuningOptions,
    apply_prefix_tuning,
    apply_prompt_tuning,
    count_prefix_tuning,
    count_prompt_tuning,
    prefix_tuning_workload,
    prompt_tuning_workload,
)
from harness.methods.vera import VERA_ALPACA, VeraOptions, apply_vera, count_vera
from harness.methods.zero_init.options import PAPER_PROMPTS, prompt_workload

NEIGHBOURS = (
    Method(
        name="dora",
        title="DoRA",
        options=DoraOptions,
        recipe=DORA_ALPACA,
        apply=apply_dora,
        count_parameters=count_dora,
        workload=lora_workload,
    ),
    Method(
        name="ia3",
        title="(IA)³",
        options=Ia3Options,
        recipe=IA3_RATE,
        apply=apply_ia3,
        count_parameters=count_ia3,
    ),
    Method(
        name="vera",
        title="VeRA",
        options=VeraOptions,
        recipe=VERA_ALPACA,
        apply=apply_vera,
        count_parameters=count_vera,
    ),
    Method(
        name="prefix-tuning",
        title="Prefix-tuning",
        options=PrefixTuningOptions,
        recipe=VIRTUAL_TOKENS,
        apply=apply_prefix_tuning,
        count_parameters=count_prefix_tuning,
        workload=prefix_tuning_workload,
    ),
    Method(
        name="prompt-tuning",
        title="Prompt tuning",
        options=PromptTuningOptions,
        recipe=VIRTUAL_TOKENS,
        apply=apply_prompt_tuning,
        count_parameters=count_prompt_tuning,
        workload=prompt_tuning_workload,
    ),
    Method(
        name="adaption-prompt",
        title="LLaMA-Adapter (PEFT variant)",
        options=AdaptionPromptOptions,
        recipe=PAPER_PROMPTS,
        apply=apply_adaption_prompt,
        count_parameters=count_adaption_prompt,
        workload=prompt_workload,
    ),
)
"""In the order of tables and figures."""
