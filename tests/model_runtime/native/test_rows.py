"""Norms, activations and rotation: row by row, against float64 and in every instruction set."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor
from torch.nn import functional

from model_runtime.native.kernels import gated, layer_norm, rms_norm, rotate_and_store
from model_runtime.native.library import Operation, run
from tests.model_runtime.native.everywhere import drawn, everywhere, same_bits

Built = tuple[list[Operation], list[Tensor]]
WIDTHS = [1, 15, 16, 64, 576, 901]


@pytest.mark.parametrize("width", WIDTHS)
@pytest.mark.parametrize("centred", [False, True])
def test_norms_are_those_of_the_formula(width: int, centred: bool) -> None:
    """Within a few roundings of the largest output; what is added first comes to x as well."""
    x, add = 30 * drawn(1, 5, width) + 3, drawn(2, 5, width)
    weight, bias = drawn(3, width), drawn(4, width)

    def build() -> Built:
        sums, y = x.clone(), torch.empty_like(x)
        if centred:
            return [layer_norm(sums, weight, bias, 1e-5, y, add=add)], [sums, y]
        return [rms_norm(sums, weight, 1e-5, y, add=add)], [sums, y]

    sums, y = everywhere(build)
    assert same_bits(sums, x + add)
    wide = sums.double()
    if centred:
        exact = functional.layer_norm(wide, (width,), weight.double(), bias.double(), 1e-5)
    else:
        exact = functional.rms_norm(wide, (width,), weight.double(), 1e-5)
    scale = 1 if not centred or width > 1 else 10
    torch.testing.assert_close(y.double(), exact, rtol=2e-6 * scale, atol=3e-6 * scale)


@pytest.mark.parametrize("activation", ["silu", "gelu_tanh", "gelu_erf"])
def test_activations_are_those_of_the_formula(activation: str) -> None:
    """Far tails included."""
    tails = torch.tensor([-1e4, -100.0, -88.8, -88.0, -87.0, 0.0, 87.0, 88.5, 100.0, 1e4])
    gate = torch.cat([torch.linspace(-20, 20, 4001), tails]).unsqueeze(0)
    up = drawn(1, 1, gate.shape[1])

    def build() -> Built:
        alone, both = torch.empty_like(gate), torch.empty_like(gate)
        operations = [gated(gate, None, activation, alone), gated(gate, up, activation, both)]  # type: ignore[arg-type]
        return operations, [alone, both]

    alone, both = everywhere(build)
    wide = gate.double()
    exact = exact_activation(activation, wide)
    # An exponent of 80 carries 80 times its own rounding into the exponential.
    torch.testing.assert_close(alone.double(), exact, rtol=1e-5, atol=1e-30)
    torch.testing.assert_close(alone.double(), exact, rtol=1e-6, atol=1e-7)
    assert same_bits(both, alone * up)


def exact_activation(activation: str, x: Tensor) -> Tensor:
    """Without rounding 1 + tanh or 1 + erf to 0 in the lower tail, as torch's own do."""
    if activation == "gelu_erf":
        return x / 2 * torch.erfc(-x * math.sqrt(0.5))
    steep = 1.0 if activation == "silu" else math.sqrt(8 / math.pi) * (1 + 0.044715 * x**2)
    return x * (steep * x).sigmoid()


def test_a_row_of_a_norm_or_an_activation_has_the_same_bits_in_any_company() -> None:
    """Alone and among others, wherever it lies in a wider tensor."""
    wide, weight = drawn(1, 40, 300), drawn(2, 201)
    x = wide[:, 13:214]
    normed, acted = torch.empty(40, 201), torch.empty(40, 201)
    run([rms_norm(x, weight, 1e-6, normed), gated(x, x, "silu", acted)])
    for row in range(40):
        one, two = torch.empty(1, 201), torch.empty(1, 201)
        lone = x[row : row + 1].clone()
        run([rms_norm(lone, weight, 1e-6, one), gated(lone, lone, "silu", two)])
        assert same_bits(one[0], normed[row]) and same_bits(two[0], acted[row])


