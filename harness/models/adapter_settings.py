"""What adapter_config.json may hold, by PEFT's names; known without importing PEFT.

PEFT checks no type of its settings: rank `2.5` fails deep in torch, `"false"` counts as true.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Mapping
from functools import lru_cache
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from harness.errors import did_you_mean, printable, shortened

_WHOLE = """
    adapter_layers adapter_len asa_target_subspaces block_size boft_block_num boft_block_size
    boft_n_butterfly_factor decompose_factor delora_lambda deltaT depth encoder_hidden_size
    encoder_num_layers final_warmup generator_seed gralora_k group_size hidden_size hybrid_r init_r
    init_warmup mask_interval mini_r n_frequency n_skills n_splits n_tasks num_B
    num_attention_heads num_cayley_neumann_terms num_frozen_tokens num_layers num_ranks
    num_subspaces num_tasks num_transformer_submodules num_vectors num_virtual_tokens oft_block_size
    proj_seed projection_prng_key projection_seed prompt_tuning_init_task psoft_svd_lowrank_niter
    qalora_group_size r random_loc_seed random_seed seed shadow_hidden_size
    shadow_intermediate_size shadow_num_attention_heads shadow_num_hidden_layers stride_A
    subspace_rank target_r tfinal theta_d_length tinit token_dim top_k_lora topk total_step u
    update_hidden_size vector_length xlora_depth xlora_size
"""
_NUMBERS = """
    alpha asa_importance_beta asa_schedule_exponent asa_uncertainty_beta auxiliary_loss_weight
    beta1 beta2 boft_dropout cayley_neumann_eps d_initial deft_dropout effective_rank
    encoder_dropout eps frod_dropout global_scaling_weight gralora_dropout hira_dropout
    init_logits_std init_scale init_theta_d_bound init_v_bound init_vector_bank_bound lora_alpha
    lora_dropout miss_dropout module_dropout opt_loss_decay_factor opt_projection_epsilon
    opt_projection_format_epsilon orth_reg_weight psoft_alpha psoft_dropout pvera_dropout
    randlora_alpha randlora_dropout rank_dropout regularization_alpha scaling scaling_pass_value
    shadow_alpha shadow_dropout softmax_temperature sparse_rate sparsity svd_threshold
    tinylora_dropout unilora_dropout vblora_dropout vera_dropout weight_tying xlora_dropout_p
"""
_FLAGS = """
    apply_GS block_share coft decompose_both enable_softmax enable_softmax_topk
    ensure_weight_tying fan_in_fan_out inference_mode init_ia3_weights layerwise_scalings lora_bias
    para prefix_projection progressbar proportional_parameters psoft_mag_a psoft_mag_b psoft_orth
    rank_dropout_scale runtime_offload_base_weight sample_at_inference save_indices
    save_only_topk_weights save_precomputed_indices save_projection select_top share_embeddings
    sparse use_asa use_cayley_neumann use_dora use_dynamic_rank use_effective_conv2d use_idwt
    use_qalora use_rslora use_trainable_adapters very_sparse
"""
_TEXTS = """
    act_fn base_model_name_or_path megatron_core method peft_type peft_version
    prompt_tuning_init_state_dict_path prompt_tuning_init_text revision shadow_model task_type
    tokenizer_name_or_path wavelet_family
"""
_NAMES = "exclude_modules feedforward_modules layers_pattern modules_to_save target_modules"
_LISTS_OF_NAMES = "target_parameters"
_INDICES = "layers_to_transform"
_LISTS = "alora_invocation_tokens cpt_mask cpt_token_ids cpt_tokens_type_mask token_indices"
_PATTERNS = """
    alpha_pattern block_size_pattern lambda_pattern n_frequency_pattern rank_pattern
    target_svd_config
"""
_MAPPINGS = """
    adapters arrow_config auto_mapping base_shape corda_config eva_config image_encoder kasa_config
    loftq_config lora_ga_config megatron_config monteclora_config options runtime_config
    tokenizer_kwargs use_bdlora velora_config
