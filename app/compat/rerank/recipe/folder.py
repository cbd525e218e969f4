"""What the files of a model's folder say of ranking, as sentence-transformers writes them.

``modules.json`` names a Transformer and a LogitScore; the LogitScore's own config names the tokens
whose logits count, ``config_sentence_transformers.json`` the prompts and the activation, and
``sentence_bert_config.json`` how the texts are put. Without ``modules.json`` a *ForCausalLM is read
by convention: the tokens ``yes`` and ``no``, and no prompt.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from app.compat.rerank.activation import ACTIVATIONS, Activation
from app.compat.rerank.recipe.errors import RecipeError
from app.compat.rerank.recipe.json_file import JsonObject, read_json
from app.compat.rerank.recipe.transformer_config import (
    LOGITS,
    TransformerConfig,
    read_transformer_config,
)
from app.schemas.bounds import MAX_TEMPLATE_CHARS

MODULES: Final = "modules.json"
MODEL: Final = "config_sentence_transformers.json"
TRANSFORMER: Final = "sentence_bert_config.json"
CONFIG: Final = "config.json"
_LIBRARY: Final = "sentence_transformers."
_FOLDER: Final = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]*")


@dataclass(frozen=True, slots=True)
class LabelIds:
    """The tokens whose logits count.

    Attributes:
        true_id: its logit is the score.
        false_id: its logit is taken off; None for nothing.
    """

    true_id: int
    false_id: int | None


@dataclass(frozen=True, slots=True)
class FolderRecipe:
    """What the files say.

    Attributes:
        labels: None for the convention, by which they are the tokens yes and no.
        transformer: how the texts are put.
        activation: makes a score of the logits.
        prompts: by name.
        prompt: the one that a request gets which brings none; empty for none.
        warnings: what was left aside, a line each.
    """

    labels: LabelIds | None
    transformer: TransformerConfig
    activation: Activation
    prompts: Mapping[str, str]
    prompt: str
    warnings: tuple[str, ...]


def conventional(folder: Path) -> FolderRecipe:
    """The recipe of a folder without modules.json.

    Raises:
        RecipeError: its config names an activation that is not served here.
    """
    config = JsonObject.of(CONFIG, read_json(folder, CONFIG))
    activation, warnings = _activation(JsonObject(MODEL, {}), config)
    return FolderRecipe(None, TransformerConfig(), activation, {}, "", warnings)


def read_modules(folder: Path, head_rows: int) -> FolderRecipe | None:
    """The recipe of a folder with modules.json.

    Args:
        folder: of the model.
        head_rows: every id lies below it.

    Returns:
        None where the modules are those of no reranker.

    Raises:
        RecipeError: the files are of a reranker, and what they say is not served here.
    """
    path = _score_module(read_json(folder, MODULES))
    if path is None:
        return None
    model = JsonObject.of(MODEL, read_json(folder, MODEL))
    kind = model.text("model_type")
    if kind != "CrossEncoder":
        raise model.refuse("model_type", f"it is {kind}, and CrossEncoder is served")
    scoring = f"{path}/config.json"
    labels = _label_ids(JsonObject.of(scoring, read_json(folder, scoring)), head_rows)
    put = read_transformer_config(JsonObject.of(TRANSFORMER, read_json(folder, TRANSFORMER)))
    prompts, prompt = _prompts(model)
    config = JsonObject.of(CONFIG, read_json(folder, CONFIG))
    activation, warnings = _activation(model, config)
    return FolderRecipe(labels, put, activation, prompts, prompt, warnings)


def is_causal_lm(folder: Path) -> bool:
    """Whether sentence-transformers takes the folder for a causal language model."""
    architectures = JsonObject.of(CONFIG, read_json(folder, CONFIG)).values.get("architectures")
    first = architectures[0] if isinstance(architectures, list) and architectures else None
    return isinstance(first, str) and first.endswith("ForCausalLM")


def _score_module(modules: object) -> str | None:
    """The folder of the LogitScore; None where there is none among the modules."""
    if not isinstance(modules, list):
        raise RecipeError(f"{MODULES}: it is no list")
    read = [JsonObject.of(f"{MODULES}: module {i}", one) for i, one in enumerate(modules)]
    kinds = [_kind(one) for one in read]
    if "LogitScore" not in kinds:
        return None
    if kinds != ["Transformer", "LogitScore"]:
        raise RecipeError(
            f"{MODULES}: the modules are {', '.join(kinds)}; Transformer, LogitScore are served"
        )
    for module in read:
        if module.values.get("kwargs"):
            raise module.refuse("kwargs", "it is not known here")
    if read[0].text("path"):
        raise read[0].refuse("path", "the model is served from the folder itself")
    path = read[1].text("path") or ""
    if not _FOLDER.fullmatch(path):
        raise read[1].refuse("path", "it is no folder in this one")
    return path


def _kind(module: JsonObject) -> str:
    name = module.text("type") or ""
    return name.rpartition(".")[2] if name.startswith(_LIBRARY) else name


def _label_ids(config: JsonObject, head_rows: int) -> LabelIds:
    config.check_keys({"true_token_id", "false_token_id", "module_input_name"})
    true_id = config.number("true_token_id", head_rows)
    if true_id is None:
        raise config.refuse("true_token_id", "it is missing")
    false_id = config.number("false_token_id", head_rows)
    if false_id == true_id:
        raise config.refuse("false_token_id", "both are the same token")
    source = config.text("module_input_name") or LOGITS
    if source != LOGITS:
        raise config.refuse("module_input_name", f"it is {source}, and {LOGITS} is served")
    return LabelIds(true_id, false_id)


def _prompts(model: JsonObject) -> tuple[dict[str, str], str]:
    """The prompts by name, and the one that counts where nobody says otherwise."""
    held = model.object("prompts")
    prompts = {name: held.text(name) or "" for name in held.values}
    for name, prompt in prompts.items():
        if len(prompt) > MAX_TEMPLATE_CHARS:
            raise held.refuse(name, f"longer than {MAX_TEMPLATE_CHARS} characters")
    default = model.text("default_prompt_name")
    if default is not None and default not in prompts:
        raise model.refuse("default_prompt_name", f"there is no prompt {default}")
    return prompts, "" if default is None else prompts[default]


def _activation(model: JsonObject, config: JsonObject) -> tuple[Activation, tuple[str, ...]]:
    """The first that is named and is torch's own; else a sigmoid."""
    warnings: list[str] = []
    for holder, key in (
        (model, "activation_fn"),
        (config.object("sentence_transformers"), "activation_fn"),
        (config, "sbert_ce_default_activation_function"),
    ):
        named = holder.text(key)
        if named is None:
            continue
        if named.startswith("torch."):
            return _known(holder, key, named), tuple(warnings)
        warnings.append(f"{holder.name}: {key} names code, {named}, which is not run; sigmoid is")
    return "sigmoid", tuple(warnings)


def _known(holder: JsonObject, key: str, named: str) -> Activation:
    found = ACTIVATIONS.get(named.rpartition(".")[2])
    if found is None:
        raise holder.refuse(key, f"it is {named}; there are torch's {', '.join(ACTIVATIONS)}")
    return found


def describe_modules(folder: Path) -> str:
    """The modules of a folder that is no reranker's, in words."""
    modules: Any = read_json(folder, MODULES)
    kinds = [_kind(JsonObject.of(MODULES, one)) for one in modules]
    return ", ".join(kinds)
