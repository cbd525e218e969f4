"""Loading: the right weights in the right precision, and a fingerprint that tells."""

from __future__ import annotations

import dataclasses
import json
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from model_runtime.config import EngineConfig
from model_runtime.errors import CorruptModel, ModelLoadError, UnsupportedModel
from model_runtime.loading import fingerprint
from model_runtime.loading import loader as model_loader
from model_runtime.loading.loader import LoadedModel, dequantize, load_model
from tests.model_runtime.loading.tiny_gguf import write_tiny_gguf
from tests.tiny_models import TINY_KINDS, tiny_config, tiny_model


@pytest.fixture
def folder(tiny_folder: Callable[[str], Path], tmp_path: Path) -> Path:
    """A good model folder that a test may spoil."""
    return Path(shutil.copytree(tiny_folder("llama"), tmp_path / "model"))


def load(folder: Path, **settings: object) -> LoadedModel:
    """Load on the CPU."""
    return load_model(
        dataclasses.replace(EngineConfig(model=str(folder), device="cpu"), **settings)
    )


def refusal(folder: Path, kind: type[ModelLoadError], **settings: object) -> str:
    """The one line with which loading is refused."""
    with pytest.raises(kind) as caught:
        load(folder, **settings)
    assert "\n" not in str(caught.value)
    return str(caught.value)


def edit(path: Path, **values: object) -> None:
    """Set keys of a JSON file."""
    path.write_text(json.dumps(json.loads(path.read_text()) | values))


@pytest.mark.parametrize("kind", TINY_KINDS)
def test_every_shape_loads(kind: str, tiny_folder: Callable[[str], Path]) -> None:
    """The weights are those that were saved, and the description fits them."""
    loaded = load(tiny_folder(kind))
    expected = tiny_model(kind)
    expected.set_attn_implementation("eager")
    ids = torch.tensor([[5, 6, 7, 8]])
    with torch.no_grad():
        assert torch.equal(loaded.model(ids).logits, expected(ids).logits)
    info = loaded.info
    assert info.architecture == type(expected).__name__
    assert (info.dtype, info.device, info.vocab_size) == ("float32", "cpu", 384)
    assert info.max_model_len == (128 if kind == "gpt2" else 512)
    assert info.bos_token_id == tiny_config(kind).bos_token_id
    assert info.end_token_ids == (tiny_config(kind).eos_token_id,)
    assert info.parameters == sum(weight.numel() for weight in expected.parameters())
    assert info.name == tiny_folder(kind).name
    assert info.created > 0
    assert loaded.tokenizer.head_rows == 384


def test_a_loaded_model_only_infers(folder: Path) -> None:
    """Evaluation mode, no gradients: dropout and autograd never take part in a score."""
    model = load(folder).model
    assert not any(module.training for module in model.modules())
    assert not any(weight.requires_grad for weight in model.parameters())


def test_weights_are_float32_whatever_the_products_are(folder: Path) -> None:
    """The precision is the configured one, not the stored one."""
    loaded = load(folder, dtype="bfloat16")
    assert {weight.dtype for weight in loaded.model.parameters()} == {torch.float32}
    assert loaded.info.dtype == "bfloat16"
    assert {weight.dtype for weight in load(folder).model.parameters()} == {torch.float32}


def test_the_attention_is_the_one_asked_for(folder: Path) -> None:
    """The runner's attention reaches the model through its registered name."""
    config = EngineConfig(model=str(folder), device="cpu")
    assert load_model(config).model.config._attn_implementation == "eager"
    assert load_model(config, "sdpa").model.config._attn_implementation == "sdpa"


def test_names_and_limits_follow_the_config(folder: Path) -> None:
    """An operator may rename the model and lower its length, never raise it."""
    assert load(folder, served_name="mine").info.name == "mine"
    assert load(folder, max_model_len=100).info.max_model_len == 100
    assert load(folder, max_model_len=10_000).info.max_model_len == 512


