"""Folders of rerankers, tiny and of random weights, as sentence-transformers writes them."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from sentence_transformers import CrossEncoder
from sentence_transformers.base.modules import Transformer
from sentence_transformers.cross_encoder.modules import LogitScore
from torch import nn
from transformers import AutoTokenizer

from tests.tiny_models import END, save_tiny_model

JUDGE = """\
{%- set query = messages | selectattr('role', 'eq', 'query') | map(attribute='content') -%}
{%- set document = messages | selectattr('role', 'eq', 'document') | map(attribute='content') -%}
{%- set task = messages | selectattr('role', 'eq', 'system') | map(attribute='content') -%}
<|im_start|>system
Does the Document answer the Query? Say "yes" or "no".<|im_end|>
<|im_start|>user
<Task>: {{ task | first | default('Find what answers the query', true) }}
<Query>: {{ query | first }}
<Document>: {{ document | first }}<|im_end|>
<|im_start|>assistant
<think>

</think>

"""
"""In the manner of Qwen3-Reranker: the instruction has a default of its own."""

TURNS = (
    "{% for message in messages %}"
    "{% set role = {'query': 'system', 'document': 'user'}.get(message['role'], 'note') %}"
    "<|im_start|>{{ role }}\n{{ message['content'] | trim }}<|im_end|>\n"
    "{% endfor %}{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)
"""In the manner of zerank: a turn each, trimmed."""

PARTS = (
    "{% for message in messages %}<|im_start|>{{ message['role'] }}\n"
    "{% for part in message['content'] %}"
    "{% if part['type'] == 'text' %}{{ part['text'] }}{% endif %}{% endfor %}"
    "<|im_end|>\n{% endfor %}Answer:"
)
"""Contents are lists; any role is shown."""

BACKWARDS = (
    "{% set query = (messages | selectattr('role', 'equalto', 'query') | first).content[0].text %}"
    "{% for message in messages if message.role == 'document' %}"
    "{{ query }}: {{ message.content[0].text }} {{ query }}?{% endfor %}"
)
"""The query twice, around the document; no place for an instruction."""


def save_backbone(
    folder: Path, template: str | None, kind: str = "qwen3", *words: str, **overrides: object
) -> Path:
    """A causal language model whose chat template is this, with these words in its vocabulary."""
    save_tiny_model(kind, folder, **overrides)
    tokenizer = AutoTokenizer.from_pretrained(folder)
    known = tokenizer.get_vocab()
    tokenizer.add_tokens([word for word in words if word not in known])
    tokenizer.pad_token = END
    tokenizer.chat_template = template
    (folder / "chat_template.jinja").unlink(missing_ok=True)
    tokenizer.save_pretrained(folder)
    return folder


def save_reranker(
    folder: Path,
    backbone: Path,
    true_id: int,
    false_id: int | None = None,
    *,
    activation: nn.Module | None = None,
    prompts: dict[str, str] | None = None,
    default_prompt_name: str | None = None,
    message_format: str | None = None,
    text_only: bool = False,
    chat_options: dict[str, Any] | None = None,
) -> Path:
    """The folder that sentence-transformers writes of these modules."""
    entry = {"method": "forward", "method_output_name": "logits"}
    modalities: Any = {"text": entry}
    if not text_only:
        modalities["message"] = {**entry, "format": message_format or "auto"}
    transformer = Transformer(
        str(backbone),
        transformer_task="text-generation",
        modality_config=modalities,
        module_output_name="causal_logits",
        processing_kwargs={"chat_template": chat_options} if chat_options else None,
    )
    model = CrossEncoder(
        modules=[transformer, LogitScore(true_id, false_id)],
        prompts=prompts,
        default_prompt_name=default_prompt_name,
        activation_fn=activation,
        device="cpu",
    )
    model.save_pretrained(str(folder), create_model_card=False)
    return folder


def rewrite(folder: Path, name: str, **changes: Any) -> None:
    """Other values in a JSON file of a folder; ``...`` removes a key."""
    path = folder / name
    held = json.loads(path.read_text()) if path.is_file() else {}
    held.update(changes)
    path.write_text(json.dumps({k: v for k, v in held.items() if v is not ...}))


def token_id(folder: Path, text: str) -> int:
    """Of the one token that is this text."""
    (found,) = AutoTokenizer.from_pretrained(folder).encode(text, add_special_tokens=False)
    return int(found)


def oracle(folder: Path) -> CrossEncoder:
    """What sentence-transformers makes of a folder."""
    return CrossEncoder(str(folder), device="cpu", local_files_only=True)
