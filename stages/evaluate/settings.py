"""The `evaluate` section of params.yaml."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from fairgate.support.params import Section


class GenerationSettings(Section):
    """How text is generated.

    batch: prompts at once. max_new_tokens: instead of a task's own budget; null: the task's, and only then the study's benchmark.
    think_open, think_close: the tags around the thoughts of a reasoning model; what stands before the closing one is no answer.
    """

    batch: int = Field(32, gt=0)
    max_new_tokens: int | None = Field(None, gt=0)
    think_open: str = Field("<think>", min_length=1)
    think_close: str = Field("</think>", min_length=1)


class Evaluate(Section):
    """What is measured, and how much of it.

    role: the role that a data set must have in split.json to be evaluated; `--role` asks for another one.
    device: auto, cpu, cuda or cuda:N.
    dtype: auto is bfloat16 on a GPU and on a CPU that computes in it, else float32.
    batch_tokens: tokens of one forward pass, padding included; results do not depend on it beyond rounding, and it is cut where memory
        runs out. auto: 65,536 on a GPU, 2,048 on a CPU.
    tasks: items drawn of each task, whole clusters at a time; null takes all. A run takes those of its role; where none has it,
        every task of that role, whole. Tasks with generated text run only when asked for by name.
    repeat: score the unquantized model twice and write the noise floor (noise.json) beside its table; `--repeat` asks for it once.
    toxicity: classifier of continuations, a hub id (`owner/name@commit`) in the local cache or a folder. generation: see Generation.
    judge: a model, named alike, that tells coherent continuations from nonsense and refusals; null: nobody tells.
    """

    role: Literal["gate", "development"]
    seed: int
    device: str = Field(pattern=r"^(auto|cpu|cuda(:\d+)?)$")
    dtype: Literal["auto", "float32", "bfloat16", "float16"]
    batch_tokens: Annotated[int, Field(gt=0)] | Literal["auto"]
    tasks: dict[str, Annotated[int, Field(gt=0)] | None]
    repeat: bool = False
    toxicity: str = "unitary/toxic-bert"
    judge: str | None = None
    generation: GenerationSettings = GenerationSettings()
