"""The flows of prefect.yaml, thin around plain functions.

Only this module and `flows/server.py` import prefect.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from prefect import flow, task
from prefect.artifacts import create_markdown_artifact, create_table_artifact
from prefect.cache_policies import NO_CACHE
from prefect.client.schemas.objects import State, TaskRun
from prefect.states import Failed
from prefect.tasks import Task

from fairgate.support.errors import FairgateError
from fairgate.support.exit_codes import ExitCode
from flows import dvc_runner, promotion
from flows.dvc_runner import StageResult
from flows.lock import lock_project
from flows.outcome import lost, read_verdict, summary, verdict_table
from flows.preflight import check_registry

REGISTER = "register"
# Names of failed states. A state named otherwise holds an unexpected exception.
BUSY, ERROR, BUG = "LockBusy", "Error", "Bug"


async def _is_infrastructure(task: Task[Any, Any], run: TaskRun, state: State[Any]) -> bool:
    """True if a retry may help: a lock was held. A stage that failed fails again."""
    return state.name == BUSY


@task(cache_policy=NO_CACHE, persist_result=False, retries=5, retry_delay_seconds=10, retry_condition_fn=_is_infrastructure)
def run_stage(root: str, stage: str, token: str, force: bool = False) -> Any:
    """One DVC stage; DVC is the only cache.

    A failure is returned as a state, because its message is for the user and a traceback is not.
    """
    try:
        return dvc_runner.run_stage(Path(root), stage, force=force, token=token)
    except dvc_runner.LockBusy as error:
        return Failed(name=BUSY, message=str(error))
    except FairgateError as error:
        return _failed(error)


def _failed(error: FairgateError) -> State[Any]:
    return Failed(name=BUG if error.exit_code is ExitCode.bug else ERROR, message=str(error))


@flow(name="release", persist_result=False)
def release(root: str = ".") -> Any:
    """Run every DVC stage in the DAG's order, then compare the receipt with the live registry.

    A verdict that does not approve is a result, not an error.
    """
    folder = Path(root).resolve()
    try:
        with lock_project(folder) as token:
            check_registry(folder)  # at every run of a schedule
            results = []
            for stage in dvc_runner.stage_names(folder):
                results.append(_run(folder, stage, token))
            if missing := lost(folder):
                print(f"the registry has lost {', '.join(missing)}; registering again")
                results.append(_run(folder, REGISTER, token, force=True))
        print(summary(folder, results))
        create_markdown_artifact(verdict_table(read_verdict(folder)), key="verdict")
        create_table_artifact([vars(result) for result in results], key="stages")
    except FairgateError as error:
        return _failed(error)
    return [vars(result) for result in results]


def _run(root: Path, stage: str, token: str, force: bool = False) -> StageResult:
    named = run_stage.with_options(name=stage, task_run_name=stage)
    state = named(str(root), stage, token, force, return_state=True)
    if not state.is_completed():
        kind = dvc_runner.StageBug if state.name == BUG else FairgateError
        raise kind(state.message or "the task ended without a message", where="" if state.is_failed() else stage)
    result: StageResult = state.result()
    return result


@flow(name="promote", persist_result=False)
def promote(version: str, approver: str, reason: str, name: str | None = None, ledger: str = "ledger.jsonl") -> None:
    promotion.promote(Path.cwd(), Path(ledger), version=version, approver=approver, reason=reason, name=name)


@flow(name="rollback", persist_result=False)
def rollback(actor: str, reason: str, name: str | None = None, ledger: str = "ledger.jsonl") -> None:
    promotion.rollback(Path.cwd(), Path(ledger), actor=actor, reason=reason, name=name)


@flow(name="verify", persist_result=False)
def verify(name: str | None = None, ledger: str = "ledger.jsonl") -> None:
    promotion.verify(Path.cwd(), Path(ledger), name=name)
