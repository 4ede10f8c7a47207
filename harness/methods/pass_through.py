"""Any method of the installed PEFT by its `peft_type`: `peft: {peft_type: OFT, oft_block_size: 8}`.

What PEFT's own configuration class takes is taken, with PEFT's defaults; `peft_types` names what is
refused. The parameters are counted on the model that PEFT makes, without its weights.
"""

from __future__ import annotations

import warnings
from collections.abc import Mapping
from typing import TYPE_CHECKING, Annotated, Any, Self

from pydantic import BeforeValidator, Field, model_validator

from harness.errors import MethodError, ZbenchError, plain_message
from harness.methods.adaption_prompt import check_family, draw_prompts
from harness.methods.lora import ALPACA_LORA
from harness.methods.method import Method, MethodOptions, TrainingHook, Workload
from harness.methods.peft_cache import remembered
from harness.methods.peft_counts import known_count
from harness.methods.peft_hooks import AdaLora, LoraFa, TextStart, freeze_a
from harness.methods.peft_settings import checked_settings, make_config, size_names
from harness.methods.peft_types import BEFORE_TEXT, IN_CACHE, QUANTISED
from harness.models.adapters import insert_adapter
from harness.models.devices import is_out_of_memory
from harness.models.families import FAMILIES
from harness.models.shape import ModelShape, shape_of

if TYPE_CHECKING:
    from peft import PeftModel
    from transformers import PreTrainedModel

_QUERIES_AND_VALUES = {
    "separate": ["q_proj", "v_proj"],
    "fused": ["qkv_proj"],
    "interleaved": ["query_key_value"],
}
"""What is adapted where PEFT has no default for a family: what its own defaults are elsewhere."""


_LARGEST_DECOMPOSED = 1024
_LAYER_OPTIONS = frozenset(
    {
        *("layers_to_transform", "layers_pattern", "exclude_modules", "rank_pattern"),
        *("alpha_pattern", "block_size_pattern", "n_frequency_pattern", "lambda_pattern"),
    }
)
"""Options that may tell one layer from another."""


class PeftOptions(MethodOptions):
    """An entry's `peft`: the type, and options of PEFT's configuration class of that type."""

    peft: Annotated[dict[str, Any], BeforeValidator(checked_settings)] = {"peft_type": "LORA"}
    """`peft_type` and what differs from PEFT's defaults, in canonical form."""

    lora_fa: bool = Field(default=False, exclude_if=lambda value: not value)
    """LORA with A frozen and B's gradients projected: LoRA-FA, which PEFT has as an optimizer."""
    init_text: Annotated[str, Field(min_length=1, max_length=20_000)] | None = Field(
        default=None, exclude_if=lambda value: value is None
    )
    """A text whose first tokens' keys and values in the base model are those that PREFIX_TUNING or
    CARTRIDGE begins with."""

    @model_validator(mode="after")
    def _extras_fit_the_type(self) -> Self:
        if self.lora_fa and self.peft_type != "LORA":
            raise ValueError(f"lora_fa: is of peft_type LORA, not {self.peft_type}; leave it out")
        if self.init_text is not None and self.peft_type not in IN_CACHE:
            raise ValueError(
                f"init_text: is of peft_type {' and '.join(IN_CACHE)}, not {self.peft_type}; leave "
                "it out"
            )
        if self.init_text is not None and self.settings.get("prefix_projection"):
            raise ValueError(
                "init_text: has no place behind prefix_projection; leave one of them out"
            )
        return self

    @property
    def peft_type(self) -> str:
        """PEFT's name of the type, such as OFT."""
        return str(self.peft["peft_type"])

    @property
    def settings(self) -> dict[str, Any]:
        """The options without the type."""
        return {name: value for name, value in self.peft.items() if name != "peft_type"}

    def identity(self) -> dict[str, Any]:
        """The type, and the options that differ from PEFT's defaults; not PEFT's version."""
        stated = {"lora_fa": True} if self.lora_fa else {}
        return {**self.peft, **stated, **({"init_text": self.init_text} if self.init_text else {})}

    def size_options(self) -> tuple[str, ...]:
        """The options that say how many parameters the type trains."""
        return size_names(self.peft_type)

    @property
    def quantisation_fault(self) -> str | None:
        """Why the base may not be in 8 or 4 bits; None where it may."""
        start = self.peft.get("init_lora_weights")
        if self.peft_type in QUANTISED and start not in ("pissa", "olora", "mica"):
            return None
        what = self.peft_type if self.peft_type not in QUANTISED else f"init_lora_weights: {start}"
        return f"{what} reads the base's weights, which PEFT cannot have from 8 or 4 bits"

    def states(self, name: str) -> bool:
        """Whether an option was given: see MATCHED."""
        return name in self.peft

    def stated(self, name: str) -> Any:
        """The value of an option that differs from PEFT's default."""
        return self.peft[name]

    def resized(self, name: str, value: int) -> Self:
        """The same options with another size.

        Raises:
            ValueError: PEFT refuses it.
        """
        return self.model_validate({**self.model_dump(), "peft": {**self.peft, name: value}})


