from __future__ import annotations

from pathlib import Path

import pytest

from fairgate.support.errors import BadRecord, FairgateError
from flows.ledger import FIRST, BrokenLedger, Ledger


@pytest.fixture
def book(tmp_path: Path) -> Ledger:
    ledger = Ledger(tmp_path / "ledger.jsonl")
    for version, before in (("1", None), ("2", "1"), ("3", "2")):
        ledger.append(action="promote", model="m", before=before, after=version, actor="eve", reason="good", verdict_digest="v" * 64)
    return ledger


def test_entries_form_a_chain(book: Ledger) -> None:
    entries = book.entries()
    assert [entry.former_digest for entry in entries] == [FIRST, entries[0].digest, entries[1].digest]
    assert book.aliases("m") == {"champion": "3", "previous": "2"}
    assert book.aliases("other") == {}


@pytest.mark.parametrize(
    ("change", "line", "what"),
    [
        (lambda lines: [lines[0], lines[1].replace("eve", "bob"), lines[2]], 2, "changed after it was written"),
        (lambda lines: [lines[0], lines[2]], 2, "does not follow"),
        (lambda lines: lines[1:], 1, "does not follow"),
        (lambda lines: [*lines[:2], lines[2][:40]], 3, "not an entry"),
    ],
)
def test_tampering_is_found_and_blocks_the_next_entry(book: Ledger, change: object, line: int, what: str) -> None:
    lines = change(book.path.read_text().splitlines())  # type: ignore[operator]
    book.path.write_text("\n".join(lines) + "\n")
    with pytest.raises(BadRecord, match=what) as error:
        book.entries()
    assert f"ledger.jsonl:{line}" in str(error.value)
    with pytest.raises(BadRecord):
        book.append(action="promote", model="m", before="3", after="4", actor="eve", reason="x", verdict_digest="v" * 64)
    assert len(book.path.read_text().splitlines()) == len(lines)


@pytest.mark.parametrize("separator", ["\u0085", "\u2028", "\u2029", "\x0b", "\x1e"])
def test_an_entry_is_one_line_whatever_it_says(book: Ledger, separator: str) -> None:
    said = f"good{separator}enough"
    book.append(action="promote", model="m", before="3", after="4", actor="eve", reason=said, verdict_digest="v" * 64)
    assert book.entries()[-1].reason == said


def test_a_line_that_is_no_text_is_named(book: Ledger) -> None:
    book.path.write_bytes(book.path.read_bytes() + b"\xff\n")
    with pytest.raises(BrokenLedger, match=r"ledger\.jsonl:4: not an entry"):
        book.entries()


def test_what_is_no_file_is_no_ledger(tmp_path: Path) -> None:
    for path in (tmp_path, Path(), Path("/dev/null")):
        with pytest.raises(FairgateError, match="not a file"):
            Ledger(path)
