"""The two regression functions and their derivatives, for many parameter vectors at once.

With atom i's prompt p_i, bias b_i, image z_i (p_i, or W2 tanh(W1 p_i)), score
s_i = (B z_i)^T x + b_i and value v_i = C z_i:

    zero-init   f = f0(x) + tanh(alpha) g(x),  g = sum_i pi_i v_i,  pi = softmax(s)
    joint       f = [sum_k exp(l_k) h_k + sum_i exp(s_i) v_i] / [sum_k exp(l_k) + sum_i exp(s_i)]

f0 is the softmax of the pre-trained experts k alone. Section 3 of docs/theory.md derives the
derivatives.

Shapes: S parameter vectors, K parameters, M inputs x, and those of `world`. A parameter vector is
p row by row (L q), then b (L), then alpha where it is estimated. A design has one set of inputs for
all parameter vectors (leading axis 1), or one each (leading axis S).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np

from harness.theory.world import Array, PretrainedExperts, Truth, World

Gating = Literal["zero-init", "joint"]


@dataclass(frozen=True)
class Design:
    """Inputs x with what the pre-trained experts give there."""

    x: Array
    """(1 or S, d, M)."""
    logits: Array
    """l_k, (1 or S, N, M)."""
    values: Array
    """h_k, (1 or S, N, m, M)."""
    base: Array
    """f0, (1 or S, m, M)."""

    def take(self, index: np.ndarray) -> Design:
        """Designs of some parameter vectors; the same where all share one."""
        if len(self.x) == 1:
            return self
        return Design(*(array[index] for array in vars(self).values()))


@dataclass(frozen=True)
class Evaluation:
    """A regression function's values with what its derivatives are made of."""

    f: Array
    """(S, m, M)."""
    share: Array
    """pi, (S, L, M): softmax weights of the atoms."""
    value: Array
    """v, (S, L, m)."""
    centre: Array
    """What v is compared with: g for zero-init, f for joint; (S, m, M)."""
    strength: Array
    """c, (S,): tanh(alpha) for zero-init, 1 for joint."""
    image: Array
    """dz/dp, (S, L, q, q), or (1, 1, q, q) for linear prompts."""

    def take(self, index: np.ndarray) -> Evaluation:
        """Evaluations of some parameter vectors; a shared image stays as it is."""
        arrays = vars(self).values()
        return Evaluation(*(array if len(array) == 1 else array[index] for array in arrays))


