"""The code that serves an approved checkpoint; MLflow stores this file beside the weights.

It runs where neither this project nor its repository exists, so it imports nothing of them. MLflow
calls this "models from code".
"""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

from mlflow.models import set_model
from mlflow.pyfunc import PythonModel, PythonModelContext


class ServedModel(PythonModel):
    """Greedy continuation of each prompt, at most `max_new_tokens` (model_config) tokens long."""

    def load_context(self, context: PythonModelContext) -> None:
        # gptqmodel sizes its pools when it is imported. Its default on two cores is one worker,
        # which cannot load a model.
        os.environ.setdefault("GPTQMODEL_CPU_WORKERS", "2")
        import torch
        from transformers import AutoModelForCausalLM, AutoTokenizer, GPTQConfig

        folder = context.artifacts["checkpoint"]
        gpu = torch.cuda.is_available()
        self.max_new_tokens = int(context.model_config["max_new_tokens"])
        self.tokenizer = AutoTokenizer.from_pretrained(folder, trust_remote_code=False)
        self.appended = _appended(self.tokenizer)
        config = json.loads((Path(folder) / "config.json").read_text(encoding="utf-8"))
        packed = config.get("quantization_config") or {}
        if packed and (config["model_type"] in ("falcon", "gpt2", "gpt_bigcode") or packed.get("dynamic")):
            # Transformers 5.23 cannot load these packed models. Some of them it loads with random
            # weights in place of the packed ones.
            from gptqmodel import BACKEND, GPTQModel

            backend = BACKEND.AUTO if gpu else BACKEND.GPTQ_TORCH
            self.model = GPTQModel.load(folder, backend=backend, device="cuda" if gpu else "cpu", dtype=torch.float16).model.eval()
            return
        options = {}
        # The int4 kernel of the CPU is chosen for these groups too, and fails on them.
        if not gpu and packed.get("group_size") in (16, -1):
            options = {"quantization_config": GPTQConfig(bits=packed["bits"], backend="gptq_torch")}
        self.model = AutoModelForCausalLM.from_pretrained(
            folder, dtype="auto" if gpu else torch.float32, device_map="cuda" if gpu else "cpu", trust_remote_code=False, **options
        ).eval()

    def predict(self, context: PythonModelContext, model_input: list[str], params: dict[str, Any] | None = None) -> list[str]:
        return [self._continue(prompt) for prompt in model_input]

    def _continue(self, prompt: str) -> str:
        # One prompt at a time: no padding, so an answer does not depend on its neighbours.
        inputs = self.tokenizer(prompt, return_tensors="pt", return_token_type_ids=False).to(self.model.device)
        length = inputs["input_ids"].shape[1] - self.appended
        inputs = {name: tensor[:, :length] for name, tensor in inputs.items()}
        tokens = self.model.generate(
            **inputs, max_new_tokens=self.max_new_tokens, do_sample=False, pad_token_id=self.tokenizer.eos_token_id
        )
        return str(self.tokenizer.decode(tokens[0, length:], skip_special_tokens=True))


def _appended(tokenizer: Any) -> int:
    """How many tokens the tokenizer appends to a text. A prompt goes on, so it is read without."""
    whole, bare = tokenizer("a").input_ids, tokenizer("a", add_special_tokens=False).input_ids
    ends = (place + len(bare) for place in range(len(whole)) if whole[place : place + len(bare)] == bare)
    return len(whole) - next(ends, len(whole))


set_model(ServedModel())
