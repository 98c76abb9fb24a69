"""Dataset hooks of WikiText-2."""

from __future__ import annotations

import re
from itertools import pairwise
from typing import Any

from datasets import Dataset
from lm_eval.tasks.wikitext.preprocess_wikitext import wikitext_detokenizer

from fairgate.benchmarks.families.reading import (
    as_test,
    given,
    identity,
    paths,
    read_rows,
    require_count,
)
from fairgate.support.files import read_text


def plain_text(**metadata: Any) -> dict[str, Dataset]:
    """One document: the file's text as it stands."""
    (path,) = paths(metadata)
    text = read_text(path)
    require_count(text.splitlines(), metadata, path)
    return as_test([identity("0", "0") | {"text": text}], metadata)


def pages(**metadata: Any) -> dict[str, Dataset]:
    """WikiText by page, detokenized as lm-eval does; `words` counts those of the page before that.

    A page begins at a line ` = Title = `; sections have more than one `=`.
    """
    (path,), hub = given(metadata)
    if hub:
        originals = [line["page"] for line in read_rows(path)]
    else:
        lines = read_text(path).split("\n")
        starts = [number for number, line in enumerate(lines) if re.fullmatch(r"= [^=](.*[^=])? =", line.strip())]
        bounds = [0, *starts, len(lines)]
        parts = ["\n".join(lines[first:last]) for first, last in pairwise(bounds)]
        originals = [part for part in parts if part.strip()]
    require_count(originals, metadata, path)
    rows = []
    for number, page in enumerate(originals):
        fields = {"page": page, "text": wikitext_detokenizer({"page": page}), "words": len(re.split(r"\s+", page))}
        rows.append(identity(f"page-{number:02d}", f"page-{number:02d}") | fields)
    return as_test(rows, metadata)


def per_word(doc: dict[str, Any], results: tuple[float]) -> dict[str, tuple[float, int]]:
    """For the plain `lm_eval` command: the log-likelihood of a page with what it is divided by."""
    return {"word_perplexity": (results[0], doc["words"])}