def apply_peft(model: PreTrainedModel, options: PeftOptions, seed: int) -> PeftModel:
    """Freezes the model, inserts the adapter that PEFT makes of the options, and wraps it.

    Raises:
        MethodError: PEFT finds that the options do not fit the model, or a module that they name is
            not there.
    """
    from harness.methods.row_dropout import replace_draws, replace_dropouts

    kind, shape = options.peft_type, shape_of(model.config)
    try:
        config = make_config(kind, _settings_on(shape, options))
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", module="peft")  # on extensions and on merging
            warnings.filterwarnings("error", message="Invalid .* Adjusted")  # another size's cell
            adapted = insert_adapter(model, config, seed)
    except ZbenchError:
        raise
    except Exception as fault:  # of any kind: PEFT uses its settings unchecked
        if is_out_of_memory(fault):
            raise
        raise MethodError(
            f"PEFT cannot make {kind} of these options ({plain_message(fault)})"
        ) from fault
    if kind == "ADAPTION_PROMPT":
        draw_prompts(adapted, seed)
    _check_targets(adapted, options)
    replace_dropouts(adapted)
    if kind == "PVERA":
        replace_draws(adapted)
    if options.lora_fa:
        freeze_a(adapted)
    return adapted


def peft_hook(model: Any, options: PeftOptions) -> TrainingHook | None:
    """What a type does between the steps of a training, or before the first."""
    if options.peft_type == "ADALORA":
        return AdaLora(model)
    if options.init_text is not None:
        return TextStart(model, options.init_text)
    return LoraFa(model) if options.lora_fa else None


def _settings_on(shape: ModelShape, options: PeftOptions) -> dict[str, Any]:
    """The options with what follows from the model: sizes of virtual tokens, default targets."""
    kind, settings = options.peft_type, options.settings
    if kind in IN_CACHE:
        sizes = (shape.key_value_heads, shape.key_value_size)
    elif kind in BEFORE_TEXT:
        sizes = (shape.num_attention_heads, shape.hidden_size)
    else:
        quiet = {"progressbar": False} if kind == "FROD" else {}
        return _default_targets(kind, shape) | settings | quiet
    return settings | {
        "num_layers": shape.num_hidden_layers,
        "num_attention_heads": sizes[0],
        "token_dim": sizes[1],
        "num_transformer_submodules": 1,
    }


def _default_targets(kind: str, shape: ModelShape) -> dict[str, Any]:
    """The modules that are adapted where neither an entry nor PEFT says which.

    Raises:
        MethodError: nothing tells.
    """
    from peft.mapping import PEFT_TYPE_TO_TUNER_MAPPING

    if kind == "ADAPTION_PROMPT":
        check_family(shape)
    known = getattr(PEFT_TYPE_TO_TUNER_MAPPING[kind], "target_module_mapping", None)  # type: ignore[index]
    if known is None or shape.model_type in known or kind == "TRAINABLE_TOKENS":
        return {}
    if kind == "LN_TUNING":
        return {"target_modules": ["input_layernorm", "post_attention_layernorm"]}
    return {"target_modules": _QUERIES_AND_VALUES[FAMILIES[shape.model_type].layout]}


def _check_targets(adapted: PeftModel, options: PeftOptions) -> None:
    """Refuses modules that the model does not have, which PEFT would ignore.

    Raises:
        MethodError: it has none of a name.
    """
    named = options.settings.get("target_modules")
    reached = getattr(adapted.base_model, "targeted_module_names", None)
    if not isinstance(named, list) or not reached:
        return
    lacking = [name for name in named if not any(f".{one}".endswith(f".{name}") for one in reached)]
    if lacking:
        layers = dict.fromkeys(one.rpartition(".")[2] for one in reached)
        raise MethodError(
            f"target_modules: the model has no module {', '.join(lacking)} that "
            f"{options.peft_type} adapts; it adapts {', '.join(layers)}"
        )


def count_peft(shape: ModelShape, options: PeftOptions) -> int:
    """The parameters that PEFT's model trains; built without weights, once for a shape.

    Raises:
        MethodError: PEFT finds that the options do not fit the model, or they train nothing.
    """
    question = {"count": options.identity(), "shape": shape.model_dump(mode="json")}
    count = remembered(question, lambda: _counted(shape, options))
    if count == 0:
        raise MethodError(f"these options of {options.peft_type} train no parameter")
    return count


