"""A model folder decides scores and runs nothing, whatever lies in it (FAULTS.md, 40)."""

from __future__ import annotations

import json
import os
import pickle
import shutil
from pathlib import Path

import pytest
import torch

from model_runtime.config import EngineConfig
from model_runtime.errors import InvalidQuery, ModelLoadError, UnsupportedModel
from model_runtime.loading.loader import LoadedModel, load_model
from tests.conftest import TinyFolder
from tests.tiny_models import tiny_model

CODE = {"AutoConfig": "evil.Config", "AutoModelForCausalLM": "evil.Model"}
ELSEWHERE = {key: f"someone/elsewhere--{reference}" for key, reference in CODE.items()}
TOKENIZER_CODE = {"AutoTokenizer": ["evil.Tokenizer", None]}


class Trap:
    """Leaves a folder behind once it is unpickled."""

    def __init__(self, trace: Path) -> None:
        self._trace = trace

    def __reduce__(self) -> tuple[object, ...]:
        return os.mkdir, (str(self._trace),)


@pytest.fixture
def trace(tmp_path: Path) -> Path:
    """What appears if anything of a hostile folder runs."""
    return tmp_path / "it ran"


@pytest.fixture
def folder(tiny_folder: TinyFolder, tmp_path: Path, trace: Path) -> Path:
    """A good folder with hostile code and pickles beside what is served."""
    copy = Path(shutil.copytree(tiny_folder("phi3"), tmp_path / "model"))
    code = f"import os\nos.mkdir({str(trace)!r})\n"
    for name in ("evil.py", "modeling_phi3.py", "sitecustomize.py", "__init__.py"):
        (copy / name).write_text(code)
    (copy / "custom_generate").mkdir()
    (copy / "custom_generate" / "generate.py").write_text(code)
    for name in ("pytorch_model.bin", "training_args.bin", "optimizer.pt"):
        (copy / name).write_bytes(pickle.dumps(Trap(trace)))
    return copy


def edit(path: Path, **values: object) -> None:
    """Set keys of a JSON file."""
    path.write_text(json.dumps(json.loads(path.read_text()) | values))


def load(folder: Path) -> LoadedModel:
    """Load on the CPU."""
    return load_model(EngineConfig(model=str(folder), device="cpu"))


def refusal(folder: Path, kind: type[ModelLoadError]) -> str:
    """The one line with which loading is refused."""
    with pytest.raises(kind) as caught:
        load(folder)
    assert "\n" not in str(caught.value)
    return str(caught.value)


def test_the_traps_work(folder: Path, trace: Path) -> None:
    """A loader that did run code or read pickles would be found out."""
    assert not trace.exists()
    exec((folder / "evil.py").read_text())
    trace.rmdir()
    pickle.loads((folder / "pytorch_model.bin").read_bytes())
    trace.rmdir()


@pytest.mark.parametrize("references", [CODE, ELSEWHERE], ids=["in the folder", "elsewhere"])
@pytest.mark.parametrize("has_files", [True, False], ids=["with files", "without"])
def test_code_beside_a_native_class_is_ignored(
    folder: Path,
    trace: Path,
    caplog: pytest.LogCaptureFixture,
    references: dict[str, str],
    has_files: bool,
) -> None:
    """Published Phi-3 folders point to code of their own; transformers' class serves them."""
    edit(folder / "config.json", auto_map=references)
    edit(folder / "tokenizer_config.json", auto_map=TOKENIZER_CODE, tokenizer_class="Evil")
    edit(folder / "generation_config.json", custom_generate="custom_generate")
    if not has_files:
        for file in folder.rglob("*.py"):
            file.unlink()
    loaded, expected = load(folder), tiny_model("phi3")
    expected.set_attn_implementation("eager")
    ids = torch.tensor([loaded.tokenizer.encode("The capital of Japan is")])
    with torch.no_grad():
        assert torch.equal(loaded.model(ids).logits, expected(ids).logits)
    ours = [record for record in caplog.records if record.name.startswith("model_runtime")]
    (line,) = (record.getMessage() for record in ours)
    assert line == (
        "code (auto_map of config.json and tokenizer_config.json) is ignored; what is "
        "served is Phi3ForCausalLM and tokenizer.json"
    )
    assert not trace.exists()


