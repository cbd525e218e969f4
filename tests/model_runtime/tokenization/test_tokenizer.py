"""Text to ids and back: exact bytes, control tokens kept apart, nothing cut."""

from __future__ import annotations

import json
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
import tokenizers
from hypothesis import given, settings
from hypothesis import strategies as st
from tokenizers import decoders, models, processors
from transformers import PreTrainedTokenizerFast

from model_runtime.errors import CorruptModel, InvalidQuery, UnsupportedModel
from model_runtime.tokenization.tokenizer import Tokenizer
from tests.model_runtime.tokenization import tokenizer_kinds as kinds
from tests.tiny_models import (
    BOS,
    CORE_KINDS,
    CORPUS,
    END,
    START,
    UNUSED_ROWS,
    prefixed_tokenizer,
    sentencepiece_tokenizer,
    tiny_tokenizer,
)

TOKENIZERS = {kind: Tokenizer(tiny_tokenizer(kind)) for kind in CORE_KINDS}
MESSAGES = [{"role": "user", "content": "Is the sky blue?"}]

ANY_TEXT = st.text(max_size=60) | st.sampled_from(CORPUS)
ANY_KIND = st.sampled_from(CORE_KINDS)
many = settings(max_examples=150, deadline=None)


@pytest.fixture
def llama() -> Tokenizer:
    """A byte-level tokenizer without a BOS rule."""
    return TOKENIZERS["llama"]


@pytest.fixture(scope="module")
def real(real_folder: Path) -> Tokenizer:
    """The default model's tokenizer."""
    return Tokenizer.load(real_folder)


@many
@given(kind=ANY_KIND, text=ANY_TEXT, parse_special=st.booleans())
def test_bytes_of_the_tokens_are_the_bytes_of_the_text(
    kind: str, text: str, parse_special: bool
) -> None:
    """Byte-level tokens concatenate to the text, whatever the text is."""
    tokenizer = TOKENIZERS[kind]
    ids = tokenizer.encode(text, parse_special=parse_special)
    assert b"".join(map(tokenizer.token_bytes, ids)) == text.encode()
    assert tokenizer.decode(ids) == text


@many
@given(kind=ANY_KIND, text=ANY_TEXT, start=st.integers(0, 9))
def test_offsets_tile_the_text(kind: str, text: str, start: int) -> None:
    """Each token begins where the one before it ends, and holds exactly those bytes."""
    tokenizer = TOKENIZERS[kind]
    ids = tokenizer.encode(text)
    offsets = tokenizer.byte_offsets(ids, start)
    padded = b"?" * start + text.encode()
    assert [padded[begin:end] for begin, end in offsets] == [
        tokenizer.token_bytes(token) for token in ids
    ]
    ends = [start, *(end for _, end in offsets)]
    assert [begin for begin, _ in offsets] == ends[:-1]
    assert ends[-1] == len(padded)


@many
@given(ids=st.lists(st.integers(0, 383), max_size=12))
def test_decoding_agrees_with_transformers(ids: list[int]) -> None:
    """Ids in any order, broken characters included, decode as transformers decodes them."""
    theirs = tiny_tokenizer("llama").decode(ids, clean_up_tokenization_spaces=False)
    assert TOKENIZERS["llama"].decode(ids) == TOKENIZERS["llama"].detokenize(ids) == theirs


@pytest.mark.parametrize("kind", CORE_KINDS)
def test_encoding_agrees_with_transformers(kind: str) -> None:
    """With control tokens parsed, ids are those of the transformers tokenizer."""
    theirs = tiny_tokenizer(kind)
    for text in (*CORPUS, f"{START}user\nhi{END}", "", " ", "日本 😀"):
        expected = theirs(text, add_special_tokens=False).input_ids
        assert TOKENIZERS[kind].encode(text, parse_special=True) == expected


def test_batches_equal_single_texts(llama: Tokenizer) -> None:
    """A text's ids do not depend on the batch it is encoded in."""
    texts = [*CORPUS, "", END]
    assert llama.encode_batch(texts) == [llama.encode(text) for text in texts]


