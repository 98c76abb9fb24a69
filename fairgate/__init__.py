"""The library of fairgate: what its stages and flows share, importable without either."""
