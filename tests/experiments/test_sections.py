"""Sections of one document: each is replaced alone, and whoever writes the rest keeps them."""

from __future__ import annotations

from pathlib import Path

from experiments.sections import kept, put


def test_a_section_is_appended_then_replaced_and_the_rest_stays(tmp_path: Path) -> None:
    path = tmp_path / "results.md"
    path.write_text("# Results\n\nText.\n")
    put(path, "one", "first")
    put(path, "two", "second\n")
    put(path, "one", "first again")
    text = path.read_text()
    assert text.startswith("# Results\n\nText.\n")
    assert text.index("first again") < text.index("second")
    assert "first\n" not in text
    path.write_text("# New\n" + kept(path))
    assert path.read_text() == ("# New\n\n<!-- one -->\nfirst again\n<!-- /one -->\n\n<!-- two -->\nsecond\n<!-- /two -->\n")


def test_a_document_is_made_where_there_is_none(tmp_path: Path) -> None:
    assert kept(tmp_path / "absent.md") == ""
    put(tmp_path / "new.md", "one", "text")
    assert (tmp_path / "new.md").read_text() == "<!-- one -->\ntext\n<!-- /one -->\n"