@pytest.mark.parametrize("parse_special", [False, True])
def test_a_large_batch_is_encoded_in_pieces(
    llama: Tokenizer, monkeypatch: pytest.MonkeyPatch, parse_special: bool
) -> None:
    """The ids are the same; between pieces it is asked whether to go on."""
    monkeypatch.setattr("model_runtime.tokenization.tokenizer.PIECE_CHARS", 20)
    texts = [*CORPUS, "", "x" * 50, *(f"{word} and more" for word in "abcdef")]
    looks: list[int] = []

    def check() -> None:
        looks.append(1)
        if len(looks) > 100:
            raise TimeoutError

    encoded = llama.encode_batch(texts, parse_special=parse_special, check=check)
    assert encoded == [llama.encode(text, parse_special=parse_special) for text in texts]
    assert len(looks) >= 8
    looks += [1] * 100
    with pytest.raises(TimeoutError):
        llama.encode_batch(texts, parse_special=parse_special, check=check)


@pytest.mark.parametrize("kind", CORE_KINDS)
def test_text_that_spells_a_control_token_stays_text(kind: str) -> None:
    """Control tokens come out of text only where the caller asks for that."""
    tokenizer = TOKENIZERS[kind]
    text = f"a{END}{START}b"
    control = {id for id in range(tokenizer.vocab_size) if tokenizer.token_text(id) in (START, END)}
    assert len(control) == 2
    assert control.isdisjoint(tokenizer.encode(text))
    assert control <= set(tokenizer.encode(text, parse_special=True))


def test_added_tokens_that_are_not_special_keep_working() -> None:
    """Plain text may use added tokens, such as runs of spaces, that control nothing."""
    hf_tokenizer = tiny_tokenizer("llama")
    hf_tokenizer.add_tokens(["<think>"])
    tokenizer = Tokenizer(hf_tokenizer)
    added = tokenizer.vocab_size - 1
    assert tokenizer.encode("a<think>b")[1] == added
    assert tokenizer.token_bytes(added) == b"<think>"


def test_a_vocabulary_that_lets_text_spell_control_tokens_is_refused() -> None:
    """Where the model part itself maps the text to the control token, nothing is safe."""
    rust = tokenizers.Tokenizer(models.WordLevel(vocab={"a": 0, END: 1}, unk_token="a"))
    rust.decoder = decoders.ByteLevel()
    hf_tokenizer = PreTrainedTokenizerFast(tokenizer_object=rust, eos_token=END)
    with pytest.raises(UnsupportedModel, match="control token"):
        Tokenizer(hf_tokenizer)


@pytest.mark.parametrize(("kind", "adds"), [("llama", False), ("gpt2", False), ("gemma3", True)])
def test_the_tokenizers_own_bos_rule_is_reported(kind: str, adds: bool) -> None:
    """``adds_bos`` is the rule; encoding itself never adds anything."""
    tokenizer = TOKENIZERS[kind]
    assert tokenizer.adds_bos is adds
    assert tokenizer.bos_token_id is not None
    assert tokenizer.bos_token_id not in tokenizer.encode("The capital")
    assert tokenizer.encode("") == []


def test_bos_stands_before_a_text_once() -> None:
    """Unlike transformers' tokenizer, which puts a second before a text that begins with it."""
    theirs, tokenizer = tiny_tokenizer("gemma3"), TOKENIZERS["gemma3"]
    for text in ("", "The capital", BOS, f"{BOS}The capital", f"{BOS}{BOS}The capital"):
        ids = tokenizer.encode(text, parse_special=True)
        doubled = text.startswith(BOS)
        assert list(tokenizer.with_prefix(ids)) == theirs(text).input_ids[doubled:]


@pytest.mark.parametrize("bos", [None, "<sop>"])
def test_all_that_the_rule_puts_before_a_text_is_known(bos: str | None) -> None:
    """Several tokens may stand first, BOS among them or not; none is put behind a text."""
    theirs = prefixed_tokenizer()
    theirs.bos_token = bos
    tokenizer = Tokenizer(theirs)
    assert list(map(tokenizer.token_text, tokenizer.prefix_ids)) == ["[gMASK]", "<sop>"]
    assert tokenizer.adds_bos is (bos is not None)
    for text in ("", "The capital", "[gMASK]<sop>The capital"):
        ids = tokenizer.encode(text, parse_special=True)
        doubled = 2 * text.startswith("[gMASK]")
        assert list(tokenizer.with_prefix(ids)) == theirs(text).input_ids[doubled:-1]


