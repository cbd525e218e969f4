"""What is odd about a model folder and yet served: a line each, for the log and for /v1/models."""

from __future__ import annotations

from collections.abc import Collection, Iterator
from pathlib import Path

from transformers import PreTrainedModel

from model_runtime.loading.files import SHARD_INDEX, WEIGHTS
from model_runtime.tokenization.folder_json import names_code
from model_runtime.tokenization.tokenizer import Tokenizer


def load_warnings(
    folder: Path, model: PreTrainedModel, tokenizer: Tokenizer, end_token_ids: Collection[int]
) -> tuple[str, ...]:
    """What whoever serves this folder may not have meant.

    Args:
        folder: where the model was loaded from.
        model: what was loaded.
        tokenizer: the same.
        end_token_ids: ids that end a completion.
    """
    return (
        *_ignored_code(folder, model),
        *_stale_index(folder),
        *_untied_head(model),
        *_templates(tokenizer),
        *_turn_end(tokenizer, end_token_ids),
        *_unknown_split(tokenizer),
    )


def _ignored_code(folder: Path, model: PreTrainedModel) -> Iterator[str]:
    served = {"config.json": type(model).__name__, "tokenizer_config.json": "tokenizer.json"}
    named = [name for name in served if names_code(folder / name)]
    if named:
        yield (
            f"code (auto_map of {' and '.join(named)}) is ignored; what is served is "
            f"{' and '.join(served[name] for name in named)}"
        )


def _stale_index(folder: Path) -> Iterator[str]:
    if (folder / WEIGHTS).is_file() and (folder / SHARD_INDEX).is_file():
        yield f"{WEIGHTS} is served; the shards of {SHARD_INDEX} beside it are ignored"


def _untied_head(model: PreTrainedModel) -> Iterator[str]:
    head, embeddings = model.get_output_embeddings(), model.get_input_embeddings()
    tied = model.config.tie_word_embeddings and bool(model._tied_weights_keys)
    if tied and head.weight is not embeddings.weight:
        yield (
            "the config ties the head to the embeddings (tie_word_embeddings), but the weights "
            "hold another head, which is served"
        )


def _templates(tokenizer: Tokenizer) -> Iterator[str]:
    names = tokenizer.chat_template_names
    if names and tokenizer.chat_template is None:
        yield (
            f"none of the chat templates is the default ({', '.join(names)}): messages are refused "
            "and decisions take the plain prompt"
        )


def _turn_end(tokenizer: Tokenizer, end_token_ids: Collection[int]) -> Iterator[str]:
    end = tokenizer.turn_end()
    if end is not None and end not in end_token_ids:
        yield (
            f"the chat template ends a turn with {tokenizer.token_text(end)} (id {end}), which is "
            f"not among the end ids {sorted(end_token_ids)}: completions do not end there"
        )


def _unknown_split(tokenizer: Tokenizer) -> Iterator[str]:
    if not tokenizer.knows_split_points:
        yield (
            "the tokenizer cuts words by rules that are not known here: where context and "
            "candidates are texts, the whole context is tokenized again for each candidate, to the "
            "same tokens"
        )
