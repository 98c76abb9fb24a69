from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from tokenizers import Tokenizer
from tokenizers.processors import TemplateProcessing

from fairgate.support.params import parse
from stages.evaluate.model import load
from stages.quantize.methods.rtn import Rtn
from stages.quantize.settings import RunSettings
from stages.quantize.stage import quantize
from stages.register.served_model import ServedModel
from tests.tiny import SENTENCES, make_tiny


@pytest.mark.parametrize(
    ("family", "changes"),
    [("llama", {}), ("falcon", {}), ("llama", {"bits_by_module": {"down_proj": 8}}), ("llama", {"group_size": 16})],
    ids=["llama", "falcon", "bits by module", "groups of 16"],
)
def test_what_is_served_is_what_was_judged(family: str, changes: dict[str, Any], tmp_path: Path) -> None:
    base, out = make_tiny(family, tmp_path / "base"), tmp_path / "out"
    recipe = parse(Rtn, {"method": "rtn", "bits": 4, "group_size": 32, "symmetric": True, **changes}, where="test")
    quantize("rtn", recipe, RunSettings(device="cpu", seed=0, batch_tokens=256), base, tmp_path, out, tmp_path / "work")
    judged = load(out, dtype="float32", device="cpu")
    ids = judged.tokenizer(SENTENCES[0], return_tensors="pt").input_ids
    best = judged.tokenizer.decode(judged.network(ids).logits[0, -1].argmax())

    served = ServedModel()
    context: Any = SimpleNamespace(artifacts={"checkpoint": str(out)}, model_config={"max_new_tokens": 1})
    served.load_context(context)
    assert served.predict(context, [SENTENCES[0]]) == [best]

    tokenizer = Tokenizer.from_file(str(out / "tokenizer.json"))
    tokenizer.post_processor = TemplateProcessing(single="$A </s>", special_tokens=[("</s>", 1)])
    tokenizer.save(str(out / "tokenizer.json"))
    served.load_context(context)
    assert served.tokenizer(SENTENCES[0]).input_ids[-1] == 1
    assert served.predict(context, [SENTENCES[0]]) == [best]