def test_a_tokenizer_may_have_no_bos() -> None:
    """Without a BOS there is no rule to add one."""
    assert TOKENIZERS["qwen3"].bos_token_id is None
    assert TOKENIZERS["qwen3"].adds_bos is False


def test_special_tokens_stand_for_their_own_text(llama: Tokenizer) -> None:
    """A control token's bytes are the text that names it."""
    assert llama.eos_token_id is not None
    assert llama.token_bytes(llama.eos_token_id) == END.encode()
    assert TOKENIZERS["gemma3"].token_text(0) == BOS


def test_parts_of_a_character_become_replacement_characters(llama: Tokenizer) -> None:
    """A token may hold half a character; its text says so and its bytes are exact."""
    [first, *_] = llama.encode("é")
    assert llama.token_bytes(first) == "é".encode()[:1]
    assert llama.token_text(first) == "�"


def test_ids_without_a_token_are_empty(tiny_folder: Callable[[str], Path]) -> None:
    """Rows that pad the head stand for nothing, and any other id neither."""
    tokenizer = Tokenizer.load(tiny_folder("qwen3"), head_rows=384)
    assert tokenizer.head_rows == tokenizer.vocab_size + UNUSED_ROWS
    assert [tokenizer.token_bytes(token) for token in (-1, 383, 384, 2**63)] == [b""] * 4


def test_more_ids_than_the_head_has_rows_is_corrupt(tiny_folder: Callable[[str], Path]) -> None:
    """A tokenizer of another model is found out when it is loaded."""
    with pytest.raises(CorruptModel, match="head has 300 rows"):
        Tokenizer.load(tiny_folder("llama"), head_rows=300)


@pytest.mark.parametrize("text", ["\ud800", "a\udfffb", "x" * 1000 + "\udead"])
def test_lone_surrogates_are_refused(llama: Tokenizer, text: str) -> None:
    """Half a surrogate pair is no character and has no bytes."""
    with pytest.raises(InvalidQuery, match="lone surrogate"):
        llama.encode(text)


def test_text_that_would_lose_bytes_is_refused() -> None:
    """A character that the vocabulary would drop silently is an error instead."""
    letters = Tokenizer(tiny_tokenizer("llama", vocab_size=8))
    assert letters.decode(letters.encode("abc")) == "abc"
    with pytest.raises(InvalidQuery, match="no token for byte 0x78"):
        letters.encode("axb")


@pytest.mark.parametrize(
    ("text", "kept"),
    [("abc", "abc"), ("axb", "ab"), ("xx", ""), ("", ""), ("a\N{SNOWMAN}b\N{SNOWMAN}x", "ab")],
)
def test_what_cannot_be_spelled_can_be_left_out(text: str, kept: str) -> None:
    """Whole characters, and no other ones; what is left is a text as any."""
    letters = Tokenizer(tiny_tokenizer("llama", vocab_size=8))
    assert letters.spellable(text) == kept
    assert letters.decode(letters.encode(kept)) == kept


def test_half_a_character_is_not_left_out() -> None:
    """A lone surrogate is refused by name: it is not text."""
    letters = Tokenizer(tiny_tokenizer("llama", vocab_size=8))
    with pytest.raises(InvalidQuery, match="lone surrogate") as caught:
        letters.spellable("a\ud800x", "documents.3")
    assert caught.value.param == "documents.3"


def test_nothing_is_truncated_or_padded(tmp_path: Path) -> None:
    """A tokenizer file that asks for truncation or padding does not get it."""
    hf_tokenizer = tiny_tokenizer("llama")
    hf_tokenizer.backend_tokenizer.enable_truncation(max_length=2)
    hf_tokenizer.backend_tokenizer.enable_padding(length=64)
    tokenizer = Tokenizer(hf_tokenizer)
    assert tokenizer.decode(tokenizer.encode(CORPUS[0])) == CORPUS[0]
    assert len(tokenizer.encode("a")) == 1


