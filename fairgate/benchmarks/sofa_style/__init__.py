"""Probes in the style of SoFa: the same stereotype said of many identities."""
