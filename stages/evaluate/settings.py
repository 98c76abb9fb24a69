"""The `evaluate` section of params.yaml."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from fairgate.support.params import Section, Seed


class GenerationSettings(Section):
    """How text is generated."""

    batch: int = Field(32, gt=0, description="prompts of one batch")
    max_new_tokens: int | None = Field(
        None,
        gt=0,
        description="new tokens at most, instead of a task's own budget; null takes the task's, "
        "without which the result is not that of the published benchmark",
    )
    think_open: str = Field("<think>", min_length=1, description="tag before the reasoning of a reasoning model")
    think_close: str = Field("</think>", min_length=1, description="tag after the reasoning; the answer is what follows the last one")


class Evaluate(Section):
    """What is measured, and how much of it."""

    role: Literal["gate", "development"] = Field(
        description="role that a data set must have in split.json to be evaluated; `--role` asks for another one"
    )
    seed: Seed = Field(description="seed of the draw of items")
    device: str = Field(pattern=r"^(auto|cpu|cuda(:\d+)?)$", description="auto, cpu, cuda or cuda:N; auto is the GPU where there is one")
    dtype: Literal["auto", "float32", "bfloat16", "float16"] = Field(
        description="data type of weights and activations; auto is bfloat16 on a GPU and on a CPU that computes in it, else float32"
    )
    batch_tokens: Annotated[int, Field(gt=0)] | Literal["auto"] = Field(
        description="tokens of one forward pass, padding included; results do not depend on it beyond rounding, and a batch is cut if "
        "memory runs out; auto is 65,536 on a GPU and 2,048 on a CPU"
    )
    tasks: dict[str, Annotated[int, Field(gt=0)] | None] = Field(
        description="items drawn of each task, in whole clusters; null takes all. A run takes the tasks of its role; if none has it, "
        "every task of that role, whole. Tasks with generated text run only when asked for by name"
    )
    repeat: bool = Field(
        False, description="score the unquantized model twice and write the noise floor (noise.json); `--repeat` asks for it once"
    )
    toxicity: str = Field(
        "unitary/toxic-bert", description="classifier of continuations: a hub id (owner/name@commit) in the local cache, or a folder"
    )
    judge: str | None = Field(
        None,
        description="model, named like `toxicity`, that tells coherent continuations from nonsense and refusals; "
        "null: continuations are not labeled",
    )
    generation: GenerationSettings = Field(GenerationSettings(), description="how text is generated")
