"""The ways to choose codes: every module of this folder that registers a `Method` is one of them.

A new method is one new file here; nothing else changes (examples/add_a_method). METHODS is complete
as soon as anything below this package is imported.

    base.py          what a method is, and what it shares with the others: the settings of the grid
    none, rtn, gptq, fair_gptq, learned     the methods
    closed_form/     how gptq and fair_gptq go through a model
    shared/          what several methods need to round a module and to describe the result
"""

from importlib import import_module
from pkgutil import iter_modules

from stages.quantize.methods.base import METHODS, Method, Recipe

for _module in iter_modules(__path__):
    import_module(f"{__name__}.{_module.name}")

__all__ = ["METHODS", "Method", "Recipe"]
