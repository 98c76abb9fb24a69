from __future__ import annotations

import errno
import json
from importlib import import_module
from pathlib import Path

import pytest

from fairgate.support import library_errors
from fairgate.support.errors import FairgateError, MissingFile
from fairgate.support.library_errors import meaning, translated
from tests.tiny import make_tiny, make_tiny_llama


@pytest.mark.parametrize("name", [*library_errors.MEANINGS, *library_errors._WHILE_READING])
def test_every_name_in_the_table_is_a_class_that_the_libraries_raise(name: str) -> None:
    module, _, kind = name.rpartition(".")
    if module.startswith("botocore"):
        pytest.importorskip("botocore")  # of the extra `s3`
    assert issubclass(getattr(import_module(module), kind), BaseException)


def load(folder: Path) -> None:
    """The three loaders, as stages use them."""
    from transformers import AutoConfig, AutoModelForCausalLM, AutoTokenizer

    with translated("the model cannot be loaded", where=str(folder), remedy="correct it"):
        config = AutoConfig.from_pretrained(folder)
        AutoTokenizer.from_pretrained(folder)("a nurse")
        AutoModelForCausalLM.from_pretrained(folder, config=config)


def edit(path: Path, **changes: object) -> None:
    path.write_text(json.dumps(json.loads(path.read_text()) | changes))


LEGACY_ROPE = {"type": "su", "short_factor": [1.0] * 8, "long_factor": [4.0] * 8}
SPOILED = {
    "tokenizer.json is a pointer of Git LFS": lambda d: (d / "tokenizer.json").write_text("version https://git-lfs.github.com/spec/v1\n"),
    "tokenizer.json is cut": lambda d: (d / "tokenizer.json").write_text((d / "tokenizer.json").read_text()[:200]),
    "tokenizer.json is of another kind": lambda d: (d / "tokenizer.json").write_text('{"model": {"type": "Unknown"}}'),
    "no tokenizer at all": lambda d: [(d / name).unlink() for name in ("tokenizer.json", "tokenizer_config.json")],
    "a number is a text": lambda d: edit(d / "config.json", rms_norm_eps="1e-05"),
    "a number is a list": lambda d: edit(d / "config.json", hidden_size=[64]),
    "no heads": lambda d: edit(d / "config.json", num_attention_heads=0),
    "an unknown activation": lambda d: edit(d / "config.json", hidden_act="swoosh"),
    "config.json is a list": lambda d: (d / "config.json").write_text("[]"),
    "config.json is nested without end": lambda d: (d / "config.json").write_text("[" * 100_000),
    "config.json is not UTF-8": lambda d: (d / "config.json").write_bytes(b'{"model_type": "\xff"}'),
    "the weights are cut": lambda d: (d / "model.safetensors").write_bytes((d / "model.safetensors").read_bytes()[:999]),
    "the weights are a text": lambda d: (d / "model.safetensors").write_text("<html>404</html>"),
}


@pytest.fixture(scope="module")
def llama(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_tiny_llama(tmp_path_factory.mktemp("base") / "llama", layers=1)


@pytest.mark.parametrize("fault", SPOILED)
def test_what_the_loaders_raise_is_an_error_to_read(llama: Path, tmp_path: Path, fault: str) -> None:
    for file in llama.iterdir():
        (tmp_path / file.name).write_bytes(file.read_bytes())
    SPOILED[fault](tmp_path)
    with pytest.raises(FairgateError) as error:
        load(tmp_path)
    assert error.value.where == str(tmp_path) and "the model cannot be loaded (" in error.value.what and error.value.remedy
    assert len(str(error.value).splitlines()) == 2


def test_a_legacy_form_of_rope_is_an_error_to_read(tmp_path: Path) -> None:
    folder = make_tiny("phi3", tmp_path / "phi3", original_max_position_embeddings=64)
    stored = json.loads((folder / "config.json").read_text())
    stored.pop("rope_parameters", None)
    (folder / "config.json").write_text(json.dumps({**stored, "rope_theta": 10000.0, "rope_scaling": LEGACY_ROPE}))
    with pytest.raises(FairgateError, match="the model cannot be loaded"):
        load(folder)


def test_a_template_that_raises_is_an_error_to_read(llama: Path) -> None:
    from transformers import AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(llama)
    remedy = r"the chat template fails \(.*\)\nRemedy: correct the model's chat template"
    for template in ("{{ raise_exception('roles must alternate') }}", "{% if %}", "{{ messages[7].content.x.y }}"):
        with pytest.raises(FairgateError, match=remedy), translated("the chat template fails", where="tokenizer_config.json"):
            tokenizer.apply_chat_template([{"role": "user", "content": "x"}], chat_template=template)


def test_a_missing_package_and_a_panic_are_errors_to_read() -> None:
    with pytest.raises(FairgateError, match=r"no_such_package[\s\S]*Remedy: install the package"), translated("cannot"):
        import no_such_package  # noqa: F401

    class PanicException(BaseException):  # what a Rust library raises is no Exception
        pass

    with pytest.raises(FairgateError, match="cannot \\(PanicException: index out of bounds"), translated("cannot"):
        raise PanicException("index out of bounds")


def test_the_border_knows_the_better_remedy_but_not_of_a_full_disk() -> None:
    import jinja2

    for raised, remedy in (
        (jinja2.TemplateError("no"), "take the task out"),
        (OSError(errno.ENOSPC, "full"), "free some"),
        (json.JSONDecodeError("no", "", 0), "Git LFS"),
    ):
        with pytest.raises(FairgateError, match=f"Remedy: .*{remedy}"), translated("cannot", remedy="take the task out"):
            raise raised


def test_own_errors_interrupts_and_a_full_gpu_pass() -> None:
    import torch

    for passed in (MissingFile("no such file"), KeyboardInterrupt(), SystemExit(3), torch.OutOfMemoryError("CUDA")):
        with pytest.raises(type(passed)) as error, translated("cannot"):
            raise passed
        assert error.value is passed


def test_a_long_message_is_cut_and_a_secret_hidden() -> None:
    with pytest.raises(FairgateError) as error, translated("cannot"):
        raise ValueError("at https://fair:s3cret@host\n" + "word " * 1000)
    assert len(str(error.value)) < 600 and "s3cret" not in str(error.value) and "\n" not in str(error.value)


def test_bugs_are_no_errors_of_the_user() -> None:
    assert meaning(KeyError("x")) is None and meaning(ValueError("x")) is None and meaning(OSError(errno.EIO, "x")) is None
    assert str(meaning(OSError(errno.ENOSPC, "full", "data/x"))).startswith("no disk space")
