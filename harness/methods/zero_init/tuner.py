"""The prompt methods as a PEFT tuner: what `PeftModel` needs to insert, save and load them.

Importing this module registers the methods; `peft_hook` imports it as soon as PEFT is imported, so
that `PeftModel.from_pretrained` can load these adapter folders.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
from peft import PeftType
from peft.mapping import PEFT_TYPE_TO_TUNER_MAPPING
from peft.tuners.tuners_utils import BaseTuner
from peft.utils import register_peft_method
from torch import nn

from harness.errors import MethodError
from harness.methods.zero_init.attention import (
    GENERATOR,
    PROMPT,
    PROMPT_ATTENTION_PREFIX,
    PromptAttention,
    register_prompts,
)
from harness.methods.zero_init.config import PromptConfig
from harness.methods.zero_init.layers import GeneratorLayer, ProjectionLayer, PromptLayer
from harness.methods.zero_init.options import (
    GatedPromptOptions,
    GeneratedPromptOptions,
    check_base,
)
from harness.models.adapter_folder import WEIGHTS_FILE, check_names
from harness.models.adapter_settings import ZERO_INIT_PROMPT
from harness.models.families import FAMILIES, refusal
from harness.models.image_encoder import ImageEncoderSpec
from harness.models.packed_attention import implementation_of
from harness.models.pictures import PROJECTION
from harness.models.shape import shape_of
from harness.readers.tensor_files import check_weights


class PromptTuner(BaseTuner):
    """Inserts zero-initialised attention (not PEFT's prompt tuning) beside that of other adapters.

    PEFT calls `_prepare_model`, then `_check_target_module_exists` per module, then
    `_create_and_replace` per match.
    """

    # The substring of state_dict keys by which PEFT finds adapter weights.
    prefix = "prompt_"
    tuner_layer_cls = (PromptLayer, GeneratorLayer, ProjectionLayer)  # type: ignore[assignment]
    target_module_mapping: dict[str, list[str]] = {}

    def inject_adapter(self, model: Any, adapter_name: str, *args: Any, **kwargs: Any) -> None:
        """Inserts an adapter beside those that the model carries.

        Raises:
            MethodError: the model carries one of this name, or cannot carry prompts.
            ModelError: the adapter is for another base model.
        """
        for module in model.modules():
            if isinstance(module, PromptLayer) and adapter_name in module.adapters():
                raise MethodError(
                    f"this base carries a prompt adapter called {adapter_name} already; unload "
                    "it, or load the other under another name with load_adapter"
                )
        super().inject_adapter(model, adapter_name, *args, **kwargs)

    def _prepare_adapter_config(self, peft_config: Any, model_config: Any) -> Any:
        return peft_config

    def _prepare_model(self, peft_config: Any, model: Any) -> None:
        """Checks that the adapter fits the model, and switches the model's attention over.

        Raises:
            MethodError: the model cannot carry prompts.
            ModelError: the adapter is for another base model.
        """
        shape = shape_of(model.config)
        if peft_config.base_shape is not None:
            check_base(peft_config.base_shape, shape)
        peft_config.base_shape = shape.model_dump()
        adapted = peft_config.parsed.adapted_layers(shape)
        if not model.config._attn_implementation.startswith(PROMPT_ATTENTION_PREFIX):
            check_attention(model)
            model.set_attn_implementation(register_prompts(model))
        decoder = model.get_decoder()
        self._shape, self._family = shape, FAMILIES[shape.model_type]
        self._layer_of = {
            id(getattr(decoder.layers[index], self._family.attention)): index for index in adapted
        }
        self._layers_left = len(adapted)
        # Drawn on the CPU in fp32: the same initial values on every device, in any precision.
        self._rng = torch.Generator(device="cpu").manual_seed(peft_config.seed)

    def _check_target_module_exists(self, peft_config: PromptConfig, key: str) -> bool:  # type: ignore[override]  # static in PEFT
        return id(self.model.get_submodule(key)) in self._layer_of

    def _create_and_replace(  # type: ignore[override]  # parameter_name is for other methods
        self,
        peft_config: PromptConfig,
        adapter_name: str,
        target: Any,
        target_name: str,
        parent: nn.Module,
        current_key: str,
    ) -> None:
        """Adds a prompt to an attention layer; nothing of the base is replaced."""
        options: Any = peft_config.parsed
        device = next(target.parameters()).device
        layer = getattr(target, PROMPT, None)
        if layer is None:
            layer = PromptLayer(layer_index=self._layer_of[id(target)], family=self._family)
            target.add_module(PROMPT, layer.train(target.training))
        layer.device = device
        virtual_tokens = generator = None
        if isinstance(options, GeneratedPromptOptions):
            generator = self._generator()
            if adapter_name not in generator.prompt_embedding:
                generator.device = device  # the first layer's
                generator.add(
                    adapter_name,
                    prompt_length=options.prompt_length,
                    hidden_size=options.hidden_size,
                    activation=options.activation,
                    rng=self._rng,
                    device=device,
                )
                generator.set_adapter(self.active_adapters)
        else:
            size = (options.prompt_length, self._shape.hidden_size)
            virtual_tokens = torch.randn(size, generator=self._rng)
        gated = isinstance(options, GatedPromptOptions)
        layer.add(
            adapter_name,
            virtual_tokens=virtual_tokens,
            generator=generator,
            num_heads=self._shape.num_attention_heads,
            gate_activation=options.gate_activation if gated else None,
            takes_pictures=options.image_encoder is not None,
            device=device,
        )
        layer.set_adapter(self.active_adapters)
        self._layers_left -= 1
        # Drawn after all else, so that prompts begin as those of the text alone.
        if options.image_encoder is not None and not self._layers_left:
            self._add_projection(adapter_name, options.image_encoder, device)

    def _add_projection(
        self, adapter: str, encoder: ImageEncoderSpec, device: torch.device
    ) -> None:
        decoder: Any = self.model.get_decoder()
        if not hasattr(decoder, PROJECTION):
            decoder.add_module(PROJECTION, ProjectionLayer().train(decoder.training))
        projection: ProjectionLayer = getattr(decoder, PROJECTION)
        projection.device = device
        projection.add(
            adapter,
            num_features=encoder.num_features,
            hidden_size=encoder.hidden_size,
            model_size=self._shape.hidden_size,
            rng=self._rng,
            device=device,
        )
        projection.set_adapter(self.active_adapters)

    def _generator(self) -> GeneratorLayer:
        """The model's generators; added with the first prompt that one of them makes.

        Not before: PEFT freezes a base only where it finds no adapter layer in it.
        """
        decoder: Any = self.model.get_decoder()
        if not hasattr(decoder, GENERATOR):
            layer = GeneratorLayer(
                num_layers=self._shape.num_hidden_layers, model_size=self._shape.hidden_size
            )
            decoder.add_module(GENERATOR, layer)
        found: GeneratorLayer = getattr(decoder, GENERATOR)
        return found

    def set_adapter(self, adapter_name: Any, inference_mode: bool = False) -> None:
        """Switches to an adapter.

        Raises:
            MethodError: more than one is named; a layer computes one prompt.
        """
        names = [adapter_name] if isinstance(adapter_name, str) else list(adapter_name)
        if len(names) > 1:
            raise MethodError(f"one prompt adapter is active at a time, not {', '.join(names)}")
        super().set_adapter(names, inference_mode)

    def delete_adapter(self, adapter_name: str) -> None:
        """Removes an adapter; where it was active, the first of the others is, in every layer."""
        was_active = adapter_name in self.active_adapters
        super().delete_adapter(adapter_name)
        if was_active and self.peft_config:
            self.set_adapter(next(iter(self.peft_config)))

    @classmethod
    def _remap_adapter_state_dict_for_load(
        cls, model: Any, config: Any, adapter_name: str, state_dict: dict[str, Any]
    ) -> dict[str, Any]:
        """Refuses a file of other tensors, where PEFT would only warn.

        Raises:
            ZbenchError: a tensor is missing, unexpected, of another shape, or holds no weights.
        """
        mapped: dict[str, Any] = super()._remap_adapter_state_dict_for_load(
            model, config, adapter_name, state_dict
        )
        expected = {
            name: tensor
            for name, tensor in model.state_dict().items()
            if f".{cls.prefix}" in name and adapter_name in name.split(".")[-2:]
        }
        file = Path(WEIGHTS_FILE)
        found = {name: (str(t.dtype), tuple(t.shape)) for name, t in mapped.items()}
        check_names(file, found, expected)
        check_weights(file, mapped)
        return mapped

    def unload(self) -> Any:
        """Takes all prompts out; gives the base model as it was."""
        model: Any = self.model
        decoder = model.get_decoder()
        for module in model.modules():
            if isinstance(getattr(module, PROMPT, None), PromptAttention):
                delattr(module, PROMPT)
        for name in (GENERATOR, PROJECTION):
            if hasattr(decoder, name):
                delattr(decoder, name)
        own_name = model.config._attn_implementation.removeprefix(PROMPT_ATTENTION_PREFIX)
        model.set_attn_implementation(implementation_of(own_name))
        del model.peft_config
        return model

    def merge_adapter(self, *args: Any, **kwargs: Any) -> Any:
        """Refuses: prompts are no change of the base weights.

        Raises:
            MethodError: always.
        """
        raise MethodError("a prompt adapter cannot be merged into the base weights; keep it beside")

    merge_and_unload = unmerge_adapter = merge_adapter

    def add_weighted_adapter(self, *args: Any, **kwargs: Any) -> None:
        """Refuses: a sum of prompts is none of their sum of outputs.

        Raises:
            MethodError: always.
        """
        raise MethodError("prompt adapters cannot be added up; train one, or switch between them")

    @contextlib.contextmanager
    def _enable_peft_forward_hooks(self, *args: Any, **kwargs: Any) -> Iterator[None]:
        """Refuses `adapter_names`, an adapter per row, which would be ignored without a word.

        Raises:
            MethodError: it is given.
        """
        if kwargs.get("adapter_names") is not None:
            raise MethodError(
                "adapter_names: all rows of a batch have the one active prompt adapter; call "
                "set_adapter, and run the rows of each adapter by themselves"
            )
        yield


def check_attention(model: Any) -> None:
    """Checks that prompts can run on a model's attention.

    Raises:
        MethodError: another family or attention implementation.
    """
    family = model.config.model_type
    if family not in FAMILIES:
        raise MethodError(refusal(family))
    implementation = model.config._attn_implementation
    if implementation not in ("sdpa", "eager"):
        raise MethodError(
            f"prompt methods run on the attention implementations sdpa and eager, not on "
            f"{implementation}; load the model with attn_implementation='sdpa'"
        )


def register() -> None:
    """Makes PEFT know prompt adapters; calling it again changes nothing."""
    if ZERO_INIT_PROMPT in PeftType.__members__:
        return
    # PeftType is a closed str Enum: this adds a member by hand.
    member = str.__new__(PeftType, ZERO_INIT_PROMPT)
    member._name_ = ZERO_INIT_PROMPT
    member._value_ = ZERO_INIT_PROMPT
    type.__setattr__(PeftType, ZERO_INIT_PROMPT, member)
    PeftType._member_names_.append(ZERO_INIT_PROMPT)
    PeftType._member_map_[ZERO_INIT_PROMPT] = member
    PeftType._value2member_map_[ZERO_INIT_PROMPT] = member
    register_peft_method(
        name=ZERO_INIT_PROMPT.lower(),
        config_cls=PromptConfig,
        model_cls=PromptTuner,
        prefix="prompt_",
    )
    assert PEFT_TYPE_TO_TUNER_MAPPING[member] is PromptTuner


register()
