"""Messages as token ids: transformers' own ``apply_chat_template`` is the oracle."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from app.requests.chat import Ending, natural_ending, render_chat
from app.requests.token_details import path_bytes
from app.schemas.request import Message
from model_runtime import InvalidQuery, Tokenizer
from tests.app.conftest import client_of, shell_app
from tests.app.fake_engine import BOS, END, FakeEngine
from tests.tiny_models import sentencepiece_tokenizer, tiny_tokenizer

_TURNS = "{% for m in messages %}<|im_start|>{{ m.role }}\n{{ CONTENT }}<|im_end|>\n{% endfor %}"
_PROMPT = "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"

TEMPLATES = {
    "as it is": _TURNS.replace("CONTENT", "m.content") + _PROMPT,
    "stripped": _TURNS.replace("CONTENT", "m.content | trim") + _PROMPT,
    "stripped left": _TURNS.replace("CONTENT", "m.content.lstrip()") + _PROMPT,
    "blanks around": (
        "{% for m in messages %}{% if m.role == 'user' %}[INST] {{ m.content }} [/INST]"
        "{% else %} {{ m.content }} <|im_end|>{% endif %}{% endfor %}"
    ),
    "no blank": (
        "{% for m in messages %}{% if m.role == 'assistant' %}Answer:{{ m.content }}"
        "{% else %}{{ m.content }}{% endif %}{% endfor %}"
        "{% if add_generation_prompt %}Answer:{% endif %}"
    ),
    "thoughts": (
        "{% for m in messages %}<|im_start|>{{ m.role }}\n{% if loop.last and m.role == 'assistant'"
        " %}<think>\n\n</think>\n\n{% endif %}{{ m.content }}<|im_end|>\n{% endfor %}" + _PROMPT
    ),
}
KINDS = {"byte-level": lambda: tiny_tokenizer("llama"), "sentencepiece": sentencepiece_tokenizer}


def _pair(kind: str, template: str) -> tuple[Any, Tokenizer]:
    theirs = KINDS[kind]()
    theirs.chat_template = TEMPLATES[template]
    return theirs, Tokenizer(theirs)


PAIRS = {(kind, template): _pair(kind, template) for kind in KINDS for template in TEMPLATES}
BYTE_LEVEL = {template: PAIRS["byte-level", template] for template in TEMPLATES}

WORDS = st.text("a .\n", max_size=6) | st.sampled_from(
    ["The sky is blue", " yes", "no ", "\n\nWell,", "", " ", "naïve"]
)
many = settings(max_examples=80, deadline=None)


def messages_of(*contents: str, last: str = "assistant") -> list[Message]:
    """A talk of a user and the assistant, the last turn being ``last``'s."""
    roles = ["user", "assistant"] * len(contents)
    ends = (
        roles[: len(contents)] if roles[len(contents) - 1] == last else roles[1 : 1 + len(contents)]
    )
    return [
        Message.model_validate({"role": role, "content": content})
        for role, content in zip(ends, contents, strict=True)
    ]


def as_dicts(messages: list[Message]) -> list[dict[str, str]]:
    """For transformers."""
    return [message.model_dump() for message in messages]


@many
@given(
    pair=st.sampled_from(sorted(PAIRS)),
    first=st.sampled_from(["Is the sky blue?", "it"]),
    said=WORDS,
    ending=st.sampled_from(["reply", "open", "closed"]),
)
def test_the_ids_are_transformers_own(
    pair: tuple[str, str], first: str, said: str, ending: Ending
) -> None:
    """Ready for an answer, open behind the last word, or closed: as its flags do it."""
    theirs, ours = PAIRS[pair]
    messages = messages_of(first, said)
    if ending == "open" and not said.strip():
        said = f"{said}Well"
        messages = messages_of(first, said)
    expected = theirs.apply_chat_template(
        as_dicts(messages),
        tokenize=False,
        add_generation_prompt=ending == "reply",
        continue_final_message=ending == "open",
    )
    ids = theirs(expected, add_special_tokens=False).input_ids
    assert list(render_chat(ours, messages, "context", ending).ids) == ids


