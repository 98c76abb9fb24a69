"""`fairgate check MODEL`: whether a model folder is fit, in seconds."""

from __future__ import annotations

import argparse
import json
from collections.abc import Sequence
from pathlib import Path

from fairgate.model_folder.check import check_folder
from fairgate.model_folder.findings import Report
from fairgate.support.errors import FairgateError
from fairgate.support.exit_codes import ExitCode


def run(argv: Sequence[str], prog: str) -> ExitCode:
    """Print what the check finds; `negative` if the model is unfit."""
    parser = argparse.ArgumentParser(prog=prog, description="Check a model folder: files, configuration, tensors, tokenizer.")
    parser.add_argument("model", type=Path, metavar="MODEL", help="a folder that holds a Hugging Face model")
    parser.add_argument("--values", action="store_true", help="also read every weight once, for NaN, infinity and overflow")
    parser.add_argument("--bits", type=int, default=4, choices=(2, 3, 4, 8), help="the fewest bits that a weight will be rounded to (4)")
    parser.add_argument("--json", action="store_true", help="print JSON")
    arguments = parser.parse_args(argv)
    report = check_folder(arguments.model.expanduser(), where=str(arguments.model), values=arguments.values, bits=arguments.bits)
    print(json.dumps(_as_data(report), indent=2, ensure_ascii=False) if arguments.json else _as_text(report))
    return ExitCode.negative if report.faults else ExitCode.done


def _as_data(report: Report) -> dict[str, object]:
    def listed(errors: Sequence[FairgateError]) -> list[dict[str, str]]:
        return [{"what": error.what, "where": error.where, "remedy": error.remedy} for error in errors]

    return {
        "model": report.model,
        "fit": not report.faults,
        "faults": listed(report.faults),
        "notes": listed(report.notes),
        "facts": report.facts,
    }


def _as_text(report: Report) -> str:
    lines = [f"{name}: {value:,}" if isinstance(value, int) else f"{name}: {value}" for name, value in report.facts.items()]
    lines += [f"note: {str(error).replace(chr(10), chr(10) + '      ')}" for error in report.notes]
    lines += [f"FAULT: {str(error).replace(chr(10), chr(10) + '       ')}" for error in report.faults]
    verdict = f"unfit: {len(report.faults)} faults" if report.faults else "fit"
    return "\n".join([*lines, f"{report.model}: {verdict.replace('1 faults', '1 fault')}"])
