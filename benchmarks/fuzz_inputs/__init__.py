"""Inputs of every kind, mutated at random: none may end in anything but an answer or an error.

    python -m benchmarks.fuzz_inputs --cases 0:10000   # goes on where it stopped; writes the record
    python -m benchmarks.fuzz_inputs --case 4711       # one case again, with its traceback

A case is one number. It decides the kind of input, what is mutated, and how.
"""
