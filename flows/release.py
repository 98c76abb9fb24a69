"""`fairgate release`: run the whole pipeline, one Prefect task per DVC stage."""

from __future__ import annotations

import argparse
import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

from fairgate.support.errors import FairgateError
from fairgate.support.exit_codes import ExitCode
from fairgate.support.library_errors import translated
from fairgate.support.names import check_model
from fairgate.support.params import pick, read_params
from fairgate.support.strict_yaml import is_plain_text
from flows import cli
from flows.dvc_runner import TOKEN, StageBug, stage_names
from flows.lock import lock_project
from flows.outcome import closing_words, read_verdict
from flows.preflight import check_params, check_registry
from flows.server import prefect_server, require_schedule

if TYPE_CHECKING:
    from prefect.client.schemas.objects import State

_PREFECT = "look at the server in PREFECT_API_URL, or at .fairgate/prefect-server.log if it is our own; then run again"


def main(arguments: argparse.Namespace, root: Path) -> ExitCode | None:
    if arguments.serve or arguments.cron is not None:
        _serve(arguments, root)
        return None
    with lock_project(root) as token:
        if arguments.model:
            set_model(root, arguments.model)
        _check(root)
        os.environ[TOKEN] = token  # marks our own Prefect server too
        with prefect_server(root, services=False):
            # Prefect reads its home and its logging when it is imported.
            from flows.deployments import release

            with translated("Prefect could not run the release", remedy=_PREFECT):
                state = cast("State[Any]", release(str(root), return_state=True))
    _require_completed(state)
    words, code = closing_words(read_verdict(root))
    print(f"\n{words}")
    return code


def _check(root: Path) -> None:
    """Say before a server starts what would stop a stage, the registration or DVC."""
    check_params(root)
    check_registry(root)
    stage_names(root)


def _require_completed(state: State[Any]) -> None:
    """Raise what the flow failed with: a stage's error, or an exception of the flow itself."""
    from flows.deployments import BUG, ERROR

    if state.is_completed():
        return
    if state.name in (BUG, ERROR):
        raise (StageBug if state.name == BUG else FairgateError)(state.message or "the release failed")
    state.result()
    raise RuntimeError(state.message)


def _serve(arguments: argparse.Namespace, root: Path) -> None:
    """Keep running, and release on a schedule or when Prefect is asked to."""
    if arguments.cron is not None:
        require_schedule(arguments.cron)
    if arguments.model:
        with lock_project(root):
            set_model(root, arguments.model)
    _check(root)
    with prefect_server(root, services=True):
        from flows.deployments import release

        with translated("Prefect could not serve the release", remedy=_PREFECT):
            release.serve(name="release", cron=arguments.cron, parameters={"root": str(root)}, limit=1)


def set_model(root: Path, model: str) -> None:
    """Write `model:` of params.yaml; its comments stay.

    Raises:
        FairgateError: `model` cannot name a model. Nothing is written.
    """
    from dvc.utils.serialize import modify_yaml
    from ruamel.yaml.scalarstring import DoubleQuotedScalarString

    check_model(model, where="--model")
    path = root / "params.yaml"
    if pick(read_params(path), "model", where=str(path)) != model:
        with modify_yaml(str(path)) as params:
            # DVC quotes what YAML 1.2 takes for no text; other readers need more quotes than that.
            params["model"] = model if is_plain_text(model) else DoubleQuotedScalarString(model)


def parser(prog: str) -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog=prog, description="Run the whole pipeline and print its verdict, which is the exit code too.")
    parser.add_argument("--model", help="base model: a name of the manifest, a folder, or owner/name@commit; written to params.yaml")
    parser.add_argument("--cron", help="keep running and release on this schedule, e.g. '0 3 * * 1'")
    parser.add_argument("--serve", action="store_true", help="keep running and release when Prefect is asked to")
    return parser


def run(argv: list[str] | None = None, prog: str = "python -m flows.release") -> int:
    return cli.run(main, parser(prog), argv)


if __name__ == "__main__":
    sys.exit(run())
