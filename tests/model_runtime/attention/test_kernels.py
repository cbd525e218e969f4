"""The attention kernels against softmax by hand, and what CUDA's are asked for."""

from __future__ import annotations

import math
from collections.abc import Callable

import pytest
import torch
from torch import Tensor
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.utils._python_dispatch import TorchDispatchMode
from transformers import AutoModelForCausalLM

from model_runtime.attention import cpu, cuda
from model_runtime.attention import plain as products
from model_runtime.attention.interface import ATTENTION_NAME
from model_runtime.attention.path_attention import Kernel
from model_runtime.attention.span_groups import UNSEEN
from model_runtime.batching.batch import QueryProgress
from model_runtime.batching.planner import plan
from model_runtime.kernels.precision import disable_reduced_precision
from model_runtime.kv_cache.prefix_cache import PrefixCache
from model_runtime.runner.model_runner import ModelRunner
from model_runtime.types import LogprobQuery
from tests.tiny_models import TINY_KINDS, tiny_config

SCALING = 0.25

Mask = Callable[[int, int, int], Tensor]


def causal(count: int, height: int, keys: int) -> Tensor:
    """Row m sees the keys up to keys - height + m."""
    return _unseen(torch.ones(count, 1, height, keys).triu(keys - height + 1).bool())


def windowed(count: int, height: int, keys: int) -> Tensor:
    """Row m sees seven keys up to its own."""
    seen = torch.ones(count, 1, height, keys).tril(keys - height)
    return _unseen(seen.triu(keys - height - 6) == 0)


def one_key(count: int, height: int, keys: int) -> Tensor:
    """Every row sees one key, another one in each span."""
    unseen = torch.ones(count, 1, height, keys, dtype=torch.bool)
    unseen[torch.arange(count), ..., torch.arange(count)] = False
    return _unseen(unseen)


def _unseen(unseen: Tensor) -> Tensor:
    return torch.zeros(unseen.shape).masked_fill_(unseen, UNSEEN)


def inputs(count: int, height: int, keys: int, width: int) -> tuple[Tensor, Tensor, Tensor]:
    """Query, key and value in the layouts that path attention hands over."""
    generator = torch.Generator().manual_seed(count * height + keys)
    shapes = [(count, height, 3, width), (count, keys, 3, width), (count, keys, 3, width)]
    query, key, value = (
        torch.randn(shape, generator=generator).transpose(1, 2) for shape in shapes
    )
    return query * 3, key, value


def by_hand(
    query: Tensor, key: Tensor, value: Tensor, mask: Tensor | None, softcap: float | None
) -> tuple[Tensor, Tensor]:
    """Softmax in float64, written out."""
    scores = torch.einsum("nhmd,nhfd->nhmf", query.double(), key.double()) * SCALING
    if softcap is not None:
        scores = softcap * torch.tanh(scores / softcap)
    if mask is not None:
        scores = scores + mask.double()
    log_sum = torch.logsumexp(scores, -1)
    weights = torch.exp(scores - log_sum.unsqueeze(-1))
    return torch.einsum("nhmf,nhfd->nhmd", weights, value.double()), log_sum


