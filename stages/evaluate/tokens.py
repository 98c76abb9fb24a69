"""Prompts to token ids, by the conventions of lm-eval, so that both give the same log-likelihoods."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

from lm_eval.utils import get_rolling_token_windows, make_disjoint_window

from stages.common.digests import sha256_json
from stages.common.errors import FairgateError
from stages.evaluate.benchmark import Benchmark, Item


@dataclass(frozen=True)
class Request:
    """Token ids: `option` is scored behind `context`, which is never empty.

    best: instead of the tokens of `option` the likeliest token at each of their places is scored: equal sums are a greedy match.
    """

    context: tuple[int, ...]
    option: tuple[int, ...]
    best: bool = False


@dataclass(frozen=True)
class Encoded:
    """An item with one request per option; `prompt_hash` names the texts (of a window: its token ids)."""

    item: Item
    requests: tuple[Request, ...]
    prompt_hash: str


class Encoder:
    """Encodes items for one model.

    An empty context becomes the start token: BOS, else EOS. Another context gets what the tokenizer adds by itself. Spaces at the
    end of a context move into the option. An option is what the whole text has beyond the tokens of its context. Items of another
    `form` than `options` follow their own rule.
    """

    def __init__(self, tokenizer: Any, context: int) -> None:
        self.tokenizer, self.context = tokenizer, context
        start = tokenizer.bos_token_id if tokenizer.bos_token_id is not None else tokenizer.eos_token_id
        if start is None:
            raise FairgateError(
                "the tokenizer has neither BOS nor EOS", where="tokenizer", remedy="a sentence needs a start token in front"
            )
        self.start = int(start)

    def encode(self, items: list[Item], benchmark: str) -> list[Encoded]:
        """One request per option.

        Raises:
            FairgateError: prompts longer than the model's context (none is ever cut), or an option without a token.
        """
        encoded = [self._encoded(item, benchmark) for item in items]
        # The last token is only predicted, never read: context + option may be one longer than the model's context.
        long = [e.item.id for e in encoded if any(len(r.context) + len(r.option) - 1 > self.context for r in e.requests)]
        if long:
            raise FairgateError(
                f"{len(long)} of {len(items)} prompts exceed the context of {self.context} tokens; first: item {long[0]!r}",
                where=f"task {benchmark}",
                remedy="take the task out of evaluate.tasks for this model: a cut prompt is another prompt",
            )
        empty = [e.item.id for e in encoded if not all(r.option for r in e.requests)]
        if empty:
            raise FairgateError(f"an option of item {empty[0]!r} has no token", where=f"task {benchmark}", remedy="correct the task's data")
        return encoded

    def windows(self, benchmark: Benchmark) -> list[Encoded]:
        """The text of a perplexity task in windows; each token is predicted once, the first of a window from the token before it."""
        assert benchmark.window is not None
        encoded = []
        for text in benchmark.items:
            ids = self.tokenizer.encode(text.prompts[0][1], verbose=False)  # longer than the context on purpose
            rolling = get_rolling_token_windows(
                token_list=ids, prefix_token=self.start, max_seq_len=min(benchmark.window, self.context), context_len=1
            )
            for number, pair in enumerate(rolling):
                context, scored = make_disjoint_window(pair)
                if len(benchmark.items) == 1:
                    item = replace(text, id=f"window-{number}", cluster=f"window-{number}", chars=(len(self.tokenizer.decode(scored)),))
                else:  # pages: what a page counts stands in its first window
                    item = replace(text, id=f"{text.id}-window-{number}", chars=text.chars if number == 0 else (0,))
                encoded.append(Encoded(item, (Request(tuple(context), tuple(scored)),), sha256_json([context, scored])))
        return encoded

    def _encoded(self, item: Item, benchmark: str) -> Encoded:
        kept = tuple(range(len(item.prompts)))
        if item.form == "bare":
            whole = [tuple(self.tokenizer.encode(option)) for _, option in item.prompts]
            requests = tuple(Request(ids[:1], ids[1:]) for ids in whole)
        elif item.form == "next_token":
            context = tuple(self.tokenizer.encode(item.prompts[0][0]))
            spelt = [tuple(self.tokenizer.encode(option, add_special_tokens=False)) for _, option in item.prompts]
            kept = tuple(k for k, ids in enumerate(spelt) if len(ids) == 1 and ids not in spelt[:k])
            if {item.chars[k] for k in kept} != set(item.chars):
                raise FairgateError(
                    "no spelling of an answer is a single token of this tokenizer",
                    where=f"task {benchmark}",
                    remedy="take the task out of evaluate.tasks for this model: the first token does not tell its answer",
                )
            requests = tuple(Request(context, spelt[k]) for k in kept)
        else:
            requests = tuple(self._request(c, o) for c, o in item.prompts)
            if item.form == "greedy":
                requests = (requests[0], replace(requests[1], best=True))
        return Encoded(replace(item, chars=tuple(item.chars[k] for k in kept)), requests, sha256_json(item.prompts))

    def _request(self, context: str, option: str) -> Request:
        if not context:
            ids = self.tokenizer.encode(option, add_special_tokens=False)
            front = [] if ids[:1] == [self.start] else [self.start]
            return Request(tuple((front + ids)[:1]), tuple((front + ids)[1:]))
        bare = context.rstrip()
        whole = self.tokenizer.encode(context + option)
        front = self.tokenizer.encode(bare)
        return Request(tuple(whole[: len(front)]), tuple(whole[len(front) :]))
