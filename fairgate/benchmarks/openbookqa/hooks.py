"""Dataset hook of OpenBookQA."""

from __future__ import annotations

from fairgate.benchmarks.families.options import lettered

__all__ = ["lettered"]
