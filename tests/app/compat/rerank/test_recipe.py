"""What of a reranker's folder is read, and what is refused by the file that says it."""

from __future__ import annotations

import json
import logging
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from torch import nn

from app.compat.rerank.config import RerankDefaults
from app.compat.rerank.recipe.errors import RecipeError
from app.compat.rerank.recipe.recipe import Found, Recipe, find_recipe
from app.compat.rerank.templates import Slot
from app.settings import Settings, SettingsError
from model_runtime import ModelInfo, Tokenizer, UnsupportedModel
from tests.app.compat.rerank.reranker_folders import (
    BACKWARDS,
    JUDGE,
    TURNS,
    rewrite,
    save_backbone,
    save_reranker,
)
from tests.tiny_models import CHAT_TEMPLATE, TINY_VOCAB

SCORE, MODEL, TRANSFORMER = (
    "1_LogitScore/config.json",
    "config_sentence_transformers.json",
    "sentence_bert_config.json",
)


@pytest.fixture(scope="module")
def saved(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A reranker's folder, as it should be."""
    path = tmp_path_factory.mktemp("reranker")
    backbone = save_backbone(path / "backbone", JUDGE, "qwen3", "yes", "no")
    return save_reranker(path / "reranker", backbone, 5, 6, activation=nn.Identity())


@pytest.fixture
def folder(saved: Path, tmp_path: Path) -> Path:
    """A copy of it that a test may spoil."""
    return Path(shutil.copytree(saved, tmp_path / "copy"))


def info_of(folder: Path | str) -> ModelInfo:
    """What is served from there."""
    return ModelInfo(
        *("m", "f", "Qwen3ForCausalLM", "float32", "cpu", TINY_VOCAB, 512, None, (), 1),
        folder=str(folder),
    )


def found_in(folder: Path, *, required: bool = False) -> Found:
    """What is read there."""
    return find_recipe(info_of(folder), Tokenizer.load(folder), required=required)


def recipe_of(folder: Path) -> Recipe:
    """The recipe that is read there."""
    recipe = found_in(folder).recipe
    assert recipe is not None
    return recipe


def refusal(folder: Path, *, required: bool = False) -> str:
    """Why nothing is."""
    with pytest.raises(RecipeError) as caught:
        found_in(folder, required=required)
    assert "\n" not in str(caught.value)
    return str(caught.value)


def set_template(folder: Path, template: str) -> None:
    """Another chat template."""
    (folder / "chat_template.jinja").write_text(template)


WRONG: list[tuple[str, dict[str, Any], str]] = [
    (SCORE, {"true_token_id": "yes"}, f"{SCORE}: true_token_id: it is no whole number"),
    (SCORE, {"true_token_id": True}, f"{SCORE}: true_token_id: it is no whole number"),
    (SCORE, {"true_token_id": ...}, f"{SCORE}: true_token_id: it is missing"),
    (SCORE, {"true_token_id": -1}, f"{SCORE}: true_token_id: it is no whole number from 0 on"),
    (SCORE, {"true_token_id": TINY_VOCAB}, f"below {TINY_VOCAB}"),
    (SCORE, {"false_token_id": 5}, "both are the same token"),
    (SCORE, {"temperature": 2}, f"{SCORE}: temperature: it is not known here"),
    (SCORE, {"module_input_name": "scores"}, f"{SCORE}: module_input_name: it is scores"),
    (MODEL, {"model_type": "SentenceTransformer"}, f"{MODEL}: model_type: it is Sentence"),
    (MODEL, {"model_type": ...}, f"{MODEL}: model_type: it is None"),
    (MODEL, {"activation_fn": "torch.nn.ReLU"}, f"{MODEL}: activation_fn: it is torch.nn.ReLU"),
    (MODEL, {"activation_fn": 3}, f"{MODEL}: activation_fn: it is no text"),
    (MODEL, {"prompts": ["a"]}, f"{MODEL}: prompts: it is no object"),
    (MODEL, {"prompts": {"a": 1}}, f"{MODEL}: prompts.a: it is no text"),
    (MODEL, {"prompts": {"a": "x" * 40_000}}, f"{MODEL}: prompts.a: longer than"),
    (MODEL, {"default_prompt_name": "b"}, f"{MODEL}: default_prompt_name: there is no prompt b"),
    (TRANSFORMER, {"transformer_task": ...}, f"{TRANSFORMER}: transformer_task: it is None"),
    (TRANSFORMER, {"transformer_task": "fill-mask"}, "only text-generation is served"),
    (TRANSFORMER, {"do_lower_case": True}, f"{TRANSFORMER}: do_lower_case"),
    (TRANSFORMER, {"model_kwargs": {"quantize": 1}}, f"{TRANSFORMER}: model_kwargs.quantize"),
    (TRANSFORMER, {"processor_kwargs": {"chat_template": ""}}, "processor_kwargs.chat_template"),
    (TRANSFORMER, {"processing_kwargs": {"text": {"stride": 1}}}, "processing_kwargs.text.stride"),
    (TRANSFORMER, {"processing_kwargs": {"common": {"truncation": "only_first"}}}, "only_first"),
    (TRANSFORMER, {"module_output_name": "scores"}, "module_output_name: it is scores"),
    (TRANSFORMER, {"something": 1}, f"{TRANSFORMER}: something: it is not known here"),
]


@pytest.mark.parametrize(("name", "changes", "words"), WRONG)
def test_what_is_wrong_is_named_by_file_and_key(
    folder: Path, name: str, changes: dict[str, Any], words: str
) -> None:
    """A reranker that cannot be followed is not served by some other means."""
    rewrite(folder, name, **changes)
    assert words in refusal(folder)


@pytest.mark.parametrize(
    ("entry", "words"),
    [
        ({"method": "generate"}, "modality_config.message.method"),
        ({"method_output_name": "hidden_states"}, "modality_config.message.method_output_name"),
        ({"format": "nested"}, "modality_config.message.format: it is nested"),
        ({"extra": 1}, "modality_config.message.extra"),
    ],
)
def test_a_modality_that_is_not_served_is_named(
    folder: Path, entry: dict[str, Any], words: str
) -> None:
    """Messages come out of a forward as logits."""
    held = json.loads((folder / TRANSFORMER).read_text())["modality_config"]
    held["message"].update(entry)
    rewrite(folder, TRANSFORMER, modality_config=held)
    assert words in refusal(folder)


def modules(*kinds: str, **more: Any) -> list[dict[str, Any]]:
    """Modules of these kinds, as sentence-transformers lists them."""
    paths = {"Transformer": "", "LogitScore": "1_LogitScore"}
    return [
        {"path": paths.get(kind, kind), "type": f"sentence_transformers.x.{kind}", **more}
        for kind in kinds
    ]


@pytest.mark.parametrize(
    ("held", "words"),
    [
        ({}, "modules.json: it is no list"),
        ([3], "modules.json: module 0: it is no object"),
        (modules("Transformer", "LogitScore", "Dense"), "Transformer, LogitScore, Dense"),
        (modules("Transformer", "LogitScore", path="../x"), "module 0.path"),
        (modules("Transformer", "LogitScore", kwargs=["task"]), "module 0.kwargs"),
        (
            [*modules("Transformer"), {"type": "sentence_transformers.LogitScore", "path": ".."}],
            "module 1.path: it is no folder in this one",
        ),
    ],
)
def test_other_modules_are_refused(folder: Path, held: Any, words: str) -> None:
    """Two of them, one behind the other, and nothing outside of the folder."""
    (folder / "modules.json").write_text(json.dumps(held))
    assert words in refusal(folder)


def test_a_file_that_is_no_json_is_named(folder: Path) -> None:
    """As is one that is far too large."""
    (folder / "modules.json").write_text("[")
    assert refusal(folder) == "modules.json: it cannot be read as JSON"
    (folder / "modules.json").write_text("[" + " " * (1 << 20) + "]")
    assert "larger than" in refusal(folder)


def test_modules_of_no_reranker_are_left_aside_in_words(folder: Path) -> None:
    """An embedding model's folder is served as ever, and a note says so."""
    held = modules("Transformer", "Pooling")
    (folder / "modules.json").write_text(json.dumps(held))
    found = found_in(folder)
    assert found.recipe is None
    assert found.notes == (
        "modules.json is of no reranker (Transformer, Pooling): rerank has the query's likelihood",
    )
    assert "is of no reranker" in refusal(folder, required=True)


@pytest.mark.parametrize(
    ("template", "words"),
    [
        (CHAT_TEMPLATE.replace("'content'", "'role'"), "role query"),
        (CHAT_TEMPLATE.replace("'content'", "'text'"), "chat template failed"),
        ("{{ messages[0].content }}", "role document"),
        ("{{ messages[0].content | upper }} {{ messages[1].content }}", "role query"),
        ("{{ messages[0].content }}{{ messages[1].content | lower }}", "changes texts"),
        ("{{ messages[0].content }}{{ messages[1].content[:300] }}", "changes texts"),
        ("{{ messages[0].content | e }}{{ messages[1].content }}", "changes texts"),
        ("{{ messages[0].content.lstrip() }}{{ messages[1].content }}", "white space of a query"),
        ("{{ messages[0].content }}{{ messages[1].content }}{{ 1 / 0 }}", "chat template failed"),
        ("{{ messages[0].content }}{% for", "chat template failed"),
        (
            "{{ messages[-2].content }}{{ messages[-1].content }}{{ messages | length }}",
            "a system message that it does not show",
        ),
    ],
)
def test_a_template_that_does_more_than_show_its_texts_is_refused(
    folder: Path, template: str, words: str
) -> None:
    """So no document is put to the model in other words than sentence-transformers does."""
    held = json.loads((folder / TRANSFORMER).read_text())["modality_config"]
    held["message"]["format"] = "flat"
    rewrite(folder, TRANSFORMER, modality_config=held)
    set_template(folder, template)
    assert words in refusal(folder)


def test_a_template_runs_in_the_sandbox(folder: Path) -> None:
    """It reaches nothing of Python."""
    set_template(folder, "{{ ''.__class__.__mro__[1].__subclasses__() }}{{ messages[0].content }}")
    assert "chat template failed" in refusal(folder)


def test_slots_are_found_where_the_texts_stand(folder: Path) -> None:
    """More than once, trimmed or not, in any order."""
    set_template(folder, BACKWARDS)
    recipe = recipe_of(folder)
    slots = [piece for piece in recipe.plain.pieces if isinstance(piece, Slot)]
    assert slots == [Slot.QUERY, Slot.DOCUMENT, Slot.QUERY]
    assert recipe.plain.trimmed == frozenset()
    assert recipe.instructed is None
    set_template(folder, TURNS)
    recipe = recipe_of(folder)
    assert recipe.plain.trimmed == {Slot.QUERY, Slot.DOCUMENT}
    assert recipe.instructed is not None
    assert recipe.instructed.trimmed == set(Slot)


def test_a_default_prompt_that_nobody_sees_is_noted(folder: Path) -> None:
    """As is code that is not run, and a date that stands still."""
    rewrite(folder, MODEL, prompts={"a": "Say."}, default_prompt_name="a", activation_fn="my.Fn")
    set_template(folder, BACKWARDS + "{{ strftime_now('%Y') }}")
    recipe = recipe_of(folder)
    assert recipe.instruction == ""
    assert recipe.activation == "sigmoid"
    notes = " ".join(recipe.warnings)
    assert "names code, my.Fn, which is not run" in notes
    assert "default prompt is left aside" in notes
    assert "tells the date" in notes


@pytest.mark.parametrize(
    ("key", "named", "expected"),
    [
        ("sentence_transformers", {"activation_fn": "torch.nn.Identity"}, "identity"),
        ("sbert_ce_default_activation_function", "torch.nn.modules.activation.Tanh", "tanh"),
        ("sentence_transformers", {"version": "5"}, "sigmoid"),
    ],
)
def test_an_older_folder_names_its_activation_in_the_config(
    folder: Path, key: str, named: Any, expected: str
) -> None:
    """Where the newer file names none."""
    rewrite(folder, MODEL, activation_fn=...)
    rewrite(folder, "config.json", **{key: named})
    assert recipe_of(folder).activation == expected


def test_a_plain_chat_model_has_no_recipe_unless_it_is_asked_for(folder: Path) -> None:
    """Its template would show any role; the convention is for those that speak of documents."""
    (folder / "modules.json").unlink()
    assert recipe_of(folder).source == "convention"
    set_template(folder, CHAT_TEMPLATE)
    assert found_in(folder) == Found(None)
    assert found_in(folder, required=True).recipe is not None


@pytest.mark.parametrize(
    ("name", "readme", "noted"),
    [
        ("Qwen/Qwen3-Reranker-0.6B", None, True),
        ("mine", "---\npipeline_tag: text-ranking\n---\n# Mine\n", True),
        ("mine", "---\npipeline_tag: text-generation\n---\npipeline_tag: text-ranking\n", False),
        ("mine", "pipeline_tag: text-ranking\n", False),
        ("mine", None, False),
    ],
)
def test_a_reranker_without_a_recipe_is_noted(
    folder: Path, name: str, readme: str | None, noted: bool
) -> None:
    """As Qwen3-Reranker comes: with the chat template of any chat. The note says what to set."""
    (folder / "modules.json").unlink()
    (folder / "README.md").unlink(missing_ok=True)
    set_template(folder, CHAT_TEMPLATE)
    if readme is not None:
        (folder / "README.md").write_text(readme)
    info, tokenizer = replace(info_of(folder), name=name), Tokenizer.load(folder)
    defaults = RerankDefaults().for_model(info, tokenizer)
    assert defaults.default_mode == "query_likelihood"
    assert ["--rerank-mode recipe" in note for note in defaults.notes] == [True] * noted
    for mode in ("query_likelihood", "recipe"):
        asked = RerankDefaults(mode).for_model(info, tokenizer)  # type: ignore[arg-type]
        assert asked.notes == ()


def test_a_reranker_that_the_convention_does_not_fit_is_not_noted(tmp_path: Path) -> None:
    """The note would send its operator to an error."""
    folder = save_backbone(tmp_path / "a-reranker", CHAT_TEMPLATE, "llama", vocab_size=290)
    assert found_in(folder) == Found(None)


def test_a_convention_that_cannot_be_followed_is_noted_or_refused(folder: Path) -> None:
    """A note where nobody asked for it: a template may speak of documents for other ends."""
    (folder / "modules.json").unlink()
    set_template(folder, JUDGE.replace("query | first", "query | first | upper"))
    assert "no recipe for rerank" in found_in(folder).notes[0]
    assert "role query" in refusal(folder, required=True)
    rewrite(folder, "config.json", architectures=["GPT2LMHeadModel"])
    assert "names no *ForCausalLM" in refusal(folder, required=True)


def test_the_convention_needs_its_tokens(tmp_path: Path) -> None:
    """Else any two tokens would count."""
    folder = save_backbone(tmp_path, JUDGE, "llama", vocab_size=290)
    assert "lacks the token yes or no" in refusal(folder, required=True)


def test_a_recipe_that_cannot_be_followed_ends_the_start_by_name(folder: Path) -> None:
    """Unless the operator does without it."""
    rewrite(folder, SCORE, true_token_id=None)
    info, tokenizer = info_of(folder), Tokenizer.load(folder)
    with pytest.raises(UnsupportedModel) as caught:
        RerankDefaults.read(Settings()).for_model(info, tokenizer)
    assert SCORE in str(caught.value)
    assert "CHAINRULE_RERANK_MODE (--rerank-mode)" in str(caught.value)
    for settings in ({"rerank_mode": "yes_no"}, {"rerank_template": "{document}{query}"}):
        defaults = RerankDefaults.read(Settings(**settings))  # type: ignore[arg-type]
        assert defaults.for_model(info, tokenizer).recipe is None


def test_settings_that_do_not_go_with_the_recipe_are_refused(folder: Path) -> None:
    """Those that need no model at once, the others when it is there."""
    with pytest.raises(SettingsError, match="CHAINRULE_RERANK_TEMPLATE"):
        RerankDefaults.read(Settings(rerank_mode="recipe", rerank_template="qwen3-reranker"))
    set_template(folder, BACKWARDS)
    info, tokenizer = info_of(folder), Tokenizer.load(folder)
    for settings, name in (
        ({"rerank_instruction": "Find."}, "CHAINRULE_RERANK_INSTRUCTION"),
        ({"rerank_mode": "recipe", "rerank_labels": "a,a"}, "CHAINRULE_RERANK_LABELS"),
        ({"rerank_mode": "recipe", "rerank_labels": "zq zq,a"}, "CHAINRULE_RERANK_LABELS"),
    ):
        defaults = RerankDefaults.read(Settings(**settings))  # type: ignore[arg-type]
        with pytest.raises(UnsupportedModel, match=name):
            defaults.for_model(info, tokenizer)


def test_a_start_says_what_it_found(folder: Path, caplog: pytest.LogCaptureFixture) -> None:
    """The recipe in force, and each note as a warning."""
    rewrite(folder, MODEL, activation_fn="my.Fn")
    with caplog.at_level(logging.INFO, "app"):
        RerankDefaults().for_model(info_of(folder), Tokenizer.load(folder))
    levels = {record.levelname: record for record in caplog.records}
    assert "my.Fn" in levels["WARNING"].getMessage()
    assert levels["INFO"].getMessage() == "rerank by the model's own recipe"
    assert levels["INFO"].__dict__["true_token_id"] == 5


def test_a_model_without_a_folder_has_none() -> None:
    """Only asking for its recipe is an error."""
    tokenizer: Any = None
    assert find_recipe(info_of(""), tokenizer, required=False) == Found(None)
    with pytest.raises(RecipeError):
        find_recipe(info_of(""), tokenizer, required=True)
