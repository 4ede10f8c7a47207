"""What zbench knows of PEFT's types and options by name: what it sets itself, and what it refuses.

Needs neither torch nor PEFT. What stands in no table here is left to PEFT's own configuration
class; tests/methods/test_pass_through.py runs the laws of every method on each type that is left.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

SET_HERE = frozenset(
    {
        *("inference_mode", "base_model_name_or_path", "revision", "peft_version", "auto_mapping"),
        *("num_layers", "num_attention_heads", "token_dim", "num_transformer_submodules"),
    }
)
"""Options that follow from the cell's model and from what zbench does with it."""

REFUSED_TYPES = {
    "CPT": "trains the embeddings of one text's tokens with labels and losses of its own; take "
    "PROMPT_TUNING",
    "MULTITASK_PROMPT_TUNING": "needs a task's id with every row; take PROMPT_TUNING",
    "LILY": "routes by the mean over all tokens of a batch, so that a row's output depends on the "
    "rows beside it, and later tokens change earlier ones, as in no causal model",
    "POLY": "needs a task's id with every row",
    "SHADOW": "runs a second model beside the base, in a forward pass of its own",
    "XLORA": "mixes adapters that are trained already; train them first, each as a cell",
    "ZERO_INIT_PROMPT": "is zbench's own; name its method: zero-init-linear, zero-init-nonlinear "
    "or random-init",
}
"""Types that are refused by name before a run, and why."""

_DATA = "begins from activations on data, which zbench does not collect"
_COPIES = "copies modules of the model's own; adapt them by target_modules"
REFUSED_OPTIONS = {
    "alora_invocation_tokens": "is switched on by a text in the prompt, which no benchmark has",
    "arrow_config": "mixes adapters that are trained already",
    "corda_config": _DATA,
    "eva_config": _DATA,
    "kasa_config": "cuts the base's weights, and adds a loss of its own",
    "layer_replication": "makes another model of more layers",
    "loftq_config": "quantises the base by itself; set train.base_quantization",
    "lora_ga_config": _DATA,
    "megatron_config": "imports a module by its name",
    "megatron_core": "imports a module by its name",
    "modules_to_save": _COPIES,
    "monteclora_config": "draws in every forward pass, and adds a loss of its own",
    "prompt_tuning_init_state_dict_path": "is a pickled file, which is never read",
    "prompt_tuning_init_text": "needs the tokenizer of a hub; take SAMPLE_VOCAB",
    "runtime_config": "is of one process, not of a method",
    "sample_at_inference": "makes scores random",
    "save_only_topk_weights": "stores too little to load what was trained",
    "tokenizer_kwargs": "needs the tokenizer of a hub",
    "tokenizer_name_or_path": "needs the tokenizer of a hub",
    "trainable_token_indices": _COPIES,
    "use_asa": "changes the adapter in the training loop",
    "use_qalora": "needs a base that is quantised in groups",
    "velora_config": "changes gradients in the training loop",
}
"""Options that are refused by name, where they are set to something, and why."""

_MASKS = (
    "draws its masks for a whole micro-batch, so that a token budget would change results; "
    "leave it at 0"
)
REFUSED_DROPOUTS = {
    ("BOFT", "boft_dropout"): _MASKS,
    ("LOHA", "rank_dropout"): _MASKS,
    ("LOHA", "module_dropout"): _MASKS,
    ("LOKR", "rank_dropout"): _MASKS,
    ("LOKR", "module_dropout"): _MASKS,
    ("OFT", "module_dropout"): _MASKS,
    ("P_TUNING", "encoder_dropout"): _MASKS,
}
"""Dropouts whose masks are no sequence's own; the others are replaced by `row_dropout`."""

_DATA_STARTS = ("eva", "corda", "lora_ga", "loftq")

