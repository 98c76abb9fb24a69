"""Report: what was measured and decided, as one static page, files for `dvc plots`, and the candidate's model card."""