def test_a_tokenizer_that_names_code_is_the_file(tiny_folder: TinyFolder, tmp_path: Path) -> None:
    """The ids are the same with and without the reference, whatever class it names."""
    plain = load(tiny_folder("llama")).tokenizer
    copy = Path(shutil.copytree(tiny_folder("llama"), tmp_path / "model"))
    edit(copy / "tokenizer_config.json", auto_map=TOKENIZER_CODE, tokenizer_class="LlamaTokenizer")
    text = "The  capital of Japan is Tokyo,\nisn't it? <|im_end|>"
    named = load(copy).tokenizer
    for parse_special in (True, False):
        ids = plain.encode(text, parse_special=parse_special)
        assert named.encode(text, parse_special=parse_special) == ids
    assert named.adds_bos == plain.adds_bos


@pytest.mark.parametrize(
    ("config", "name"),
    [
        ({"model_type": "evil", "architectures": ["EvilForCausalLM"]}, "EvilForCausalLM"),
        ({"model_type": "evil", "architectures": None}, "evil"),
        ({"model_type": "phi3", "architectures": ["EvilForCausalLM"]}, "EvilForCausalLM"),
        ({"model_type": "vit", "architectures": ["ViTModel"]}, "ViTModel"),
    ],
    ids=["unknown", "unknown and nameless", "known kind, unknown class", "no causal model"],
)
def test_a_class_that_is_code_only_is_refused_by_name(
    folder: Path, trace: Path, config: dict[str, object], name: str
) -> None:
    """Also under a known model type, whose own class might compute something else."""
    edit(folder / "config.json", auto_map=CODE, **config)
    reason = refusal(folder, UnsupportedModel)
    assert reason == f"{name} exists only as code of its own (auto_map), never run here"
    assert not trace.exists()


def test_a_tokenizer_that_is_code_only_is_refused(folder: Path, trace: Path) -> None:
    """Without tokenizer.json there is nothing to read it from."""
    edit(folder / "tokenizer_config.json", auto_map=TOKENIZER_CODE)
    (folder / "tokenizer.json").unlink()
    assert "tokenizer exists only as code" in refusal(folder, UnsupportedModel)
    assert not trace.exists()


@pytest.mark.parametrize("name", ["pytorch_model.bin", "model.safetensors"])
def test_pickled_weights_are_never_read(folder: Path, trace: Path, name: str) -> None:
    """Neither as what they are nor under the name of something safer."""
    weights = folder / "model.safetensors"
    weights.unlink()
    if name == weights.name:
        weights.write_bytes(pickle.dumps(Trap(trace)))
    refusal(folder, ModelLoadError)
    assert not trace.exists()


@pytest.mark.parametrize(
    "template",
    [
        "{{ cycler.__init__.__globals__.os.mkdir(TRACE) }}",
        "{{ messages.__class__.__mro__[-1].__subclasses__() }}",
        "{% include TRACE %}",
        "{{ messages.append(messages[0]) }}",
        "{% for i in range(10 ** 12) %}x{% endfor %}",
        "{{ raise_exception('no\nthanks') }}",
    ],
)
def test_a_hostile_template_is_inert(folder: Path, trace: Path, template: str) -> None:
    """It renders in a sandbox: what it may not do is a refused request, in one line."""
    (folder / "chat_template.jinja").write_text(template.replace("TRACE", repr(str(trace))))
    tokenizer = load(folder).tokenizer
    with pytest.raises(InvalidQuery, match="chat template") as caught:
        tokenizer.render_chat([{"role": "user", "content": "hi"}])
    assert "\n" not in str(caught.value)
    assert not trace.exists()
