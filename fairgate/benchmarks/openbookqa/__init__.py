"""OpenBookQA: questions of elementary science."""
