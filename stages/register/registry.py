"""MLflow's runs, versions and aliases, behind the few calls that stages and flows need."""

from __future__ import annotations

import shlex
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from urllib.parse import urlsplit

from sqlalchemy import create_engine
from sqlalchemy.exc import SQLAlchemyError

from fairgate.contracts.records import Registration, Verdict
from fairgate.support.errors import FairgateError
from stages.register.address import DATABASES
from stages.register.environment import impatient, mlflow_imported, require_reachable, tracking_uri, without_credentials, without_leftovers

with mlflow_imported():
    from mlflow import MlflowClient
    from mlflow.artifacts import download_artifacts
    from mlflow.entities import Run
    from mlflow.entities.model_registry import ModelVersion, RegisteredModel
    from mlflow.exceptions import MlflowException
    from mlflow.protos.databricks_pb2 import RESOURCE_DOES_NOT_EXIST, ErrorCode
    from mlflow.tracking._tracking_service.utils import _use_tracking_uri
    from mlflow.utils.file_utils import local_file_uri_to_path

CANDIDATE = "candidate"
EVIDENCE = "evidence"
ARTIFACTS = "mlartifacts"


class Registry:
    """One tracking server or SQLite file.

    A server is asked one question at once, so that a wrong or silent one is said within seconds.
    Every method raises a FairgateError that names the URI if MLflow fails.

    Args:
        root: the project. Its mlflow.db is used unless MLFLOW_TRACKING_URI names something else.
    """

    def __init__(self, root: Path) -> None:
        self.root = root
        self.uri = tracking_uri(root)
        require_reachable(self.uri)
        with self.errors():
            _ask_database(self.uri)
            self.client = MlflowClient(tracking_uri=self.uri, registry_uri=self.uri)
            if not self.uri.startswith("sqlite:"):
                with impatient():
                    self.client.search_experiments(max_results=1)

    @contextmanager
    def globally(self) -> Iterator[None]:
        """Let MLflow's global functions ask this address, whatever the environment names.

        Some of them, such as the download of a model, take no address of their own.
        """
        with without_leftovers(), _use_tracking_uri(self.uri):
            yield

    @contextmanager
    def errors(self) -> Iterator[None]:
        try:
            yield
        except ImportError as error:  # the URI's scheme names the driver: postgresql+psycopg2://
            raise FairgateError(
                f"no driver for this database ({error})", where=without_credentials(self.uri), remedy="pip install 'fairgate[distributed]'"
            ) from error
        except (MlflowException, SQLAlchemyError) as error:
            first = (str(error).strip() or type(error).__name__).splitlines()[0].replace(self.uri, without_credentials(self.uri))
            remedy = "check the tracking server and its artifact store, or unset MLFLOW_TRACKING_URI to use a SQLite file in the project"
            raise FairgateError(f"MLflow failed: {first}", where=without_credentials(self.uri), remedy=remedy) from error

    def experiment(self, name: str) -> str:
        """Id of the experiment, which is made if it does not exist.

        With a SQLite file, the artifacts go to the project's mlartifacts/.
        """
        with self.errors():
            experiment = self.client.get_experiment_by_name(name)
            if experiment is None:
                local = self.uri.startswith("sqlite:")
                return self.client.create_experiment(name, self._artifacts().as_uri() if local else None)
        if experiment.lifecycle_stage != "active":
            raise FairgateError(
                f"experiment {name!r} is deleted",
                where=without_credentials(self.uri),
                remedy="restore it (`mlflow experiments restore`) or name another in `register.experiment`",
            )
        self._require_unmoved(experiment.artifact_location)
        return experiment.experiment_id

    def _artifacts(self) -> Path:
        """Where the artifacts of a SQLite registry are."""
        return self.root.resolve() / ARTIFACTS

    def _local(self, location: str | None) -> Path | None:
        """The folder that `location` names; None if a server or a bucket has it."""
        if not location or not self.uri.startswith("sqlite:") or urlsplit(location).scheme not in ("", "file"):
            return None
        return Path(local_file_uri_to_path(location))

    def _require_unmoved(self, location: str | None) -> None:
        """Refuse to go on in a project that was moved: MLflow keeps absolute paths of artifacts."""
        folder = self._local(location)
        store = next((part for part in (folder, *folder.parents) if part.name == ARTIFACTS), None) if folder else None
        if store is None or store.exists() or store == self._artifacts():
            return
        root, former = self.root.resolve(), store.parent
        raise FairgateError(
            f"the registry names artifacts in {store}, which is not there: was the project moved from {former}?",
            where=str(root),
            remedy=f"move it back, or make a link: ln -s {shlex.quote(str(root))} {shlex.quote(str(former))}",
        )

    def find_run(self, experiment_id: str, weight_digest: str, verdict_digest: str) -> Run | None:
        """The newest finished run about these weights and this verdict."""
        query = f"tags.`model.sha` = '{weight_digest}' and tags.`verdict.sha` = '{verdict_digest}' and attributes.status = 'FINISHED'"
        with self.errors():
            return next(iter(self.client.search_runs([experiment_id], query, max_results=1)), None)

    def overruling(self, weight_digest: str, verdict: Verdict) -> Run | None:
        """The newest finished run about these weights, if its verdict differs from `verdict`.

        All experiments are searched. None means that no newer verdict overrules this one.
        """
        query = f"tags.`model.sha` = '{weight_digest}' and attributes.status = 'FINISHED'"
        with self.errors():
            experiments = [experiment.experiment_id for experiment in self.client.search_experiments()]
            newest = next(iter(self.client.search_runs(experiments, query, max_results=1)), None)
        return newest if newest is not None and newest.data.tags.get("gate.verdict") != verdict else None

    def find_version(self, name: str, weight_digest: str, verdict_digest: str) -> ModelVersion | None:
        """The newest version of these weights under this verdict."""
        query = f"name = '{name}' and tags.`model.sha` = '{weight_digest}' and tags.`verdict.sha` = '{verdict_digest}'"
        with self.errors():
            return max(self.client.search_model_versions(query), key=lambda version: int(version.version), default=None)

    def version(self, name: str, version: str) -> ModelVersion:
        if (registered := self._version(name, version)) is None:
            raise FairgateError(f"model {name!r} has no version {version}", where=without_credentials(self.uri))
        return registered

    def has_version(self, name: str, version: str) -> bool:
        return self._version(name, version) is not None

    def _version(self, name: str, version: str) -> ModelVersion | None:
        with self.errors():
            try:
                return self.client.get_model_version(name, version)
            except MlflowException as error:
                if _absent(error):
                    return None
                raise

    def run(self, run_id: str) -> Run | None:
        """The run; None means that it does not exist, was deleted, or has lost its artifacts.

        Raises:
            FairgateError: the project was moved away from its artifacts; the message names both
                folders.
        """
        with self.errors():
            try:
                run = self.client.get_run(run_id)
            except MlflowException as error:
                if _absent(error):
                    return None
                raise
        self._require_unmoved(run.info.artifact_uri)
        folder = self._local(run.info.artifact_uri)
        return run if run.info.lifecycle_stage == "active" and (folder is None or folder.exists()) else None

    def aliases(self, name: str) -> dict[str, str]:
        """alias -> version; empty if the model does not exist."""
        model = self._model(name)
        return {alias: str(version) for alias, version in model.aliases.items()} if model else {}

    def model_tags(self, name: str) -> dict[str, str]:
        """Tags of the registered model; empty if it does not exist."""
        model = self._model(name)
        return dict(model.tags) if model else {}

    def _model(self, name: str) -> RegisteredModel | None:
        with self.errors():
            try:
                return self.client.get_registered_model(name)
            except MlflowException as error:
                if _absent(error):
                    return None
                raise

    def latest_run(self, name: str) -> str | None:
        """Id of the run that made the model's latest version; None if there is none."""
        with self.errors():
            latest = max(self.client.search_model_versions(f"name = '{name}'"), key=lambda version: int(version.version), default=None)
        return latest.run_id if latest else None

    def move_alias(self, name: str, alias: str, version: str | None) -> None:
        """Point the alias at `version`; None removes it."""
        with self.errors():
            if version is None:
                self.client.delete_registered_model_alias(name, alias)
            else:
                self.client.set_registered_model_alias(name, alias, version)

    def tag_model(self, name: str, tags: dict[str, str]) -> None:
        with self.errors():
            for key, value in tags.items():
                self.client.set_registered_model_tag(name, key, value)

    def tag_version(self, name: str, version: str, tags: dict[str, str]) -> None:
        with self.errors():
            for key, value in tags.items():
                self.client.set_model_version_tag(name, version, key, value)

    def download(self, uri: str, folder: Path) -> Path:
        """Artifacts at a runs:/ or models:/ URI, below `folder`."""
        with self.errors(), self.globally():
            return Path(download_artifacts(artifact_uri=uri, dst_path=str(folder), tracking_uri=self.uri))

    def lost(self, receipt: Registration) -> list[str]:
        """What the receipt names and the live registry does not have; empty if nothing is lost.

        An alias at another version is no loss: another candidate was registered since. An alias
        that a later verdict took away is no loss either.
        """
        missing = [] if self.run(receipt.run_id) else [f"run {receipt.run_id}"]
        if receipt.verdict is Verdict.approve:
            version = self.find_version(receipt.model_name, receipt.weight_digest, receipt.verdict_digest)
            if version is None or str(version.version) != receipt.model_version:
                missing.append(f"version {receipt.model_version} of {receipt.model_name}")
            if CANDIDATE not in self.aliases(receipt.model_name) and not self.overruling(receipt.weight_digest, receipt.verdict):
                missing.append(f"alias {CANDIDATE}")
        return missing


def _ask_database(uri: str) -> None:
    """Connect once: MLflow tries for two minutes, whatever the database says of the password."""
    if uri.partition(":")[0].partition("+")[0] in DATABASES:
        engine = create_engine(uri)
        try:
            engine.connect().close()
        finally:
            engine.dispose()


def _absent(error: MlflowException) -> bool:
    return error.error_code == ErrorCode.Name(RESOURCE_DOES_NOT_EXIST)
