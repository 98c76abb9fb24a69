"""BOLD: how a model continues beginnings of texts about groups of people."""