REQUIRED = {
    "ADALORA": ("total_step",),
    "ADAPTION_PROMPT": ("adapter_len", "adapter_layers"),
    "CARTRIDGE": ("num_virtual_tokens",),
    "PREFIX_TUNING": ("num_virtual_tokens",),
    "PROMPT_TUNING": ("num_virtual_tokens",),
    "P_TUNING": ("num_virtual_tokens",),
    "TRAINABLE_TOKENS": ("token_indices",),
}
"""Options that PEFT has no default of, or that train nothing without one."""

IN_CACHE = ("PREFIX_TUNING", "CARTRIDGE")
"""Types whose virtual tokens are keys and values."""
BEFORE_TEXT = ("PROMPT_TUNING", "P_TUNING")
"""Types whose virtual tokens are embeddings."""

SIZES: dict[str, tuple[str, ...]] = {
    "ADALORA": ("init_r",),
    "ADAPTION_PROMPT": ("adapter_len",),
    "BOFT": ("boft_block_size",),
    "C3A": ("block_size",),
    "CARTRIDGE": ("num_virtual_tokens",),
    "FOURIERFT": ("n_frequency",),
    "OFT": ("oft_block_size",),
    "PREFIX_TUNING": ("num_virtual_tokens",),
    "PROMPT_TUNING": ("num_virtual_tokens",),
    "P_TUNING": ("encoder_hidden_size",),
    "TINYLORA": ("u",),
    "UNILORA": ("theta_d_length",),
    "VBLORA": ("num_vectors",),
    "WAVEFT": ("n_frequency",),
}
"""The options that say how many parameters a type trains; of all others it is the rank, `r`."""


ONE_DEVICE = frozenset({"ADALORA"})
"""Types that change their adapter between steps as one process sees it."""

QUANTISED = frozenset(
    {
        *("ADALORA", "BOFT", "HIRA", "IA3", "LORA", "MISS", "OFT", "PVERA", "RANDLORA", "ROAD"),
        *("SHIRA", "VERA"),
        *("ADAPTION_PROMPT", *BEFORE_TEXT, *IN_CACHE, "LN_TUNING", "TRAINABLE_TOKENS"),
    }
)
"""Types that PEFT has for a base in 8 or 4 bits, or that leave its matrices alone. Others take the
stored codes for weights: bitsandbytes' layers are linear layers to them."""


def refusals(settings: Mapping[str, Any], *, matched: bool) -> dict[str, str]:
    """What is refused of an entry by name: option to reason; `peft_type` for the type itself.

    `matched` says that `match` chooses the size, which need not be stated then.
    """
    kind = settings["peft_type"]
    if kind in REFUSED_TYPES:
        return {"peft_type": f"{kind} {REFUSED_TYPES[kind]}"}
    found = {
        name: "follows from the model and from the run; leave it out"
        for name in settings
        if name in SET_HERE
    }
    stated = {name: value for name, value in settings.items() if value not in (None, False, {}, [])}
    found |= {name: REFUSED_OPTIONS[name] for name in stated if name in REFUSED_OPTIONS}
    found |= {
        name: REFUSED_DROPOUTS[kind, name]
        for name, value in stated.items()
        if (kind, name) in REFUSED_DROPOUTS and value != 0
    }
    if str(settings.get("task_type", "CAUSAL_LM")) != "CAUSAL_LM":
        found["task_type"] = "must be CAUSAL_LM, which zbench sets; leave it out"
    start = str(settings.get("init_lora_weights", ""))
    if start in _DATA_STARTS:
        found["init_lora_weights"] = f"{start} {_DATA}"
    if start.startswith("pissa_niter"):
        found["init_lora_weights"] = (
            f"{start} draws its decomposition, so that it is another one where the adapter is "
            "loaded; take pissa"
        )
    if settings.get("prompt_tuning_init") == "TEXT":
        found["prompt_tuning_init"] = f"TEXT {REFUSED_OPTIONS['tokenizer_kwargs']}"
    chosen = SIZES.get(kind, ()) if matched else ()
    missing = [
        name for name in REQUIRED.get(kind, ()) if settings.get(name) is None and name not in chosen
    ]
    return found | dict.fromkeys(missing, "is missing, and PEFT has no default; add it")