def _counted(shape: ModelShape, options: PeftOptions) -> int:
    settings, layers = options.settings, shape.num_hidden_layers
    if options.peft_type == "ADAPTION_PROMPT" and settings["adapter_layers"] <= layers:
        check_family(shape)
        return int(settings["adapter_layers"] * (settings["adapter_len"] * shape.hidden_size + 1))
    if (known := known_count(shape, options.peft_type, settings)) is not None:
        return known
    targets = settings.get("target_modules")
    by_name = isinstance(targets, str) or any("." in name for name in targets or ())
    by_layer = by_name or options.peft_type == "TINYLORA" or _LAYER_OPTIONS & settings.keys()
    try:
        if layers <= 4 or by_layer:
            return _count_in(shape, options, "meta")
        return _extrapolated(shape, options, "meta")
    except MethodError as fault:
        if "meta" not in str(fault):
            raise
    # PEFT reads the weights of some types as it begins, of which the meta device has none.
    if options.peft_type in ("FROD", "ADAMSS") and shape.hidden_size > _LARGEST_DECOMPOSED:
        raise MethodError(
            f"{options.peft_type}: with these options its parameters are counted by decomposing "
            f"matrices, which takes hours at hidden size {shape.hidden_size}; name target_modules "
            "alone, in all layers"
        )
    return _extrapolated(shape, options, "cpu")


def _extrapolated(shape: ModelShape, options: PeftOptions, device: str) -> int:
    """The count from those of models with one and with two layers: every layer adds the same."""
    one, two = (
        _count_in(shape.model_copy(update={"num_hidden_layers": layers}), options, device)
        for layers in (1, 2)
    )
    return one + (two - one) * (shape.num_hidden_layers - 1)


def _count_in(shape: ModelShape, options: PeftOptions, device: str) -> int:
    """The parameters that are trained in a model of a shape on a device, with random weights."""
    from harness.models.loading import count_parameters

    start = options.settings.get("init_lora_weights")
    if start in ("pissa", "olora", "mica"):  # decompositions of weights, of the same sizes
        options = options.model_copy(update={"peft": {**options.peft, "init_lora_weights": True}})
    adapted = apply_peft(model_of_shape(shape, device), options, 0)
    for name, parameter in adapted.named_parameters():
        # Frozen, which the meta device does not tell.
        if (start == "mica" and ".lora_B." in name) or ".ranknum." in name:
            parameter.requires_grad_(False)
    return count_parameters(adapted)[0]


def model_of_shape(shape: ModelShape, device: str) -> PreTrainedModel:
    """A model of a shape: without weights on the device `meta`, elsewhere with random ones and a
    vocabulary of eight tokens."""
    import torch
    from transformers import AutoConfig, AutoModelForCausalLM

    sizes: Mapping[str, Any] = shape.model_dump(exclude_none=True, exclude={"model_type"})
    if device != "meta":
        sizes = {**sizes, "vocab_size": 8}
    tokens = {"bos_token_id": 1, "eos_token_id": 2, "pad_token_id": 0}
    config = AutoConfig.for_model(shape.model_type, **sizes, **tokens)
    with torch.random.fork_rng(devices=[]), torch.device(device):
        model: PreTrainedModel = AutoModelForCausalLM.from_config(config)
    return model


def peft_workload(shape: ModelShape, options: PeftOptions) -> Workload:
    """Virtual tokens before each row, or added weights that every token passes."""
    tokens = int(options.settings.get("num_virtual_tokens") or 0)
    if options.peft_type in IN_CACHE:
        return Workload(virtual_keys=tokens, shares_prefix=False, padded=True)
    if options.peft_type in BEFORE_TEXT:
        return Workload(
            virtual_keys=tokens, virtual_tokens=tokens, shares_prefix=False, padded=True
        )
    dropout = any(value for name, value in options.settings.items() if name.endswith("dropout"))
    dropout |= options.peft_type == "PVERA"  # whose noise is each row's own, too
    return Workload(
        added_weights=count_peft(shape, options),
        shares_prefix=not dropout,
        kept_values=_kept_values(shape, options),
    )


def _kept_values(shape: ModelShape, options: PeftOptions) -> float:
    """The values that a type keeps of each token, over all layers.

    Like LoRA its targets' inputs; what is not plain LoRA rescales or rotates outputs as well, of
    which two are counted, as for DoRA.
    """
    named = _settings_on(shape, options).get("target_modules")
    sizes = [
        size
        for name, size in shape.linear_layers.items()
        if options.peft_type != "LN_TUNING" and (not isinstance(named, list) or name in named)
    ]
    inputs, outputs = (shape.num_hidden_layers * sum(size[end] for size in sizes) for end in (0, 1))
    plain = options.peft_type == "LORA" and not options.settings.get("use_dora")
    return inputs + (0 if plain else 2 * outputs)


PEFT = Method(
    name="peft",
    title="PEFT",
    options=PeftOptions,
    recipe=ALPACA_LORA,
    apply=apply_peft,
    count_parameters=count_peft,
    workload=peft_workload,
    hook=peft_hook,
)
"""Trained as Alpaca-LoRA trains, whatever the type, where a grid says nothing else [choice]."""