@pytest.mark.parametrize("kernel", [cpu.attend, products.attend], ids=["cpu", "products"])
@pytest.mark.parametrize("softcap", [None, 2.0], ids=["uncapped", "capped"])
@pytest.mark.parametrize("mask", [None, causal, windowed, one_key])
@pytest.mark.parametrize("shape", [(1, 8, 32, 16), (3, 40, 192, 64), (4, 8, 96, 10)])
def test_a_kernel_is_softmax(
    kernel: Kernel, softcap: float | None, mask: Mask | None, shape: tuple[int, int, int, int]
) -> None:
    """Output and log-sum-exp are those of float64, masked, windowed, capped or not."""
    query, key, value = inputs(*shape)
    added = None if mask is None else mask(*shape[:3])
    output, log_sum = kernel(query, key, value, added, SCALING, softcap)
    want, want_log_sum = by_hand(query, key, value, added, softcap)
    assert output.shape == want.shape and log_sum.shape == want_log_sum.shape
    torch.testing.assert_close(output.double(), want, atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(log_sum.double(), want_log_sum, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("kernel", [cpu.attend, products.attend], ids=["cpu", "products"])
def test_rows_that_see_nothing_weigh_nothing(kernel: Kernel) -> None:
    """A prefix span that a window hides has a finite output and a log-sum that ends its weight."""
    query, key, value = inputs(2, 8, 64, 16)
    hidden = torch.full((2, 1, 8, 64), UNSEEN)
    output, log_sum = kernel(query, key, value, hidden, SCALING, None)
    assert output.isfinite().all()
    assert (1 / (1 + torch.exp(torch.zeros(1) - log_sum)) == 0).all()


class Calls(TorchDispatchMode):
    """Notes the attention kernels that are called, with the strides of what they get."""

    def __init__(self) -> None:
        super().__init__()
        self.names: list[str] = []
        self.biases: list[Tensor | None] = []

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):  # type: ignore[no-untyped-def]
        name = func.overloadpacket.__name__
        if "scaled_dot_product" in name:
            self.names.append(name)
            self.biases.append(args[3] if "efficient" in name else None)
            for tensor in args[:3]:
                assert tensor.stride(3) == 1
                assert all(stride % cuda.HEAD_STEP == 0 for stride in tensor.stride()[:3])
        return func(*args, **(kwargs or {}))


EFFICIENT, FLASH = (
    "_scaled_dot_product_efficient_attention",
    "_scaled_dot_product_flash_attention",
)


@pytest.mark.parametrize(
    ("stored", "width", "masked", "softcap", "kernels"),
    [
        (torch.float32, 64, True, None, [EFFICIENT]),
        (torch.float32, 64, False, None, [EFFICIENT]),
        (torch.bfloat16, 64, True, None, [EFFICIENT]),
        (torch.bfloat16, 64, False, None, [FLASH]),
        (torch.bfloat16, 10, True, None, []),
        (torch.float32, 64, True, 30.0, []),
        (torch.bfloat16, 64, False, 30.0, []),
    ],
)
def test_cuda_calls_what_torch_ships(
    stored: torch.dtype, width: int, masked: bool, softcap: float | None, kernels: list[str]
) -> None:
    """Each case reaches its kernel with a bias it takes, and the results have their shapes.

    The tensors are torch's fake ones, so the kernels' own declarations answer for a card.
    """
    with FakeTensorMode(), Calls() as calls:
        query = torch.empty(3, 40, 4, width, device="cuda").transpose(1, 2)
        key = torch.empty(3, 96, 4, width, device="cuda", dtype=stored).transpose(1, 2)
        mask = torch.empty(3, 1, 40, 96, device="cuda") if masked else None
        output, log_sum = cuda.attend(query, key, key, mask, SCALING, softcap)
    assert calls.names == kernels
    assert [bias is not None for bias in calls.biases] == [masked] * len(kernels)
    for bias in (bias for bias in calls.biases if bias is not None):
        assert bias.shape == (3, 4, 40, 96) and bias.dtype == stored
        assert bias.stride(3) == 1 and all(s % cuda.HEAD_STEP == 0 for s in bias.stride()[:3])
    assert (output.shape, output.dtype) == ((3, 4, 40, width), torch.float32)
    assert (log_sum.shape, log_sum.dtype) == ((3, 4, 40), torch.float32)
    assert output.device.type == log_sum.device.type == "cuda"


def efficient(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    bias: Tensor | None,
    _compute_log_sumexp: bool,
    *,
    scale: float,
) -> tuple[Tensor, Tensor]:
    """What the memory-efficient kernel computes, with its padding of the log-sum-exp."""
    output, log_sum = products.attend(query.float(), key.float(), value.float(), bias, scale, None)
    padding = -log_sum.shape[2] % 32
    padded = torch.nn.functional.pad(log_sum, (0, padding), value=math.inf)
    return output.to(query.dtype), padded


def flash(query: Tensor, key: Tensor, value: Tensor, *, scale: float) -> tuple[Tensor, Tensor]:
    """What the flash kernel computes."""
    output, log_sum = products.attend(query.float(), key.float(), value.float(), None, scale, None)
    return output.to(query.dtype), log_sum


@pytest.mark.parametrize(("stored", "error"), [(torch.float32, 1e-5), (torch.bfloat16, 3e-2)])
@pytest.mark.parametrize("mask", [None, causal, windowed])
def test_cuda_gets_softmax_out_of_what_it_calls(
    stored: torch.dtype, error: float, mask: Mask | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Kernels of the same contract, computed here, give softmax to the keys' precision."""
    monkeypatch.setattr(cuda, "_efficient", efficient)
    monkeypatch.setattr(cuda, "_flash", flash)
    query, key, value = (t.to(stored).float() for t in inputs(2, 40, 96, 32))
    added = None if mask is None else mask(2, 40, 96)
    output, log_sum = cuda.attend(query, key.to(stored), value.to(stored), added, SCALING, None)
    want, want_log_sum = by_hand(query, key, value, added, None)
    assert output.dtype == log_sum.dtype == torch.float32
    torch.testing.assert_close(output.double(), want, atol=error, rtol=error)
    torch.testing.assert_close(log_sum.double(), want_log_sum, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("kind", TINY_KINDS)
def test_a_forward_off_the_cpu_fits_together(kind: str, dtype: torch.dtype) -> None:
    """Precisions, shapes and strides agree from layer to layer, with the kernels CUDA calls.

    On torch's meta device, which has the declarations of all kernels and computes nothing.
    """
    with torch.device("meta"):
        config = tiny_config(kind)
        model = AutoModelForCausalLM.from_config(config, attn_implementation=ATTENTION_NAME)
    runner = ModelRunner(model.eval(), 1 << 20, dtype)
    context = tuple(range(100 if kind == "gpt2" else 300))
    work = [
        QueryProgress(LogprobQuery((*context, i, i), len(context)), len(context)) for i in range(5)
    ]
    batch = plan(work, PrefixCache(400), 4096)
    with torch.inference_mode():
        hidden, _ = runner._forward(batch)
    assert hidden.shape == (len(batch.token_ids), config.hidden_size)
    assert hidden.dtype == torch.float32
    assert runner._storage.read(0, slice(0, 1))[0].dtype == dtype


def test_capped_scores_in_bfloat16_are_softmax() -> None:
    """Keys and values that are stored in bfloat16 are used as they are, in float32 products."""
    query, key, value = (t.bfloat16().float() for t in inputs(2, 16, 64, 32))
    added = causal(2, 16, 64)
    output, log_sum = cuda.attend(query, key.bfloat16(), value.bfloat16(), added, SCALING, 5.0)
    want, want_log_sum = by_hand(query, key, value, added, 5.0)
    torch.testing.assert_close(output.double(), want, atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(log_sum.double(), want_log_sum, atol=1e-5, rtol=1e-5)


def test_nothing_is_rounded_to_tf32() -> None:
    """Whoever turned TF32 on before, float32 products are float32 afterwards."""
    matmul = torch.backends.cuda.matmul
    before = matmul.fp32_precision, matmul.allow_bf16_reduced_precision_reduction
    try:
        matmul.fp32_precision = "tf32"
        disable_reduced_precision()
        assert matmul.fp32_precision == "ieee" and not matmul.allow_tf32
        assert not matmul.allow_bf16_reduced_precision_reduction
        assert torch.get_float32_matmul_precision() == "highest"
    finally:
        matmul.fp32_precision, matmul.allow_bf16_reduced_precision_reduction = before


@pytest.mark.parametrize("softcap", [None, 5.0])
@pytest.mark.parametrize("width", [20, 64])
def test_a_lone_span_has_the_bits_it_has_in_company(width: int, softcap: float | None) -> None:
    """One kv head of a ragged width, on any number of threads: neighbours change nothing."""
    before = torch.get_num_threads()
    try:
        for threads in (1, 2, 3, 7, 16):
            torch.set_num_threads(threads)
            query = torch.randn(3, 1, 40, width)
            key, value = torch.randn(3, 1, 96, width), torch.randn(3, 1, 96, width)
            crowd = cpu.attend(query, key, value, None, 0.2, softcap)
            alone = cpu.attend(query[1:2], key[1:2], value[1:2], None, 0.2, softcap)
            assert all(torch.equal(a[1:2], b) for a, b in zip(crowd, alone, strict=True))
    finally:
        torch.set_num_threads(before)