def test_threads_are_set(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The configured number reaches torch; without one torch keeps its own."""
    calls: list[int] = []
    monkeypatch.setattr(torch, "set_num_threads", calls.append)
    load(folder)
    load(folder, threads=1)
    assert calls == [1]


@pytest.mark.parametrize(
    ("generation", "config", "expected"),
    [
        ([2, 1, 2], 5, (2, 1)),
        (3, 5, (3,)),
        (None, [5, 6], (5, 6)),
        (None, None, (1,)),
        ([2, 10**6, -1], 5, (2,)),
    ],
)
def test_end_tokens_come_from_the_most_specific_source(
    folder: Path, generation: object, config: object, expected: tuple[int, ...]
) -> None:
    """The generation config, else the config, else the tokenizer's EOS; ids of the head only."""
    edit(folder / "generation_config.json", eos_token_id=generation)
    edit(folder / "config.json", eos_token_id=config)
    assert load(folder).info.end_token_ids == expected


def test_cuda_that_is_not_there_is_refused(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A device that was asked for is not silently replaced; ``auto`` chooses."""
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    assert "CUDA" in refusal(folder, UnsupportedModel, device="cuda")
    assert load(folder, device="auto").info.device == "cpu"


@pytest.fixture
def card(monkeypatch: pytest.MonkeyPatch) -> Callable[[bool], None]:
    """Pretend that there is a CUDA card, with or without bfloat16; weights stay where they are."""

    def pretend(bfloat16: bool) -> None:
        monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
        monkeypatch.setattr(torch.cuda, "get_device_name", lambda: "a card")
        monkeypatch.setattr(
            torch.cuda,
            "is_bf16_supported",
            lambda including_emulation=True: including_emulation or bfloat16,
        )
        monkeypatch.setattr(model_loader, "_place", lambda model, device: model)

    return pretend


@pytest.mark.parametrize(("bfloat16", "expected"), [(True, "bfloat16"), (False, "float32")])
def test_auto_takes_the_precision_that_the_card_has(
    folder: Path, card: Callable[[bool], None], bfloat16: bool, expected: str
) -> None:
    """What is reported and hashed is the precision it became; emulation does not count."""
    card(bfloat16)
    auto, explicit = (load(folder, device="cuda", dtype=dtype).info for dtype in ("auto", expected))
    assert (auto.device, auto.dtype) == ("cuda", expected)
    assert auto.fingerprint == explicit.fingerprint


def test_bfloat16_that_the_card_lacks_is_refused(
    folder: Path, card: Callable[[bool], None]
) -> None:
    """A precision that was asked for is not silently replaced."""
    card(False)
    assert "bfloat16" in refusal(folder, UnsupportedModel, device="cuda", dtype="bfloat16")


def test_weights_beyond_the_limit_are_refused_before_they_are_read(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A process that is killed while it loads could not say why."""

    class SmallMemory:
        total = 1000

    monkeypatch.setattr(model_loader, "AvailableMemory", SmallMemory)
    assert "weights" in refusal(folder, ModelLoadError)


@pytest.mark.parametrize(("dtype", "stored"), [(torch.bfloat16, 2), (torch.float32, 4)])
def test_weights_count_as_the_float32_that_they_become(
    folder: Path, dtype: torch.dtype, stored: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Half-sized files double while they are read; all of it must fit, and need not more."""
    model = tiny_model("llama").to(dtype)
    model.save_pretrained(folder)
    tensors = load_file(folder / "model.safetensors").values()
    elements = sum(tensor.numel() for tensor in tensors)
    assert all(tensor.element_size() == stored for tensor in tensors)

    class Memory:
        total = 4 * elements

    monkeypatch.setattr(model_loader, "AvailableMemory", Memory)
    load(folder)
    Memory.total -= 1
    assert "in float32" in refusal(folder, ModelLoadError)


def test_a_model_larger_than_the_device_is_one_line(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Running out of memory while loading is a reason, not a traceback."""

    def full(model: object, device: str) -> None:
        raise torch.OutOfMemoryError("tried to allocate\nmany bytes")

    monkeypatch.setattr("transformers.PreTrainedModel.to", full)
    assert "memory of cpu" in refusal(folder, ModelLoadError)


def test_a_spoilt_folder_is_refused_before_it_is_loaded(folder: Path) -> None:
    """Loading checks the folder first."""
    edit(folder / "config.json", quantization_config={"quant_method": "gptq"})
    assert "quantized" in refusal(folder, UnsupportedModel)


def test_missing_tensors_are_corrupt(folder: Path) -> None:
    """transformers would fill them with random numbers and go on."""
    weights = load_file(folder / "model.safetensors")
    del weights["model.layers.1.mlp.up_proj.weight"]
    save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})
    assert "model.layers.1.mlp.up_proj.weight" in refusal(folder, CorruptModel)


def test_tensors_of_another_shape_are_corrupt(folder: Path) -> None:
    """Weights of another model's size are noticed."""
    edit(folder / "config.json", intermediate_size=160)
    assert "do not fit" in refusal(folder, CorruptModel)


def test_a_tokenizer_of_another_model_is_corrupt(
    folder: Path, tiny_folder: Callable[[str], Path], tmp_path: Path
) -> None:
    """Ids that the head has no row for are noticed."""
    small = tiny_model("llama", vocab_size=300)
    small.save_pretrained(folder)
    assert "300 rows" in refusal(folder, CorruptModel)


def test_an_unknown_architecture_is_refused_by_name(folder: Path) -> None:
    """The line says which one it is."""
    edit(folder / "config.json", model_type="perceptron", architectures=["Perceptron"])
    assert "perceptron" in refusal(folder, UnsupportedModel)


def test_a_model_that_is_no_causal_one_is_refused(folder: Path) -> None:
    """An encoder-decoder has no next-token distribution of a single text."""
    edit(folder / "config.json", model_type="t5", architectures=["T5ForConditionalGeneration"])
    refusal(folder, UnsupportedModel)


def test_the_fingerprint_is_the_same_every_time(folder: Path, tmp_path: Path) -> None:
    """A restart, another folder name or served name give the same bits, so the same digest."""
    first = load(folder).info.fingerprint
    elsewhere = Path(shutil.copytree(folder, tmp_path / "elsewhere"))
    assert load(elsewhere, served_name="mine").info.fingerprint == first
    assert len(first) == 24
    int(first, 16)


@pytest.mark.parametrize(
    "change", ["weights", "template", "dtype", "attention", "torch", "processor"]
)
def test_the_fingerprint_follows_what_can_change_a_bit(
    folder: Path, monkeypatch: pytest.MonkeyPatch, change: str
) -> None:
    """Weights, words, precision, kernels, libraries and machine each have their part in it."""
    before = load(folder).info.fingerprint
    config = EngineConfig(model=str(folder), device="cpu")
    attention = "eager"
    if change == "weights":
        tiny_model("llama", seed=1).save_pretrained(folder)
    elif change == "template":
        (folder / "chat_template.jinja").write_text("{{ messages }}")
    elif change == "dtype":
        config = dataclasses.replace(config, dtype="bfloat16")
    elif change == "attention":
        attention = "sdpa"
    elif change == "torch":
        monkeypatch.setattr(model_loader.torch, "__version__", "9.9.9")
    else:
        more = torch.cpu.get_capabilities() | {"amx_bf16": "other"}
        monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: more)
    assert load_model(config, attention).info.fingerprint != before