def test_threads_share_one_tokenizer(llama: Tokenizer) -> None:
    """Plain and parsing callers on several threads never disturb each other."""
    text = f"{CORPUS[0]}{END}" * 20
    expected = {flag: llama.encode(text, parse_special=flag) for flag in (False, True)}

    def encode(index: int) -> bool:
        flag = index % 2 == 0
        return llama.encode(text, parse_special=flag) == expected[flag]

    with ThreadPoolExecutor(8) as pool:
        assert all(pool.map(encode, range(200)))


@many
@given(text=st.text(alphabet="abis é\n😀", max_size=30))
def test_sentencepiece_bytes_are_the_text_behind_one_space(text: str) -> None:
    """The space that such a tokenizer puts first is all that its tokens add."""
    tokenizer = Tokenizer(sentencepiece_tokenizer())
    ids = tokenizer.encode(text)
    assert b"".join(map(tokenizer.token_bytes, ids)) == (f" {text}" if text else "").encode()


@pytest.mark.parametrize(
    ("normalizer", "text", "normal"),
    [
        (None, "É \u0301▁", "É \u0301▁"),
        ({"type": "NFC"}, "e\u0301 ▁", "é ▁"),
        ({"type": "NFKC"}, "\N{LATIN SMALL LIGATURE FI}", "fi"),
        (kinds.steps({"type": "NFC"}, {"type": "Lowercase"}, name="normalizers"), "E\u0301", "é"),
        (kinds.steps(kinds.PREPEND, kinds.REPLACE, name="normalizers"), " É", " É"),
        (
            kinds.steps(kinds.PREPEND, kinds.REPLACE, {"type": "NFC"}, name="normalizers"),
            "e\u0301 a",
            "é a",
        ),
        ({"type": "Strip", "strip_left": True, "strip_right": True}, "  ", ""),
    ],
)
def test_the_normalized_text_is_known(
    normalizer: dict[str, object] | None, text: str, normal: str
) -> None:
    """It is what the tokenizer reads in place of a text, but for how it writes spaces."""
    spec = kinds.byte_level(kinds.BYTES_ONLY) | {"normalizer": normalizer}
    assert kinds.tokenizer(spec).normalize(text) == normal


def test_chat_is_rendered_by_the_models_template(llama: Tokenizer) -> None:
    """The prompt ends where the assistant speaks."""
    expected = f"{START}user\nIs the sky blue?{END}\n{START}assistant\n"
    assert llama.render_chat(MESSAGES) == expected


@pytest.mark.parametrize(
    ("template", "messages", "reason"),
    [
        (None, MESSAGES, "no chat template"),
        ("{{ raise_exception('roles must alternate') }}", MESSAGES, "roles must alternate"),
        ("{{ ''.__class__.__mro__[1].__subclasses__() }}", MESSAGES, "unsafe"),
        ("{{ messages[0].content.missing.attribute }}", MESSAGES, "no attribute"),
        ("{% for message in %}", MESSAGES, "failed"),
        ("{{ messages[0]['content'] }}", [], "failed"),
    ],
)
def test_chat_that_cannot_be_rendered_is_refused(
    template: str | None, messages: list[dict[str, str]], reason: str
) -> None:
    """Missing, failing and hostile templates end in an error about ``messages``."""
    hf_tokenizer = tiny_tokenizer("llama")
    hf_tokenizer.chat_template = template
    with pytest.raises(InvalidQuery, match=reason) as caught:
        Tokenizer(hf_tokenizer).render_chat(messages)
    assert caught.value.param == "messages"
    assert "\n" not in str(caught.value)


def test_messages_of_any_role_are_rendered_with_options() -> None:
    """As the template has them; what it refuses is an error about ``messages``."""
    hf_tokenizer = tiny_tokenizer("llama")
    hf_tokenizer.chat_template = (
        "{% for m in messages %}{{ m.role }}={{ m.content[0].text }};{% endfor %}{{ ending }}"
    )
    tokenizer = Tokenizer(hf_tokenizer)
    messages = [{"role": "query", "content": [{"type": "text", "text": "a"}]}]
    assert tokenizer.render_messages(messages, ending="!") == "query=a;!"
    with pytest.raises(InvalidQuery) as caught:
        tokenizer.render_messages([{"role": "query"}])
    assert caught.value.param == "messages"


