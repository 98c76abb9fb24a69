"""Report: what was measured and decided.

One static page, files for `dvc plots`, and the candidate's model card.
"""