@dataclass(frozen=True)
class Regression:
    """A model to fit: which attention, which prompts, how many atoms."""

    gating: Gating
    world: World
    num_atoms: int
    is_linear: bool = True
    known_alpha: float | None = None
    """Zero-init: alpha where it is not estimated."""

    @property
    def has_alpha(self) -> bool:
        """Whether the parameter vector ends with alpha."""
        return self.gating == "zero-init" and self.known_alpha is None

    @property
    def num_parameters(self) -> int:
        """K."""
        return self.num_atoms * (self.world.key.shape[1] + 1) + self.has_alpha

    def pack(self, prompts: Array, biases: Array, alpha: Array | float) -> Array:
        """Parameter vectors (..., K) of p (..., L, q), b (..., L) and alpha (...)."""
        parts = [prompts.reshape(*biases.shape[:-1], -1), biases]
        if self.has_alpha:
            parts.append(np.broadcast_to(np.asarray(alpha)[..., None], (*biases.shape[:-1], 1)))
        return np.concatenate(parts, axis=-1)

    def pack_truth(self, truth: Truth) -> Array:
        """Parameter vector of a truth with as many atoms, (1, K)."""
        return self.pack(truth.prompts, truth.biases, truth.alpha)[None]

    def unpack(self, theta: Array) -> tuple[Array, Array, Array]:
        """p (S, L, q), b (S, L) and alpha (S,) of parameter vectors (S, K)."""
        size = self.num_atoms * self.world.key.shape[1]
        prompts = theta[:, :size].reshape(len(theta), self.num_atoms, -1)
        biases = theta[:, size : size + self.num_atoms]
        known = 0.0 if self.known_alpha is None else self.known_alpha
        alpha = theta[:, -1] if self.has_alpha else np.full(len(theta), known)
        return prompts, biases, alpha

    def evaluate(self, theta: Array, design: Design) -> Evaluation:
        """f at every input, with the parts of its derivatives."""
        prompts, biases, alpha = self.unpack(theta)
        images, jacobian = self._images(prompts)
        scores = (images @ self.world.key.T) @ design.x + biases[:, :, None]
        value = images @ self.world.value.T
        if self.gating == "zero-init":
            share = np.exp(scores - scores.max(axis=1, keepdims=True))
            share /= share.sum(axis=1, keepdims=True)
            centre = np.swapaxes(value, 1, 2) @ share
            strength = np.tanh(alpha)
            f = design.base + strength[:, None, None] * centre
        else:
            top = np.maximum(scores.max(axis=1), design.logits.max(axis=1))[:, None]
            share, pretrained = np.exp(scores - top), np.exp(design.logits - top)
            total = share.sum(axis=1, keepdims=True) + pretrained.sum(axis=1, keepdims=True)
            share /= total
            values = np.broadcast_to(design.values, (len(pretrained), *design.values.shape[1:]))
            f = np.einsum("snM,snmM->smM", pretrained / total, values)
            f += np.swapaxes(value, 1, 2) @ share
            centre, strength = f, np.ones(len(theta))
        return Evaluation(f, share, value, centre, strength, jacobian)

    def jacobian(self, found: Evaluation, design: Design) -> Array:
        """df/dtheta, (S, K, m, M).

        With c = tanh(alpha) and r = g (zero-init), or c = 1 and r = f (joint):
        df/db_i = c pi_i (v_i - r);  df/dp_i = df/db_i (x^T B Z_i) + c pi_i C Z_i with
        Z_i = dz_i/dp_i;  df/dalpha = (1 - tanh(alpha)^2) g.
        """
        count, length, num_inputs = found.share.shape
        outputs, size = self.world.value.shape
        full = np.empty((count, self.num_parameters, outputs, num_inputs))
        weight = found.strength[:, None, None] * found.share
        by_bias = full[:, length * size : length * (size + 1)]
        np.subtract(found.value[..., None], found.centre[:, None], out=by_bias)
        by_bias *= weight[:, :, None]
        key, value = self.world.key @ found.image, self.world.value @ found.image
        by_prompt = full[:, : length * size].reshape(count, length, size, outputs, num_inputs)
        along = np.swapaxes(key, -1, -2) @ design.x[:, None]
        np.multiply(by_bias[:, :, None], along[:, :, :, None], out=by_prompt)
        by_prompt += weight[:, :, None, None] * np.swapaxes(value, -1, -2)[..., None]
        if self.has_alpha:
            full[:, -1] = (1 - found.strength[:, None, None] ** 2) * found.centre
        return full

    def _images(self, prompts: Array) -> tuple[Array, Array]:
        """z (S, L, q) and dz/dp (S or 1, L or 1, q, q)."""
        if self.is_linear:
            return prompts, np.eye(prompts.shape[-1])[None, None]
        hidden = np.tanh(prompts @ self.world.hidden.T)
        slope = (1 - hidden**2)[..., None] * self.world.hidden
        return hidden @ self.world.output.T, self.world.output @ slope


def make_design(experts: PretrainedExperts, x: Array) -> Design:
    """Design of inputs x, (1 or S, d, M)."""
    logits = (
        np.einsum("kde,sdM,seM->skM", experts.quadratic, x, x, optimize=True)
        + experts.linear @ x
        + experts.offset[None, :, None]
    )
    shift = experts.shift[None, :, :, None]
    if experts.slope is None:
        values = np.tile(shift, (len(x), 1, 1, x.shape[-1]))
    else:
        values = np.tanh(np.einsum("kmd,sdM->skmM", experts.slope, x) + shift)
    weights = np.exp(logits - logits.max(axis=1, keepdims=True))
    weights /= weights.sum(axis=1, keepdims=True)
    return Design(x, logits, values, np.einsum("skM,skmM->smM", weights, values))
