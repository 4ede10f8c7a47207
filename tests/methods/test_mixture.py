"""Zero-initialised attention is a mixture of experts: arXiv 2502.03029, sections 3 and 4.

X is the whole text as one vector, its T tokens one after another. A token's expert is the linear
map E_j that picks token j and projects it to a value; its gate is a softmax of quadratic forms in
X. A prompt's expert does not depend on X, and its gate is a softmax of linear forms.
"""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from tests.fixtures.tiny_models import adapted, stir, tiny_model, token_ids
from tests.methods.zero_init.test_formula import make_exact

LAYER, TOKENS = 2, 6


def rotation(position: int, size: int) -> Tensor:
    """The matrix (d, d) of the rotary embedding at a position."""
    half = size // 2
    matrix = torch.zeros(size, size, dtype=torch.float64)
    for pair in range(half):
        angle = torch.tensor(position * 10000.0 ** (-pair / half), dtype=torch.float64)
        matrix[pair, pair] = matrix[pair + half, pair + half] = torch.cos(angle)
        matrix[pair, pair + half], matrix[pair + half, pair] = -torch.sin(angle), torch.sin(angle)
    return matrix


@pytest.mark.parametrize("method", ["zero-init-linear", "zero-init-nonlinear"])
@pytest.mark.parametrize("heads", ["multi-head", "grouped-query", "wide-heads"])
def test_the_layer_is_the_mixture(heads: str, method: str) -> None:
    model = make_exact(stir(adapted(method, tiny_model(heads))))
    attention = model.get_decoder().layers[LAYER].self_attn
    seen: list[Tensor] = []
    handles = [
        attention.register_forward_pre_hook(
            lambda _, args, kwargs: seen.append(kwargs["hidden_states"]), with_kwargs=True
        ),
        attention.o_proj.register_forward_pre_hook(lambda _, args: seen.append(args[0])),
    ]
    with torch.no_grad():
        model(token_ids(1, TOKENS), use_cache=False)
    for handle in handles:
        handle.remove()
    hidden_TD, output_TK = seen[0][0], seen[1][0]
    x = hidden_TD.flatten()
    size, width = attention.head_dim, hidden_TD.shape[1]
    groups = attention.num_key_value_groups
    prompt_LD = attention.prompt.prompt().detach()

    def pick(token: int) -> Tensor:
        """E_j, (D, T·D): x -> token j."""
        chosen = torch.zeros(width, TOKENS * width, dtype=torch.float64)
        chosen[:, token * width : (token + 1) * width] = torch.eye(width, dtype=torch.float64)
        return chosen

    query, last = None, TOKENS - 1
    for head in range(model.config.num_attention_heads):
        shared = head // groups
        w_query = attention.q_proj.weight.detach()[head * size : (head + 1) * size]
        w_key = attention.k_proj.weight.detach()[shared * size : (shared + 1) * size]
        w_value = attention.v_proj.weight.detach()[shared * size : (shared + 1) * size]
        query = rotation(last, size) @ w_query @ pick(last)
        quadratic = [query.T @ rotation(j, size) @ w_key @ pick(j) for j in range(TOKENS)]
        gates = torch.softmax(torch.stack([x @ form @ x for form in quadratic]) / size**0.5, 0)
        experts = torch.stack([w_value @ pick(j) @ x for j in range(TOKENS)])
        linear = torch.stack([query.T @ w_key @ row for row in prompt_LD])
        prompt_gates = torch.softmax(linear @ x / size**0.5, 0)
        prompt_experts = prompt_LD @ w_value.T
        strength = torch.tanh(attention.prompt.gate.detach()[head].flatten())
        mixture = gates @ experts + strength * (prompt_gates @ prompt_experts)
        found = output_TK[last, head * size : (head + 1) * size]
        torch.testing.assert_close(found, mixture, rtol=1e-10, atol=1e-10)
        assert (strength * (prompt_gates @ prompt_experts)).abs().max() > 1e-3
