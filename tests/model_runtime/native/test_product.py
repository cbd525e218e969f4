"""Products: against float64, against oneDNN to the bit, and whatever else is computed with them."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from model_runtime.native.kernels import K_BLOCK, PackedWeight, pack, product
from model_runtime.native.library import InstructionSet, best_instruction_set, run
from tests.model_runtime.native.everywhere import drawn, everywhere, same_bits

SHAPES = [(64, 64), (100, 70), (513, 130), (576, 192), (1536, 64), (2500, 65)]
"""in, out: blocks of one length and two, whole panels and ragged ones."""


def multiply(x: Tensor, weight: PackedWeight, bias: Tensor | None) -> Tensor:
    y = torch.empty(x.shape[0], weight.out_features)
    run([product(x, weight, bias, y)])
    return y


@pytest.mark.parametrize(("width", "out"), SHAPES)
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("biased", [False, True])
def test_products_are_exact_and_the_same_everywhere(
    width: int, out: int, dtype: torch.dtype, biased: bool
) -> None:
    """Within the bound of a sum of so many float32 products, in every instruction set."""
    weight = drawn(1, out, width).to(dtype).float()
    packed, bias = pack(weight, dtype), drawn(2, out) if biased else None
    for rows in (1, 3, 7, 14):
        x = drawn(rows, rows, width)

        def build(x: Tensor = x, rows: int = rows) -> tuple[list[object], list[Tensor]]:
            y = torch.full((rows, out), torch.nan)
            return [product(x, packed, bias, y)], [y]

        (y,) = everywhere(build)  # type: ignore[arg-type]
        exact = torch.nn.functional.linear(
            x.double(), weight.double(), None if bias is None else bias.double()
        )
        magnitude = x.double().abs() @ weight.double().abs().T + 1
        chain = min(K_BLOCK, width) + width // K_BLOCK
        assert ((y - exact).abs() <= magnitude * chain * 2**-24).all()
        assert ((y - exact).abs() <= magnitude * 2e-6).all()


def onednn_block(width: int) -> int:
    """How oneDNN cuts k, as was found by comparing bits."""
    if width > 1024:
        return 1024
    is_cut = width > 512 and best_instruction_set() == InstructionSet.AVX512
    return 512 if is_cut else width


@pytest.mark.parametrize(("width", "out"), SHAPES)
def test_products_have_the_bits_of_onednn_with_its_blocks(width: int, out: int) -> None:
    """Another implementation of the same arithmetic; elsewhere than on x86 it is another one."""
    if best_instruction_set() is InstructionSet.PORTABLE:
        pytest.skip("oneDNN's blocks are known for AVX2 and AVX-512")
    weight, bias = drawn(1, out, width), drawn(2, out)
    reordered = torch.ops.mkldnn._reorder_linear_weight(weight, 256)
    packed = pack(weight, block=onednn_block(width))
    for rows in (2, 5, 32, 96, 400):
        x = drawn(rows, rows, width)
        theirs = torch.ops.mkldnn._linear_pointwise(x, reordered, bias, "none", [], "")
        assert same_bits(multiply(x, packed, bias), theirs)


def test_weights_held_in_bfloat16_have_the_bits_of_float32() -> None:
    """Every bfloat16 is a float32, converted step by step or a block at a time."""
    weight = drawn(1, 130, 600).bfloat16().float()
    for rows in (6, 40):
        for block in (K_BLOCK, 512):
            x = drawn(2, rows, 600)
            held = pack(weight, torch.bfloat16, block)
            assert same_bits(multiply(x, pack(weight, block=block), None), multiply(x, held, None))


@pytest.mark.usefixtures("two_threads")
def test_a_row_has_the_same_bits_in_any_company() -> None:
    """Alone, at every place of a crowd, beside NaNs, with its columns inside a wider tensor."""
    packed, wide = pack(drawn(1, 200, 600)), drawn(2, 400, 700)
    x = wide[:, 50:650]
    alone = torch.cat([multiply(row.unsqueeze(0), packed, None) for row in x])
    for rows in (*range(1, 34), 191, 192, 193, 385, 400):
        assert same_bits(multiply(x[:rows], packed, None), alone[:rows])
    wide[7] = torch.nan
    among = multiply(x, packed, None)
    assert among[7].isnan().all()
    others = [row for row in range(400) if row != 7]
    assert same_bits(among[others], alone[others])


def test_a_product_writes_to_its_own_columns_only() -> None:
    """Into a slice of a wider tensor, behind which the last panel would reach."""
    packed, x, wide = pack(drawn(1, 70, 96)), drawn(2, 3, 96), torch.full((3, 100), 5.0)
    run([product(x, packed, None, wide[:, 10:80])])
    assert same_bits(wide[:, 10:80], multiply(x, packed, None))
    assert (wide[:, :10] == 5).all() and (wide[:, 80:] == 5).all()


def test_bad_shapes_and_types_are_named() -> None:
    """Each before anything is computed."""
    packed, y = pack(drawn(1, 70, 96)), torch.empty(2, 70)
    bad: list[tuple[str, Tensor, Tensor | None, Tensor]] = [
        ("x must be", drawn(2, 2, 95), None, y),
        ("x must be", drawn(2, 96), None, y),
        ("x must be", drawn(2, 2, 96).double(), None, y),
        ("x must be contiguous", drawn(2, 96, 2).T, None, y),
        ("no rows", drawn(2, 0, 96), None, torch.empty(0, 70)),
        ("y must be", drawn(2, 2, 96), None, torch.empty(2, 71)),
        ("bias must be", drawn(2, 2, 96), drawn(3, 71), y),
    ]
    for message, x, bias, target in bad:
        with pytest.raises(ValueError, match=message):
            product(x, packed, bias, target)
    with pytest.raises(ValueError, match="not representable"):
        pack(drawn(1, 70, 96), torch.bfloat16)
    with pytest.raises(ValueError, match=r"\[out, in\]"):
        pack(drawn(1, 70))
    with pytest.raises(ValueError, match="float32 or bfloat16"):
        pack(drawn(1, 70, 96), torch.float16)
