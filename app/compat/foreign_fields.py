"""Fields of other APIs that are not served, and the values of theirs that ask for nothing.

The lists are what the request models of those servers, and of the routers before them, have beside
the fields that are served here; the values are their defaults, and others that change nothing.
A field that a request model of ours has is served, whatever the lists say of it.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any, ClassVar, Final, Literal

from pydantic import BaseModel, BeforeValidator, Field, model_validator
from pydantic_core import PydanticCustomError

from app.schemas.bounds import MAX_USER_CHARS
from model_runtime import InvalidQuery

Neutral = Mapping[str, tuple[object, ...]]
"""Names of fields, with the values beside null that ask for nothing. Such a value is small: what
a client sends is compared with it, and no deeper than it goes."""

SENT_BY_ROUTERS: Final[Neutral] = {
    "bootstrap_host": (),
    "bootstrap_port": (),
    "bootstrap_room": (),
    "data_parallel_rank": (),
    "disagg_prefill_dp_rank": (),
    "ec_transfer_params": ({},),
    "kv_transfer_params": ({},),
    "lora_path": (),
    "no_stop_trim": (False,),
    "return_hidden_states": (False,),
    "routed_dp_rank": (),
    "session_params": ({},),
    "skip_special_tokens": (True,),
}
"""What routers of vLLM and SGLang add to any request that they pass on, with the values that it
has where the client said nothing."""

OPENAI_DEFAULTS: Final[Neutral] = {
    "metadata": ({},),
    "moderation": (),
    "modalities": (["text"],),
    "parallel_tool_calls": (True, False),
    "prediction": (),
    "prompt_cache_retention": (),
    "reasoning_effort": ("none",),
    "response_format": ({"type": "text"},),
    "service_tier": ("auto", "default"),
    "store": (False,),
    "verbosity": ("medium",),
}
"""What any request for text to OpenAI's API may have. Nothing is stored here, there is one tier,
and no tool is ever called."""

OPENAI_CHAT_DEFAULTS: Final[Neutral] = {
    **OPENAI_DEFAULTS,
    "audio": (),
    "function_call": ("none", "auto"),
    "functions": ([],),
    "tool_choice": ("none", "auto"),
    "tools": ([],),
    "web_search_options": (),
}
"""The same for chats. Without tools their choice chooses among none."""

VLLM_DEFAULTS: Final[Neutral] = {
    "allowed_token_ids": (),
    "bad_words": ([],),
    "guided_choice": (),
    "guided_decoding_backend": (),
    "guided_grammar": (),
    "guided_json": (),
    "guided_regex": (),
    "guided_whitespace_pattern": (),
    "include_stop_str_in_output": (False,),
    "length_penalty": (1,),
    "logprob_token_ids": (),
    "logits_processors": ([],),
    "min_p": (0,),
    "min_tokens": (0,),
    "prompt_embeds": (),
    "prompt_logprobs": (),
    "repetition_detection": (),
    "repetition_penalty": (1,),
    "return_mm_kwargs": (True, False),
    "return_token_ids": (False,),
    "return_token_offsets": (False,),
    "return_tokens_as_token_ids": (False,),
    "routed_experts_prompt_start": (0,),
    "spaces_between_special_tokens": (True,),
    "stop_token_ids": ([],),
    "stream_interval": (1,),
    "structured_outputs": (),
    "thinking_token_budget": (-1,),
    # The most probable token is among any number of the most probable ones.
    "top_k": (-1, 0, 1),
    "truncate_prompt_tokens": (),
    # Where nothing is cut it does not matter on which side.
    "truncation_side": ("left", "right"),
    "use_beam_search": (False,),
    "vllm_xargs": ({},),
    "watermarking": (False,),
}
"""What vLLM adds to OpenAI's requests for text."""

VLLM_CHAT_DEFAULTS: Final[Neutral] = {
    **VLLM_DEFAULTS,
    "chat_template": (),
    "chat_template_kwargs": ({},),
    "documents": ([],),
    # No reasoning is told apart from the answer here.
    "include_reasoning": (True, False),
    "media_io_kwargs": ({},),
    "mm_processor_kwargs": ({},),
    "return_prompt_text": (False,),
}
"""The same for chats."""

SGLANG_DEFAULTS: Final[Neutral] = {
    "custom_labels": ({},),
    "custom_logit_processor": (),
    "custom_params": ({},),
    "ebnf": (),
    "extra_key": (),
    "json_schema": (),
    "regex": (),
    "return_cached_tokens_details": (False,),
    "return_meta_info": (False,),
    "return_prompt_token_ids": (False,),
    "return_routed_experts": (False,),
    "routed_experts_start_len": (0,),
    "separate_reasoning": (True, False),
    "stop_regex": ([],),
    "stream_reasoning": (True, False),
}
"""What SGLang adds to OpenAI's requests for text, chats among them."""

