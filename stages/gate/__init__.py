"""The gate's door: files in, fairgate.decision decides, verdict.json out."""
