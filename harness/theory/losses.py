"""How far an estimate is from the truth: Voronoi cells for over-fitted models, else a matching.

Fitted atom i belongs to the cell of the true prompt nearest to it: V_j = {i : j = argmin |p_i -
p*_j'|}. With Dp_i = p_i - p*_cell(i) and weights w_i = exp(b_i) (joint), or exp(b_i) / sum exp(b)
(zero-init, where b is known up to a common constant):

    D = sum over cells with one atom of w_i |Dp_i|  +  sum over cells with several of w_i |Dp_i|^2
        + sum_j |sum_{i in V_j} w_i - w*_j|  (+ |tanh alpha - tanh alpha*|, zero-init)

Cells and weights do not depend on the order of the atoms, nor (zero-init) on the constant. The
paper's own D is not printed in what is public; this is the form of its literature.

Shapes: R estimates, L true and P fitted atoms, q prompt size.
"""

from __future__ import annotations

from collections.abc import Mapping
from itertools import permutations

import numpy as np

from harness.theory.regression import Design, Regression
from harness.theory.world import Array, Truth

TITLES: Mapping[str, str] = {
    "single": "prompts, cells with one atom",
    "over": "prompts, over-fitted cells",
    "over_mean": "the same, mean by weight",
    "centre": "centre of over-fitted cells",
    "prompt": "prompts",
    "mass": "masses",
    "alpha": "gate alpha",
    "voronoi": "Voronoi loss D",
    "function": "regression function f",
}
"""Names of the quantities that are measured, in the order of tables."""


def cell_losses(model: Regression, truth: Truth, theta: Array) -> dict[str, Array]:
    """Losses by Voronoi cells, each (R,); NaN where there is no such cell.

    single, over: the largest |Dp_i| over cells with one atom and with several; over_mean: its mean
    by weight over the latter; centre: the largest |sum w_i Dp_i| / sum w_i over them; mass,
    voronoi: the last sum and all of D above; alpha: |alpha - alpha*|; empty: cells with no atom.
    Estimates theta are (R, K).
    """
    prompts, weights, true_weights, gate = _atoms_of(model, truth, theta)
    offset = prompts[:, :, None] - truth.prompts
    cell = (offset**2).sum(axis=-1).argmin(axis=2)
    member = cell[:, :, None] == np.arange(len(truth.prompts))
    count = member.sum(axis=1)
    own = np.take_along_axis(offset, cell[:, :, None, None], axis=2)[:, :, 0]
    distance = np.linalg.norm(own, axis=-1)
    is_alone = np.take_along_axis(count, cell, axis=1) == 1
    mass = np.einsum("ri,rij->rj", weights, member)
    moved = np.linalg.norm(np.einsum("ri,riq,rij->rjq", weights, own, member), axis=-1)
    shared = np.where(is_alone, 0, weights)
    off_mass = np.abs(mass - true_weights).sum(axis=1)
    losses = {
        "single": _largest(distance, is_alone),
        "over": _largest(distance, ~is_alone),
        "over_mean": _ratio((shared * distance).sum(axis=1), shared.sum(axis=1)),
        "centre": _largest(_ratio(moved, mass), count > 1),
        "mass": off_mass,
        "voronoi": (weights * np.where(is_alone, distance, distance**2)).sum(axis=1)
        + off_mass
        + gate,
        "empty": (count == 0).sum(axis=1).astype(float),
    }
    return losses | _alpha_loss(model, truth, theta)


def matched_losses(model: Regression, truth: Truth, theta: Array) -> dict[str, Array]:
    """Losses where as many atoms are fitted as there are, each (R,).

    The atoms are matched so that sum |Dp_i| is least. prompt: the largest |Dp_i|; mass: sum |w_i -
    w*_i|; voronoi: sum w_i |Dp_i| + mass (+ the gate's part, as above); alpha: |alpha - alpha*|.
    Estimates theta are (R, K), and L = P.
    """
    prompts, weights, true_weights, gate = _atoms_of(model, truth, theta)
    orders = np.array(list(permutations(range(len(truth.prompts)))))
    distance = np.linalg.norm(prompts[:, orders] - truth.prompts, axis=-1)
    best = distance.sum(axis=2).argmin(axis=1)
    distance = distance[np.arange(len(theta)), best]
    weights = np.take_along_axis(weights, orders[best], axis=1)
    mass = np.abs(weights - true_weights).sum(axis=1)
    losses = {
        "prompt": distance.max(axis=1),
        "mass": mass,
        "voronoi": (weights * distance).sum(axis=1) + mass + gate,
    }
    return losses | _alpha_loss(model, truth, theta)


def function_loss(model: Regression, theta: Array, f: Array, design: Design) -> Array:
    """Root mean square over inputs of |f_theta - f*|, (R,); f is (m, M)."""
    gap = model.evaluate(theta, design).f - f
    return np.asarray(np.sqrt((gap**2).sum(axis=1).mean(axis=1)))


def _atoms_of(
    model: Regression, truth: Truth, theta: Array
) -> tuple[Array, Array, Array, Array | float]:
    """p (R, P, q), w (R, P), w* (L,) and |tanh alpha - tanh alpha*| (0 for joint)."""
    prompts, biases, alpha = model.unpack(theta)
    weights, true_weights = np.exp(biases), np.exp(truth.biases)
    if model.gating == "joint":
        return prompts, weights, true_weights, 0.0
    weights = weights / weights.sum(axis=1, keepdims=True)
    gate = np.abs(np.tanh(alpha) - np.tanh(truth.alpha))
    return prompts, weights, true_weights / true_weights.sum(), gate


def _alpha_loss(model: Regression, truth: Truth, theta: Array) -> dict[str, Array]:
    return {"alpha": np.abs(theta[:, -1] - truth.alpha)} if model.has_alpha else {}


def _largest(values: Array, holds: np.ndarray) -> Array:
    found = np.where(holds, values, -np.inf).max(axis=1)
    return np.where(holds.any(axis=1), found, np.nan)


def _ratio(top: Array, bottom: Array) -> Array:
    return np.where(bottom > 0, top / np.where(bottom > 0, bottom, 1), np.nan)