COMPLETION_DEFAULTS: Final[Neutral] = {**OPENAI_DEFAULTS, **VLLM_DEFAULTS, **SGLANG_DEFAULTS}
CHAT_DEFAULTS: Final[Neutral] = {
    **OPENAI_CHAT_DEFAULTS,
    **VLLM_CHAT_DEFAULTS,
    **SGLANG_DEFAULTS,
}

POOLING_DEFAULTS: Final[Neutral] = {
    "activation": (True,),
    "chat_template": (),
    "chat_template_kwargs": ({},),
    "embed_dtype": ("float32",),
    "encoding_format": ("float",),
    "endianness": ("native",),
    "mm_processor_kwargs": ({},),
    "padding": ("do_not_pad",),
    "truncation_side": ("left", "right"),
    "use_activation": (True,),
}
"""What vLLM adds to requests for scores and ranks."""

RERANK_DEFAULTS: Final[Neutral] = {
    **POOLING_DEFAULTS,
    # Jina's. What is too long is refused by its index either way.
    "max_doc_length": (),
    "max_query_length": (),
    "return_embeddings": (False,),
    "truncation": (True, False),
}
"""What Cohere, Jina and vLLM add to a request for ranks."""

TOKENIZER_DEFAULTS: Final[Neutral] = {
    "chat_template": (),
    "chat_template_kwargs": ({},),
    "media_io_kwargs": ({},),
    "mm_processor_kwargs": ({},),
    "reasoning_effort": ("none",),
    "tool_choice": ("none", "auto"),
    "tools": ([],),
}
"""What vLLM and SGLang add to a text to be tokenized."""

MAX_RID_CHARS: Final = 256
MAX_PRIORITY: Final = 2**63

Rid = Annotated[str, Field(max_length=MAX_RID_CHARS)]


class ForeignRequest(BaseModel):
    """A body of another API, or a part of one: fields of it that ask for nothing are left away.

    Null always asks for nothing, whatever the field is called. A client that sends all its
    defaults is served, and one that means something by them is told which field it is.
    """

    takes_unknown_nulls: ClassVar[bool] = True
    noop_values: ClassVar[Neutral] = {}
    """What the API has and is not served, with what asks for nothing; of all bases together."""

    @classmethod
    def __pydantic_init_subclass__(cls, **kwargs: Any) -> None:
        super().__pydantic_init_subclass__(**kwargs)
        listed: dict[str, tuple[object, ...]] = {}
        for base in reversed(cls.__mro__):
            listed |= vars(base).get("noop_values", {})
        cls.noop_values = {
            name: values for name, values in listed.items() if name not in cls.model_fields
        }

    @model_validator(mode="before")
    @classmethod
    def _without_what_asks_for_nothing(cls, body: Any) -> Any:
        """Raise ``InvalidQuery``, naming the field, for one that asks for something."""
        if not isinstance(body, dict):
            return body
        for name in sorted(cls.noop_values.keys() & body.keys()):
            if body[name] is not None and not _is_one_of(body[name], cls.noop_values[name]):
                raise InvalidQuery("this is not served here; leave it out", name)
        return {
            name: value
            for name, value in body.items()
            if name in cls.model_fields or not (value is None or name in cls.noop_values)
        }


class UnsupportedFields(ForeignRequest):
    """What a whole body may have beside: whose it is, and what routers add."""

    noop_values: ClassVar[Neutral] = SENT_BY_ROUTERS

    rid: Rid | None = None
    """A router's name for the request; without effect."""
    session_id: Rid | None = None
    """A router's name for what requests belong to; without effect."""
    user: Annotated[str, Field(max_length=MAX_USER_CHARS)] | None = None
    """Taken and without effect."""


def _is_one_of(value: object, neutral: tuple[object, ...]) -> bool:
    # True is 1 in Python, and no number here.
    is_flag = isinstance(value, bool)
    return any(value == one and is_flag == isinstance(one, bool) for one in neutral)


def require_neutral(value: object, neutral: str) -> object:
    """The value, which is falsy: the field is not served.

    Args:
        value: what was sent.
        neutral: what should be, and why, for who sends anything else.
    """
    if value:
        raise PydanticCustomError("not_served", "Input should be {neutral}", {"neutral": neutral})
    return value


def _named_priority(value: object) -> object:
    """vLLM's integers: 0, the default, and less are urgent, the others are not."""
    if type(value) is int and abs(value) <= MAX_PRIORITY:
        return "interactive" if value <= 0 else "bulk"
    return value


PriorityName = Literal["interactive", "bulk"]
PriorityNumber = Annotated[int, Field(ge=-MAX_PRIORITY, le=MAX_PRIORITY)]
Priority = Annotated[
    PriorityName,
    BeforeValidator(_named_priority, json_schema_input_type=PriorityName | PriorityNumber),
]
