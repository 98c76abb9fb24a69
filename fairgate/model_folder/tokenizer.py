"""Whether the tokenizer that transformers loads is that of the folder, and fits the model."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from fairgate.model_folder.architecture import reading
from fairgate.model_folder.findings import Finding, note
from fairgate.support.errors import BadRecord, FairgateError
from fairgate.support.tokens import own_tokens, start_token

# Case, digits, blanks, line ends, other scripts and signs: what pre-tokenizers and normalizers
# treat apart.
PROBE = "Yes or no.  The WINDOW was 1234.5 m² wide,\n\n\tisn't it?  Größe, ﬁne: naïve café – 東京 и Москва! 🙂 x_y = {a: [1]} "
_FILE = "tokenizer.json"


def load_tokenizer(folder: Path) -> Any:
    """The tokenizer as transformers loads it.

    Raises:
        BadRecord: transformers cannot read it.
    """
    from transformers import AutoTokenizer

    where = f"{_FILE} or tokenizer_config.json" if (folder / _FILE).is_file() else "the tokenizer"
    try:
        with reading("read the tokenizer", where=where):
            return AutoTokenizer.from_pretrained(folder, trust_remote_code=False)
    except FairgateError as error:
        if (folder / _FILE).is_file():
            raise
        remedy = f"save it as {_FILE} where it loads: `AutoTokenizer.from_pretrained(...).save_pretrained(...)`"
        raise BadRecord(error.what, where=error.where, remedy=remedy) from None


def check_tokenizer(folder: Path, tokenizer: Any, rows: int | None) -> list[Finding]:
    """Compare the tokenizer with its file and with the model.

    Args:
        folder: the model folder.
        tokenizer: as transformers loads it.
        rows: of the embedding. None means they are not known.

    Raises:
        FairgateError: the tokenizer does not encode.
    """
    with reading("use the tokenizer", where=_FILE):
        if not tokenizer.encode(PROBE, add_special_tokens=False):
            what = "the tokenizer gives a probe text no tokens"
            return [
                Finding(BadRecord(what, where=_FILE, remedy="correct its normalizer or its post-processor, one of which drops the text"))
            ]
        findings = [*_against_file(folder / _FILE, tokenizer)] if (folder / _FILE).is_file() else []
        if rows is not None:
            findings += _against_rows(tokenizer, _stored_vocabulary(folder / _FILE), rows)
        return [*findings, *_special_tokens(tokenizer), *_template(tokenizer)]


def _against_file(path: Path, tokenizer: Any) -> Iterator[Finding]:
    from tokenizers import Tokenizer

    raw = Tokenizer.from_file(str(path))
    raw.no_truncation()
    raw.no_padding()
    if dropout := getattr(raw.model, "dropout", None):
        what = f"the tokenizer leaves out merges at random (dropout {dropout}): a text has other tokens each time"
        yield Finding(BadRecord(what, where=_FILE, remedy='write "dropout": null into its model; it is meant for training'))
        return
    stored = list(raw.encode(PROBE, add_special_tokens=False).ids)
    loaded = list(tokenizer.encode(PROBE, add_special_tokens=False))
    if loaded == stored:
        return
    at = next((i for i, (a, b) in enumerate(zip(stored, loaded, strict=False)) if a != b), min(len(stored), len(loaded)))
    what = (
        f"{type(tokenizer).__name__}, the class that tokenizer_config.json names, tokenizes otherwise than {_FILE}: "
        f"{len(loaded)} tokens instead of {len(stored)} of a probe text, which differ from token {at} on"
    )
    remedy = (
        f'if {_FILE} is right, write "tokenizer_class": "PreTrainedTokenizerFast" into tokenizer_config.json; '
        "if the class is right, load the tokenizer with transformers and save it again"
    )
    yield Finding(BadRecord(what, where="tokenizer_config.json", remedy=remedy))


def _stored_vocabulary(path: Path) -> set[str]:
    """Every token of tokenizer.json; empty without that file."""
    from tokenizers import Tokenizer

    return set(Tokenizer.from_file(str(path)).get_vocab(with_added_tokens=True)) if path.is_file() else set()


def _against_rows(tokenizer: Any, stored: set[str], rows: int) -> Iterator[Finding]:
    beyond = {token: number for token, number in tokenizer.get_vocab().items() if number >= rows}
    front, appended = own_tokens(tokenizer)
    if far := [number for number in (*front, *appended) if number >= rows]:
        what = f"the post-processor adds the token number {far[0]} to every text, beyond the {rows} rows of the embedding"
        remedy = "correct the `ids` of its special tokens, or use the tokenizer that the model was trained with"
        yield Finding(BadRecord(what, where=_FILE, remedy=remedy))
    # Padding is masked. What only the tokenizer's class adds is in no text.
    special = [token for token in beyond if token == tokenizer.pad_token or (stored and token not in stored)]
    if special:
        listed = ", ".join(f"{token!r}, number {beyond[token]}" for token in special)
        what = f"special tokens beyond the {rows} rows of the embedding: {listed}"
        yield note(f"{what}; padding is masked, and no other text should hold them", where=_FILE)
    others = sorted((number, token) for token, number in beyond.items() if token not in special)
    if others:
        number, token = others[0]
        what = f"{len(others)} tokens lie beyond the {rows} rows of the embedding, first {token!r}, number {number}"
        remedy = "resize the embedding (`resize_token_embeddings`) and save the model, or use the tokenizer that it was trained with"
        yield Finding(BadRecord(what, where=_FILE, remedy=remedy))


def _special_tokens(tokenizer: Any) -> Iterator[Finding]:
    if start_token(tokenizer) is None:
        remedy = "name a bos_token or an eos_token in tokenizer_config.json"
        yield Finding(FairgateError("the tokenizer has neither a start nor an end token", where="tokenizer_config.json", remedy=remedy))
    _, appended = own_tokens(tokenizer)
    if appended:
        ends = ", ".join(map(repr, tokenizer.convert_ids_to_tokens(appended)))
        yield note(f"the tokenizer ends every text with {ends}; prompts, options and texts are encoded without it", where=_FILE)


def _template(tokenizer: Any) -> Iterator[Finding]:
    if not tokenizer.chat_template:
        return
    turns = [{"role": "user", "content": "Hello"}]
    for name, asked in {"user": turns, "user and assistant": [*turns, {"role": "assistant", "content": "Hi"}]}.items():
        try:
            tokenizer.apply_chat_template(asked, tokenize=False)
        except Exception as error:  # a template is a program of the model's author, and raises what it likes
            what = f"the chat template does not render the roles {name}: {' '.join(str(error).split())[:200]}"
            yield note(what, where="chat_template", remedy="correct the template, or leave tasks with `chat: true` out")
            return