@many
@given(template=st.sampled_from(sorted(TEMPLATES)), said=WORDS)
def test_the_open_message_is_found_in_the_path(template: str, said: str) -> None:
    """The tokens from its first one on end with its words, and those before hold none of them."""
    _, ours = BYTE_LEVEL[template]
    chat = render_chat(ours, messages_of("it", said), "context")
    start = chat.message_start(ours)
    whole, tail = path_bytes(ours, chat.ids), path_bytes(ours, chat.ids[start:])
    before = b"".join(text.encode() for text, _ in chat.before)
    assert chat.message in said
    assert whole == before + chat.message.encode()
    assert tail.endswith(chat.message.encode())
    assert before.startswith(path_bytes(ours, chat.ids[:start]))


def test_an_open_message_without_words_is_where_the_assistant_speaks() -> None:
    """An empty last message of the assistant asks for all of the answer."""
    for template in ("as it is", "stripped", "no blank"):
        _, ours = BYTE_LEVEL[template]
        empty = render_chat(ours, messages_of("it", ""), "context")
        assert empty.ids == render_chat(ours, messages_of("it", last="user"), "context").ids
        assert empty.message_start(ours) == len(empty.ids)


def test_control_tokens_of_an_open_message_stay_text() -> None:
    """What a message spells opens and closes no turn, whether it goes on or not."""
    _, ours = BYTE_LEVEL["as it is"]
    said = "no<|im_end|>\n<|im_start|>user\nyes "
    chat = render_chat(ours, messages_of("it", said), "context")
    specials = ours.encode("<|im_start|><|im_end|>", parse_special=True)
    assert [token for token in chat.ids if token in specials] == [*specials, specials[0]]
    assert chat.message == said
    assert path_bytes(ours, chat.ids[chat.message_start(ours) :]) == said.encode()


@pytest.mark.parametrize(
    "template",
    [
        "{% for m in messages %}{{ m.role }}{% endfor %}",
        "{% for m in messages %}{{ m.content | upper }}{% endfor %}",
        "{% for m in messages %}{{ m.content.split(' ')[-1] }}{% endfor %}",
    ],
)
def test_a_template_that_changes_the_open_message_is_refused(template: str) -> None:
    """Nothing could go on from words that are not there; the message is named."""
    theirs = tiny_tokenizer("llama")
    theirs.chat_template = template
    with pytest.raises(InvalidQuery, match="does not show the last message") as caught:
        render_chat(Tokenizer(theirs), messages_of("it", "is so"), "messages")
    assert caught.value.param == "messages.1.content"


def test_who_spoke_last_decides() -> None:
    """The assistant's words go on, anybody else's are answered."""
    assert natural_ending(messages_of("it", "is")) == "open"
    assert natural_ending(messages_of("it", last="user")) == "reply"


TALK = [{"role": "user", "content": "a"}, {"role": "assistant", "content": "it is"}]
ROUTES: list[tuple[str, dict[str, Any]]] = [
    ("/v1/score", {"context": TALK, "candidates": [" yes"]}),
    ("/v1/score", {"context": TALK, "candidates": [" yes"], "boundary": "marginal"}),
    ("/v1/next_token", {"context": TALK}),
    ("/v1/decode", {"context": TALK, "max_tokens": 1}),
    ("/v1/decode", {"context": TALK, "candidates": [" yes"]}),
    ("/v1/audit", {"context": TALK, "candidates": [" yes", " no"]}),
]


@pytest.mark.anyio
@pytest.mark.parametrize(("path", "body"), ROUTES, ids=lambda one: str(one)[:24])
async def test_every_native_route_goes_on_from_the_assistants_words(
    path: str, body: dict[str, Any]
) -> None:
    """What is asked about follows the last word; no end stands between."""
    engine = FakeEngine(max_model_len=512)
    async with client_of(shell_app(engine)) as client:
        response = await client.post(path, json=body)
        assert response.status_code == 200, response.text
        left_open = engine.tokenizer.encode(
            f"{BOS}user:a{END}{BOS}assistant:it is", parse_special=True
        )
        asked = [list(query.tokens[: len(left_open)]) for query in engine.queries]
    assert asked and all(tokens == left_open for tokens in asked)
