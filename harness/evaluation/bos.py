"""What a tokenizer puts before every text, and whether the model was made for it.

A LLaMA whose texts lack BOS loses several points on every benchmark, and nothing else looks wrong.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from harness.models.families import FAMILIES

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase


def leading_tokens(tokenizer: PreTrainedTokenizerBase) -> tuple[int, ...]:
    """Returns the tokens that the tokenizer puts before a text, as it really does it."""
    whole, plain = tokenizer.encode("a"), tokenizer.encode("a", add_special_tokens=False)
    starts = range(len(whole) - len(plain) + 1)
    found = (start for start in starts if whole[start : start + len(plain)] == plain)
    return tuple(whole[: next(found, 0)])


def describe_bos(tokenizer: PreTrainedTokenizerBase) -> str:
    """Returns what every text begins with: `token 1`, `tokens 1, 5`, or `none`."""
    found = leading_tokens(tokenizer)
    if not found:
        return "none"
    return f"token{'s' * (len(found) > 1)} {', '.join(map(str, found))}"


def bos_warning(tokenizer: PreTrainedTokenizerBase, config: Any) -> str | None:
    """Returns one line on how a tokenizer's BOS differs from what its model's configuration (of
    transformers) expects, with the consequence; None where nothing differs.

    A configuration names a BOS for many families that were pre-trained without one (Qwen2,
    GPT-NeoX, Phi-3): there it is right that the tokenizer puts none.
    """
    config = config.get_text_config()
    family = FAMILIES.get(config.model_type)
    expected, found = config.bos_token_id, leading_tokens(tokenizer)
    if found and found[0] == expected:
        return None
    if not found:
        if expected is None or family is None or not family.starts_with_bos:
            return None
        return (
            f"the tokenizer puts no BOS before a text, but {family.title} models were pre-trained "
            f"with one (config.json: token {expected}): scores come out lower than the model's "
            "own; take the model's own tokenizer.json"
        )
    named = "names none" if expected is None else f"names token {expected}"
    return (
        f"the tokenizer puts {describe_bos(tokenizer)} before a text, but config.json {named} as "
        "BOS: scores come out lower than the model's own if it was pre-trained otherwise; take the "
        "model's own tokenizer.json"
    )