@pytest.mark.parametrize(
    ("kind", "around"),
    [("llama", ([], [], [])), ("gemma3", ([BOS], [BOS], []))],
)
def test_what_stands_around_a_pair_is_the_rules_own(kind: str, around: Any) -> None:
    """Nothing, or what the post-processor puts before, between and behind the texts."""
    hf_tokenizer = tiny_tokenizer(kind)
    found = Tokenizer(hf_tokenizer).pair_ids()
    assert [hf_tokenizer.convert_ids_to_tokens(list(ids)) for ids in found] == list(around)


def test_a_pair_may_have_something_behind_it() -> None:
    """As encoders have it."""
    hf_tokenizer = tiny_tokenizer("llama")
    end = hf_tokenizer.convert_tokens_to_ids(END)
    hf_tokenizer.backend_tokenizer.post_processor = processors.TemplateProcessing(
        single=f"$A {END}", pair=f"{END} $A {END} {END} $B {END}", special_tokens=[(END, end)]
    )
    assert Tokenizer(hf_tokenizer).pair_ids() == ((end,), (end, end), (end,))


def test_a_token_is_found_as_the_vocabulary_writes_it() -> None:
    """A space is another letter there."""
    tokenizer = Tokenizer(tiny_tokenizer("llama"))
    found = tokenizer.vocabulary_id("\N{LATIN CAPITAL LETTER G WITH DOT ABOVE}is")
    assert found is not None
    assert tokenizer.token_text(found) == " is"
    assert tokenizer.vocabulary_id(" is") is None


def test_an_unreadable_tokenizer_is_refused(
    tiny_folder: Callable[[str], Path], tmp_path: Path
) -> None:
    """A broken file ends in one line that says what it was about."""
    for name in ("config.json", "tokenizer_config.json"):
        (tmp_path / name).write_bytes((tiny_folder("llama") / name).read_bytes())
    (tmp_path / "tokenizer.json").write_text(json.dumps({"version": "1.0", "model": 1}))
    with pytest.raises(UnsupportedModel, match="tokenizer cannot be read") as caught:
        Tokenizer.load(tmp_path)
    assert "\n" not in str(caught.value)


@pytest.mark.real_model
def test_the_default_tokenizer_splits_every_digit_off(real: Tokenizer) -> None:
    """Digits stand alone, also from the spaces before them, as in the original tokenizer."""
    pieces = [real.token_text(token) for token in real.encode("in  2023 and\n 1st")]
    assert pieces == ["in", "  ", "2", "0", "2", "3", " and", "\n ", "1", "st"]


@pytest.mark.real_model
def test_the_default_tokenizer_has_the_published_specials(real: Tokenizer) -> None:
    """SmolLM2's ids, its end token, and no BOS by its own rule."""
    assert real.encode("<|im_start|><|im_end|>", parse_special=True) == [1, 2]
    assert (real.bos_token_id, real.eos_token_id, real.adds_bos) == (1, 2, False)
    assert real.vocab_size == 49_152
    assert real.encode("The capital of France is") == [504, 3575, 282, 4649, 314]
    rendered = real.render_chat(MESSAGES)
    assert rendered.startswith("<|im_start|>system\nYou are a helpful AI assistant named SmolLM")
    assert rendered.endswith("Is the sky blue?<|im_end|>\n<|im_start|>assistant\n")


@pytest.mark.real_model
@settings(max_examples=150, deadline=None)
@given(text=st.text(max_size=200))
def test_the_default_tokenizer_is_exact(real: Tokenizer, text: str) -> None:
    """Any text survives the default tokenizer byte for byte, or is refused."""
    lost = set(text.encode()) & {0x04, 0x06, 0x13, 0x14, 0x16, 0x1D, 0xF1, 0xF2}
    if lost:
        with pytest.raises(InvalidQuery, match="no token for byte"):
            real.encode(text)
    else:
        assert b"".join(map(real.token_bytes, real.encode(text))) == text.encode()
