"""What several methods need: to round the modules of a block, to describe the result, and to
foresee its size.
"""