@pytest.mark.parametrize(("dim", "rotated"), [(64, 64), (80, 32), (12, 6)])
@pytest.mark.parametrize("normed", [False, True])
def test_rotation_is_that_of_the_formula(dim: int, rotated: int, normed: bool) -> None:
    """Queries in place, keys and values in their slots; without a norm to the bit of torch."""
    rows, heads, kv_heads = 3, 4, 2
    qkv = drawn(1, rows, (heads + 2 * kv_heads) * dim)
    angles = drawn(2, rows, rotated // 2).repeat(1, 2) * 10
    cosine, sine = angles.cos(), angles.sin()
    slots = torch.tensor([5, 0, 2])
    norms = (drawn(3, dim), drawn(4, dim)) if normed else (None, None)

    def build() -> Built:
        out, keys, values = (
            qkv.clone(),
            torch.zeros(7, kv_heads, dim),
            torch.zeros(7, kv_heads, dim),
        )
        rotation = rotate_and_store(
            out, cosine, sine, slots, keys, values,
            query_norm=norms[0], key_norm=norms[1], epsilon=1e-6,
        )  # fmt: skip
        return [rotation], [out, keys, values]

    out, keys, values = everywhere(build)
    query, key, value = torch.split(qkv.view(rows, -1, dim), [heads, kv_heads, kv_heads], 1)
    rotated_query = reference_rotation(query, cosine, sine, norms[0])
    rotated_key = reference_rotation(key, cosine, sine, norms[1])
    within = 2e-6 if normed else 0.0
    got = out.view(rows, -1, dim)[:, :heads]
    torch.testing.assert_close(got, rotated_query, rtol=within, atol=within)
    torch.testing.assert_close(keys[slots], rotated_key, rtol=within, atol=within)
    assert same_bits(values[slots], value)
    untouched = [1, 3, 4, 6]
    assert not keys[untouched].any() and not values[untouched].any()


def test_without_angles_nothing_is_rotated() -> None:
    """Learned positions: keys go to their slots as they are, heads are normed all the same."""
    dim, norm = 32, drawn(2, 32)
    qkv, slots = drawn(1, 3, 4 * dim), torch.tensor([3, 1, 0])

    def build() -> Built:
        out, plain = qkv.clone(), qkv.clone()
        stores = [torch.zeros(4, 1, dim) for _ in range(4)]
        operations = [
            rotate_and_store(plain, None, None, slots, *stores[:2]),
            rotate_and_store(out, None, None, slots, *stores[2:], key_norm=norm, epsilon=1e-6),
        ]
        return operations, [out, plain, *stores]

    _, plain, keys, values, normed, _ = everywhere(build)
    assert same_bits(plain, qkv)
    assert same_bits(keys[slots, 0], qkv[:, 2 * dim : 3 * dim])
    assert same_bits(values[slots, 0], qkv[:, 3 * dim :])
    exact = functional.rms_norm(qkv[:, 2 * dim : 3 * dim], (dim,), norm, 1e-6)
    torch.testing.assert_close(normed[slots, 0], exact, rtol=2e-6, atol=2e-6)


@pytest.mark.parametrize("broken", [math.nan, math.inf, -math.inf])
def test_of_rows_that_are_not_finite_zeros_are_stored(broken: float) -> None:
    """In a key or a value, or where the rotation makes it so; flags of other rows stay."""
    dim, kv_heads = 24, 2
    qkv = drawn(1, 6, 5 * dim) + 3
    qkv[1, 2 * dim + 5] = broken
    qkv[2, 4 * dim + 17] = broken
    qkv[3, 0] = broken
    qkv[5, dim : 2 * dim] = 3e38
    cosine = sine = torch.ones(6, 8)
    slots = torch.tensor([5, 4, 3, 2, 1, 0])

    def build() -> Built:
        stored = torch.ones(6, kv_heads, dim), torch.ones(6, kv_heads, dim)
        bad = torch.tensor([0, 0, 0, 0, 1, 0], dtype=torch.uint8)
        rotation = rotate_and_store(qkv.clone(), cosine, sine, slots, *stored, bad=bad)
        unasked = torch.ones(6, kv_heads, dim), torch.ones(6, kv_heads, dim)
        silent = rotate_and_store(qkv.clone(), cosine, sine, slots, *unasked)
        return [rotation, silent], [*stored, bad, *unasked]

    keys, values, bad, *unasked = everywhere(build)
    assert bad.tolist() == [0, 1, 1, 0, 1, 1]
    for row in (1, 2, 5):
        assert not keys[slots[row]].any() and not values[slots[row]].any()
    for row in (0, 3, 4):
        assert keys[slots[row]].all() and same_bits(values[slots[row]].flatten(), qkv[row, 72:])
    assert same_bits(unasked[0], keys) and same_bits(unasked[1], values)


def reference_rotation(x: Tensor, cosine: Tensor, sine: Tensor, norm: Tensor | None) -> Tensor:
    if norm is not None:
        x = functional.rms_norm(x, (x.shape[-1],), norm, 1e-6)
    part, rest = x[..., : cosine.shape[1]], x[..., cosine.shape[1] :]
    first, second = part.chunk(2, -1)
    turned = torch.cat((-second, first), -1)
    return torch.cat((part * cosine.unsqueeze(1) + turned * sine.unsqueeze(1), rest), -1)


def test_bad_shapes_are_named() -> None:
    """Each by the argument that is wrong."""
    x, y = drawn(1, 2, 32), torch.empty(2, 32)
    with pytest.raises(ValueError, match="weight must be"):
        rms_norm(x, drawn(2, 31), 1e-6, y)
    with pytest.raises(ValueError, match="y must be"):
        rms_norm(x, drawn(2, 32), 1e-6, y[:1])
    with pytest.raises(ValueError, match="add must be"):
        layer_norm(x, drawn(2, 32), None, 1e-6, y, add=x.double())
    with pytest.raises(ValueError, match="up must be"):
        gated(x, drawn(2, 2, 31), "silu", y)
    with pytest.raises(ValueError, match="activation must be"):
        gated(x, None, "relu", y)  # type: ignore[arg-type]
    store, angles = torch.zeros(4, 1, 8), torch.zeros(2, 8)
    slots = torch.tensor([0, 1])
    for message, qkv, angle, where in (
        ("qkv has", drawn(1, 2, 30), angles, slots),
        ("cannot be rotated", x, torch.zeros(2, 7), slots),
        ("cosine must be", x, torch.zeros(3, 8), slots),
        ("slots must lie", x, angles, torch.tensor([0, 4])),
        ("slots must be", x, angles, slots[:1]),
        ("slots must be", x, angles, slots.int()),
    ):
        with pytest.raises(ValueError, match=message):
            rotate_and_store(qkv, angle, angle, where, store, store.clone())
    with pytest.raises(ValueError, match="come together"):
        rotate_and_store(x, angles, None, slots, store, store.clone())
    with pytest.raises(ValueError, match="bad must be"):
        flags = torch.zeros(3, dtype=torch.uint8)
        rotate_and_store(x, angles, angles, slots, store, store.clone(), bad=flags)


def test_an_exponential_is_right_to_its_last_place_or_so() -> None:
    """SiLU of g is g / (1 + e), so e comes back from it where it is large."""
    gate = torch.linspace(-80, -20, 20_001).unsqueeze(0)
    y = torch.empty_like(gate)
    run([gated(gate, None, "silu", y)])
    exact = gate.double() / (1 + (-gate.double()).exp())
    assert ((y - exact) / exact).abs().max() < 3 * 2**-24
    assert math.isfinite(float(y.sum()))
