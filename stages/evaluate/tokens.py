"""Prompts to token ids by the conventions of lm-eval, so that log-likelihoods agree."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any

from lm_eval.utils import get_rolling_token_windows, make_disjoint_window

from fairgate.support.digests import sha256_json
from fairgate.support.errors import FairgateError
from fairgate.support.log import log
from fairgate.support.tokens import bare_ids, encode, own_tokens, start_token
from stages.evaluate.task import Item, Task

# Items longer than the context are left out and counted, up to this share of a task.
MAX_TOO_LONG = 0.01
_CHUNK = 8192  # items tokenized in one call, which bounds the memory for their tokens
_Ids = dict[str, tuple[int, ...]]
# A token with a space behind something that is no white space. Byte-level tokenizers spell a space
# Ġ and other white space by the letters after it here; others spell a space ▁.
_SPANS_WORDS = re.compile(r"[^\sĠĊĉċčČ▁][ Ġ▁]")


@dataclass(frozen=True)
class Request:
    """Token ids: `option` is scored after `context`, which is never empty.

    greedy: score the likeliest token at each place of the option instead. If both sums are equal,
        greedy decoding would write the option.
    """

    context: tuple[int, ...]
    option: tuple[int, ...]
    greedy: bool = False


@dataclass(frozen=True)
class Encoded:
    """An item with one request per option; `prompt_hash` is of its texts or a window's ids."""

    item: Item
    requests: tuple[Request, ...]
    prompt_hash: str