"""
_CHOICES = {
    "ab_svd_init": ("psoft_init", "pissa_init"),
    "bias": ("none", "all", "lora_only", "boft_only", "oft_only", "delora_only", "vera_only"),
    "config_A_B": ("lora", "vector", "constant", "none"),
    "config_C": ("lora", "vector", "none"),
    "config_D_E": ("vector", "constant", "none"),
    "decomposition_method": ("relu", "qr"),
    "mask_type": ("random",),
    "opt_weighted_loss_type": ("none", "decay"),
    "poly_type": ("poly",),
    "psoft_svd": ("full", "lowrank"),
}
LARGEST_SIZE = 65_536
_SIZES = frozenset(
    {
        *("r", "init_r", "target_r", "num_virtual_tokens", "adapter_len", "adapter_layers"),
        *("encoder_hidden_size", "num_layers", "num_attention_heads", "token_dim"),
    }
)
IMPORTED_BY_NAME = frozenset({"auto_mapping", "megatron_config"})
"""Settings that make PEFT import the module that they name."""
_NOT_COMPARED = IMPORTED_BY_NAME | frozenset(
    {
        *("base_model_name_or_path", "inference_mode", "peft_version", "revision"),
        *("task_type", "tokenizer_name_or_path", "tokenizer_kwargs", "prompt_tuning_init_text"),
        # What starts or trains an adapter has no part in what a trained one computes.
        *("init_lora_weights", "init_ia3_weights", "init_weights", "prompt_tuning_init", "seed"),
        *("d_initial", "projection_prng_key", "lora_dropout", "vera_dropout", "random_seed"),
        # Where an encoder of pictures lies; which it is, its content says.
        "path",
    }
)


def _is_whole(value: Any) -> bool:
    return type(value) is int and abs(value) < 2**63


def _is_number(value: Any) -> bool:
    return _is_whole(value) or (isinstance(value, float) and math.isfinite(value))


def _is_names(value: Any) -> bool:
    return isinstance(value, str) or _all_texts(value)


def _all_texts(value: Any) -> bool:
    return isinstance(value, list) and all(isinstance(name, str) for name in value)


def _is_indices(value: Any) -> bool:
    return _is_whole(value) or (isinstance(value, list) and all(map(_is_whole, value)))


def _mapping_of(holds: Callable[[Any], bool]) -> Callable[[Any], bool]:
    return lambda value: isinstance(value, dict) and all(map(holds, value.values()))


_KINDS: dict[str, tuple[Callable[[Any], bool], str]] = {
    name: (holds, due)
    for names, holds, due in (
        (_WHOLE, _is_whole, "a whole number"),
        (_NUMBERS, _is_number, "a number"),
        (_FLAGS, lambda value: isinstance(value, bool), "true or false"),
        (_TEXTS, lambda value: isinstance(value, str), "text"),
        (_NAMES, _is_names, "a name or a list of names"),
        (_LISTS_OF_NAMES, _all_texts, "a list of names"),
        (_INDICES, _is_indices, "a whole number or a list of them"),
        (_LISTS, lambda value: not _is_whole(value) and _is_indices(value), "a list of numbers"),
        (_PATTERNS, _mapping_of(_is_number), "a mapping of names to numbers"),
        (_MAPPINGS, lambda value: isinstance(value, dict), "a mapping"),
    )
    for name in names.split()
}


def setting_faults(settings: Mapping[str, Any]) -> list[str]:
    """What is wrong with the values of an adapter_config.json, one text per setting.

    A setting that PEFT of this version may not have is left to PEFT.
    """
    faults = []
    smallest = int(settings.get("peft_type") != "OFT")  # whose rank may be left to its block size

    def refuse(name: str, due: str, value: Any) -> None:
        faults.append(f"{name} must be {due} (got {shortened(repr(value), 40)})")

    for name, value in settings.items():
        if value is None:
            continue
        if name in _KINDS:
            holds, due = _KINDS[name]
            if not holds(value):
                refuse(name, due, value)
            elif name in _SIZES and not smallest <= value <= LARGEST_SIZE:
                refuse(name, f"from {smallest} to {LARGEST_SIZE:,}", value)
            elif name.endswith("dropout") and not 0 <= value < 1:
                refuse(name, "from 0 to below 1", value)
        elif name in _CHOICES and value not in _CHOICES[name]:
            refuse(name, f"one of {', '.join(_CHOICES[name])}", value)
    ranks = settings.get("rank_pattern")
    for module, rank in ranks.items() if isinstance(ranks, dict) else ():
        if _is_number(rank) and not 0 < rank <= LARGEST_SIZE:
            name = f"rank_pattern.{printable(module)[:60]}"
            refuse(name, f"from 1 to {LARGEST_SIZE:,}", rank)
    return faults


def type_fault(kind: str) -> str | None:
    """Why PEFT cannot have a type of adapter; None where it has, or where its types are unknown."""
    known = known_types()
    if not known or kind in known:
        return None
    return (
        f"unknown peft_type {shortened(repr(kind), 40)}{did_you_mean(printable(kind)[:60], known)}"
    )


@lru_cache(maxsize=1)
def known_types() -> tuple[str, ...]:
    """The types of adapters that the installed PEFT has, read from its source; zbench's own too."""
    package = find_spec("peft")
    file = Path((package and package.origin) or "").parent / "utils" / "peft_types.py"
    if not file.is_file():
        return ()
    enum = file.read_text(encoding="utf-8").partition("class PeftType(")[2].partition("\nclass ")[0]
    found = re.findall(r'^    [A-Z0-9_]+ = "([A-Z0-9_]+)"$', enum, re.MULTILINE)
    return (*found, ZERO_INIT_PROMPT) if found else ()


ZERO_INIT_PROMPT = "ZERO_INIT_PROMPT"
"""The `peft_type` of the paper's prompt methods: a historical id in saved files, also of
random-init."""


def first_difference(
    stored: Mapping[str, Any], own: Mapping[str, Any], path: str = ""
) -> str | None:
    """The first setting that both state and that differs, the type of adapter before all others."""
    shared = stored.keys() & own.keys() - _NOT_COMPARED
    for key in sorted(shared, key=lambda key: (key != "peft_type", key)):
        then, now = plain(stored[key]), plain(own[key])
        if isinstance(then, dict) and isinstance(now, dict):
            inner = first_difference(then, now, f"{path}{key}.")
            if inner:
                return inner
        elif then is not None and then != now:
            return (
                f"{path}{key} is {shortened(str(then), 100)}, the model's is "
                f"{shortened(str(now), 100)}"
            )
    return None


def plain(value: Any) -> Any:
    """The value; of a set, or a list of names, whose order says nothing, the sorted list."""
    if isinstance(value, set | frozenset):
        return sorted(value)
    if isinstance(value, list) and all(isinstance(entry, str) for entry in value):
        return sorted(value)
    return value