def test_the_fingerprint_follows_the_runtimes_own_code(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Another line that computes is another fingerprint; when things run is no part of it."""
    package = tmp_path / "runtime"
    for name in ("loading", "kernels", "native", "scheduling"):
        (package / name).mkdir(parents=True)
    (package / "loading" / "loader.py").write_text("one = 1\n")
    monkeypatch.setattr(fingerprint, "__file__", str(package / "loading" / "fingerprint.py"))
    before = load(folder).info.fingerprint
    (package / "scheduling" / "policy.py").write_text("two = 2\n")
    assert load(folder).info.fingerprint == before
    (package / "kernels" / "linear.py").write_text("two = 2\n")
    changed = load(folder).info.fingerprint
    assert changed != before
    (package / "native" / "kernels.h").write_text("int two = 2;\n")
    assert load(folder).info.fingerprint not in (before, changed)


def test_loading_draws_no_progress_bar(folder: Path, capfd: pytest.CaptureFixture[str]) -> None:
    """A server's log stays free of transformers' bars."""
    load(folder)
    assert capfd.readouterr() == ("", "")


def test_dequantizing_rounds_once(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    """Every weight of the published file is kept as the nearest bfloat16, and loads as that."""
    source, folder = tmp_path / "source", tmp_path / "folder"
    source.mkdir()
    folder.mkdir()
    expected = write_tiny_gguf(source / "tiny.gguf")
    dequantize(source / "tiny.gguf", folder, progress=False)
    kept, loaded = load_file(folder / "model.safetensors"), load(folder).model.state_dict()
    for name, weight in expected.items():
        rounded = weight.to(torch.bfloat16)
        assert kept[name].dtype == torch.bfloat16 and torch.equal(kept[name], rounded), name
        assert loaded[name].dtype == torch.float32
        assert torch.equal(loaded[name], rounded.to(torch.float32)), name
    assert torch.equal(loaded["lm_head.weight"], loaded["model.embed_tokens.weight"])
    assert json.loads((folder / "config.json").read_text())["dtype"] == "bfloat16"
    assert capfd.readouterr().err == ""


def test_dequantizing_keeps_words_and_rules(tmp_path: Path) -> None:
    """Digits stand alone; control tokens, template, end token and limits are the model's."""
    folder = tmp_path / "folder"
    folder.mkdir()
    write_tiny_gguf(tmp_path / "tiny.gguf")
    dequantize(tmp_path / "tiny.gguf", folder, progress=False)
    loaded = load(folder)
    tokenizer = loaded.tokenizer
    pieces = [tokenizer.token_text(token) for token in tokenizer.encode("is  42 is")]
    assert pieces == ["is", "  ", "4", "2", " is"]
    assert tokenizer.encode("<|im_start|><|im_end|>", parse_special=True) == [0, 1]
    assert tokenizer.render_chat([{"role": "user", "content": "hi"}]).startswith("<|im_start|>user")
    assert not tokenizer.adds_bos
    assert loaded.info.end_token_ids == (1,)
    assert loaded.info.max_model_len == 512


@pytest.mark.real_model
def test_the_default_model_is_real(real_folder: Path) -> None:
    """ "The capital of France is" continues with " Paris"."""
    loaded = load(real_folder)
    ids = torch.tensor([loaded.tokenizer.encode("The capital of France is")])
    with torch.no_grad():
        best = int(loaded.model(ids).logits[0, -1].argmax())
    assert loaded.tokenizer.token_text(best) == " Paris"
    info = loaded.info
    assert (info.vocab_size, info.max_model_len, info.end_token_ids) == (49_152, 8192, (2,))
    assert info.parameters == 134_515_008


@pytest.mark.real_model
def test_the_default_model_is_bfloat16(real_folder: Path) -> None:
    """Half the bytes on disk, and no weight is rounded again by whoever holds it in bfloat16."""
    kept = load_file(real_folder / "model.safetensors")
    assert {weight.dtype for weight in kept.values()} == {torch.bfloat16}
    assert sum(weight.numel() for weight in kept.values()) == 134_515_008