class Encoder:
    """Encodes items for one model.

    An empty context becomes the start token (BOS, else EOS). Any other context gets what the
    tokenizer puts in front by itself. What it appends is left out: no text ends here. Spaces at the
    end of a context move into the option. A token belongs to the option if it covers any of its
    characters (see `_starts`). Items of another `form` than `options` follow their own rule.

    Args:
        tokenizer: of the model.
        context: number of positions that the model has.
    Raises:
        FairgateError: the tokenizer has no start token.
    """

    def __init__(self, tokenizer: Any, context: int) -> None:
        self.tokenizer, self.context = tokenizer, context
        start = start_token(tokenizer)
        if start is None:
            raise FairgateError(
                "the tokenizer has neither BOS nor EOS", where="tokenizer", remedy="a sentence needs a start token in front"
            )
        self.start = int(start)
        front, appended = own_tokens(tokenizer)
        self.front, self.appended = tuple(front), tuple(appended)
        # Then no token runs over a space, and a text can be tokenized in parts.
        self.keeps_words = not any(map(_SPANS_WORDS.search, tokenizer.get_vocab()))

    def encode(self, items: Sequence[Item], task: str) -> list[Encoded]:
        """One request per option.

        Items longer than the context are left out, and the log says how many.

        Raises:
            FairgateError: an option without a token, or more than MAX_TOO_LONG of the items are
                longer than the context (no item is ever cut).
        """
        encoded: list[Encoded] = []
        for start in range(0, len(items), _CHUNK):
            part = items[start : start + _CHUNK]
            ids = self._tokenize(part)
            encoded += [self._encoded(item, ids, task) for item in part]
        for e in encoded:
            for k, request in enumerate(e.requests):
                if not request.option:
                    what, where = f"option {k} of item {e.item.id!r} has no token", f"task {task}"
                    raise FairgateError(what, where=where, remedy="correct the task's data: an empty text has no likelihood")
        # The last token is only predicted, never read, so context + option may be one longer.
        kept = [e for e in encoded if all(len(r.context) + len(r.option) - 1 <= self.context for r in e.requests)]
        if too_long := len(encoded) - len(kept):
            ids_kept = {e.item.id for e in kept}
            first = next(e.item.id for e in encoded if e.item.id not in ids_kept)
            where = f"task {task}"
            what = f"{too_long} of {len(encoded)} items exceed the context of {self.context} tokens; first: item {first!r}"
            if too_long > MAX_TOO_LONG * len(encoded):
                remedy = (
                    f"take the task out of evaluate.tasks for this model: no prompt is cut, and at most {MAX_TOO_LONG:.0%} may be left out"
                )
                raise FairgateError(what, where=where, remedy=remedy)
            log.warning("%s: %s; left out", where, what)
        return kept

    def windows(self, task: Task) -> list[Encoded]:
        """The text of a perplexity task in windows.

        Each token is predicted once, the first of a window from the token before it.
        """
        assert task.window is not None
        encoded = []
        for text in task.items:
            (ids,) = encode(self.tokenizer, [text.prompts[0][1]])
            rolling = get_rolling_token_windows(
                token_list=ids, prefix_token=self.start, max_seq_len=min(task.window, self.context), context_len=1
            )
            for number, pair in enumerate(rolling):
                context, scored = make_disjoint_window(pair)
                if len(task.items) == 1:
                    item = replace(text, id=f"window-{number}", cluster=f"window-{number}", chars=(len(self.tokenizer.decode(scored)),))
                else:  # pages: the first window carries the page's count of words
                    item = replace(text, id=f"{text.id}-window-{number}", chars=text.chars if number == 0 else (0,))
                encoded.append(Encoded(item, (Request(tuple(context), tuple(scored)),), sha256_json([context, scored])))
        return encoded

    def _tokenize(self, items: Sequence[Item]) -> _Ids:
        """The tokens of every text that the items need."""
        tokens = self._tokens_of(text for item in items for text in _texts(item))
        joined: list[str] = []
        for item in items:
            for context, options in _options_by_context(item).items():
                bare, tail = _cut(context)
                rests = [(context + option)[len(bare) - len(tail) :] for option in options]
                front, end, first = tokens[bare], tokens[tail], tokens[context + options[0]]
                head = front[: len(front) - len(end)]
                # The first option shows whether the text can be cut here. If not, every option is
                # tokenized as a whole.
                if self.keeps_words and tail and front == head + end and first == head + tokens[rests[0]]:
                    tokens |= {context + option: head + tokens[rest] for option, rest in zip(options, rests, strict=True)}
                else:
                    joined += [context + option for option in options[1:]]
        return tokens | self._tokens_of(joined)

    def _tokens_of(self, texts: Iterable[str]) -> _Ids:
        """Every text tokenized once, without special tokens."""
        different = list(dict.fromkeys(texts))
        return dict(zip(different, map(tuple, bare_ids(self.tokenizer, different)), strict=True))

    def _encoded(self, item: Item, ids: _Ids, task: str) -> Encoded:
        kept = tuple(range(len(item.prompts)))
        if item.form == "bare":
            whole = [self.front + ids[option] for _, option in item.prompts]
            requests = tuple(Request(text[:1], text[1:]) for text in whole)
        elif item.form == "next_token":
            context = self._context(ids[item.prompts[0][0]])
            spellings = [ids[option] for _, option in item.prompts]
            kept = tuple(k for k, spelling in enumerate(spellings) if len(spelling) == 1 and spelling not in spellings[:k])
            if {item.chars[k] for k in kept} != set(item.chars):
                raise FairgateError(
                    "no spelling of an answer is a single token of this tokenizer",
                    where=f"task {task}",
                    remedy="take the task out of evaluate.tasks for this model: the first token does not tell its answer",
                )
            requests = tuple(Request(context, spellings[k]) for k in kept)
        else:
            behind = {context: self._behind(context, options, ids) for context, options in _options_by_context(item).items()}
            requests = tuple(behind[c][o] if c else self._sentence(ids[o]) for c, o in item.prompts)
            if item.form == "greedy":
                requests = (requests[0], replace(requests[1], greedy=True))
        return Encoded(replace(item, chars=tuple(item.chars[k] for k in kept)), requests, sha256_json(item.prompts))

    def _context(self, ids: tuple[int, ...]) -> tuple[int, ...]:
        """What stands before an option: never nothing."""
        return self.front + ids or (self.start,)

    def _sentence(self, ids: tuple[int, ...]) -> Request:
        return Request((self.start,), ids[1:] if ids[:1] == (self.start,) else ids)

    def _behind(self, context: str, options: Sequence[str], ids: _Ids) -> dict[str, Request]:
        """The request of every option after this context, which is not empty."""
        bare, texts = context.rstrip(), [context + option for option in options]
        front = ids[bare]
        if all(ids[text][: len(front)] == front for text in texts):
            shared = self._context(front)  # in memory too
            return {option: Request(shared, ids[text][len(front) :]) for option, text in zip(options, texts, strict=True)}
        starts = self._starts(texts, len(bare))
        return {
            option: Request(self._context(ids[text][:start]), ids[text][start:] if option else ())
            for option, text, start in zip(options, texts, starts, strict=True)
        }

    def _starts(self, texts: Sequence[str], boundary: int) -> list[int]:
        """The first token of each text that is scored, where tokens run over the boundary.

        Such a token belongs to the option. All options are scored from the same character on, the
        last one up to the boundary where a token begins in each of them: otherwise the likelihood
        of one would hold a piece of the context that another's does not.
        """
        if not self.tokenizer.is_fast:
            raise FairgateError(
                f"a token runs over the end of the prompt {texts[0][:boundary][-40:]!r}",
                where="tokenizer",
                remedy="only a fast tokenizer (tokenizer.json) tells which characters a token covers: save the model with one",
            )
        spans = self.tokenizer(list(texts), add_special_tokens=False, return_offsets_mapping=True, verbose=False).offset_mapping
        edges = set.intersection(*({0, *(end for _, end in text)} for text in spans))
        cut = max(edge for edge in edges if edge <= boundary)
        return [next((place for place, (_, end) in enumerate(text) if end > cut), len(text)) for text in spans]


def _texts(item: Item) -> Iterator[str]:
    """Texts of an item to tokenize. Of the options after one context, only the first is tokenized
    as a whole.
    """
    for context, option in item.prompts:
        if item.form == "next_token":
            yield from (context, option)
        elif item.form == "bare" or not context:
            yield option
    for context, options in _options_by_context(item).items():
        bare, tail = _cut(context)
        yield from (bare, tail, context + options[0])
        yield from ((context + option)[len(bare) - len(tail) :] for option in options)


def _options_by_context(item: Item) -> dict[str, list[str]]:
    """Options by context, where the context is not empty and both are tokenized together."""
    options: dict[str, list[str]] = {}
    if item.form not in ("bare", "next_token"):
        for context, option in item.prompts:
            if context:
                options.setdefault(context, []).append(option)
    return options


def _cut(context: str) -> tuple[str, str]:
    """A context without spaces at its end, and its last word with the space before it, if any."""
    bare = context.rstrip()
    place = bare.rfind(" ")
    return bare, bare[place:] if place > 0 and not bare[place - 1].isspace() else ""
