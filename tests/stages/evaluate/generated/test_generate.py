"""Greedy text against a plain loop, and every way in which a text can end."""

from __future__ import annotations

import copy
import json
import shutil
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from tokenizers.processors import TemplateProcessing

from fairgate.benchmarks.families.boxed import read_answer
from fairgate.contracts.item_table import Ending
from fairgate.support.errors import FairgateError
from stages.evaluate.generated.answers import ending_of, final_answer, starts_in_reasoning
from stages.evaluate.generated.generate import Completion, batches_of, end_tokens, generate, prompts_of
from stages.evaluate.model import Model, load
from stages.evaluate.settings import GenerationSettings
from stages.evaluate.task import Item
from stages.evaluate.tokens import MAX_TOO_LONG
from tests.scripted import TEMPLATE, make_scripted
from tests.tiny import make_tiny

TAGS = GenerationSettings()
# What follows the last word of a prompt.
CHAINS = [
    ["[answers]", r"\boxed{B}", "</s>"],
    ["[tells]", r"\boxed{D}", " so", " so"],
    ["[rambles]", " so"],
    ["[refuses]", " no", "</s>"],
    ["[silent]", "</s>"],
    ["[thinks]", "<think>", r"\boxed{A}", "</think>", r"\boxed{B}"],
    ["[muses]", " <think>", r"\boxed{C}", " hm", " hm"],
    ["[stops short]", "<think> ", "!", "</s>"],
]


def item(asked: str, begun: str = "", name: str = "x", answers: tuple[str, ...] = ("A", "B", "C", "D")) -> Item:
    return Item(name, name, None, None, None, ((asked, begun),), (), form="generated", answers=answers)


@pytest.fixture(scope="module")
def scripted(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_scripted(tmp_path_factory.mktemp("scripted"), *CHAINS)


@pytest.fixture(scope="module")
def model(scripted: Path) -> Model:
    return load(scripted, dtype="float32", device="cpu")


@pytest.mark.parametrize(
    ("last", "text", "ending", "answer"),
    [
        ("[answers]", r"\boxed{B}", Ending.ok, 1),
        ("[tells]", r"\boxed{D} so so so", Ending.out_of_budget, 3),
        ("[rambles]", " so so so so", Ending.out_of_budget, -1),
        ("[refuses]", " no", Ending.no_answer, -1),
        ("[silent]", "", Ending.empty, -1),
        ("[thinks]", r"<think>\boxed{A}</think>\boxed{B}", Ending.out_of_budget, 1),
        ("[muses]", r" <think>\boxed{C} hm hm", Ending.unclosed_thought, -1),
        ("[stops short]", "<think> !", Ending.unclosed_thought, -1),
    ],
)
def test_every_ending(scripted: Path, model: Model, last: str, text: str, ending: Ending, answer: int) -> None:
    (prompt,) = prompts_of(model, [item(f"Who? {last}")], chat=False, budget=4, task="x")
    (written,) = generate(model, scripted, [prompt])
    assert written.text == text
    said = final_answer(written.text, reasons=starts_in_reasoning(model, prompt.text, chat=False, tags=TAGS), tags=TAGS)
    assert ending_of(written, said, prompt.item.answers) == (ending, answer)
    assert ending_of(written, said, ()) == (Ending.ok if ending is Ending.no_answer else ending, None)


def test_texts_come_back_in_order_whatever_the_batch(scripted: Path, model: Model) -> None:
    lasts = ["[rambles]", "[answers]", "[silent]", "[refuses]", "[tells]"] * 2
    prompts = prompts_of(model, [item("Who? " * n + last) for n, last in enumerate(lasts)], chat=False, budget=3, task="x")
    batches = batches_of(prompts, 3)
    assert [len(batch) for batch in batches] == [3, 3, 3, 1]
    texts = {i: one.text for batch in batches for i, one in zip(batch, generate(model, scripted, [prompts[i] for i in batch]), strict=True)}
    assert [texts[i] for i in range(10)] == [" so so so", r"\boxed{B}", "", " no", r"\boxed{D} so so"] * 2


@pytest.mark.parametrize("padding", [True, False])
@pytest.mark.parametrize("family", ["llama", "opt", "mistral"])
def test_greedy_text_is_that_of_a_plain_loop_whatever_pads(family: str, padding: bool, tmp_path: Path) -> None:
    folder = make_tiny(family, tmp_path)
    # A model's own taste for sampling and against repetition is not the benchmark's.
    (folder / "generation_config.json").write_text(json.dumps({"do_sample": True, "temperature": 2.0, "repetition_penalty": 9.0}))
    model = load(folder, dtype="float32", device="cpu")
    if not padding:
        model.tokenizer.pad_token = None  # then the token that ends a text pads too
    asked = ["The pilot reads", "The gardener watered the roses because", "Question: how do you open a window?\nAnswer:"]
    prompts = prompts_of(model, [item(text) for text in asked], chat=False, budget=12, task="x")
    stops = end_tokens(model, folder)
    for prompt, written in zip(prompts, generate(model, folder, prompts), strict=True):
        ids = list(prompt.ids)
        with torch.inference_mode():
            while len(ids) < len(prompt.ids) + 12:
                ids.append(int(model.network(input_ids=torch.tensor([ids])).logits[0, -1].argmax()))
                if ids[-1] in stops:
                    break
        new = ids[len(prompt.ids) :]
        assert written == Completion(model.tokenizer.decode([i for i in new if i not in stops]), new[-1] in stops)


def test_the_tokens_that_end_a_text_are_those_of_model_and_tokenizer(scripted: Path, model: Model, tmp_path: Path) -> None:
    eos, so = model.tokenizer.convert_tokens_to_ids(["</s>", " so"])
    shutil.copytree(scripted, tmp_path / "m")
    (tmp_path / "m" / "generation_config.json").write_text(json.dumps({"eos_token_id": [so]}))
    assert end_tokens(model, tmp_path / "m") == sorted([eos, so])
    prompts = prompts_of(model, [item("[tells]")], chat=False, budget=9, task="x")
    assert generate(model, tmp_path / "m", prompts) == [Completion(r"\boxed{D}", True)]
    (tmp_path / "m" / "generation_config.json").unlink()
    assert end_tokens(model, tmp_path / "m") == [eos]


def test_a_chat_prompt_leaves_the_assistants_turn_open(model: Model) -> None:
    (prompt, bare) = prompts_of(model, [item("Who?", "It is "), item("Who?", "")], chat=True, budget=4, task="x")
    assert prompt.text == "<s>user\nWho?</s><s>assistant\nIt is "
    assert model.tokenizer.decode(prompt.ids) == prompt.text
    assert bare.text == "<s>user\nWho?</s><s>assistant\n"


def test_a_raw_prompt_gets_the_start_token_that_the_tokenizer_adds_and_a_chat_prompt_has_its_own(model: Model) -> None:
    tokenizer = copy.deepcopy(model.tokenizer)
    start = tokenizer.bos_token_id
    tokenizer.backend_tokenizer.post_processor = TemplateProcessing(single="<s> $A", special_tokens=[("<s>", start)])
    adding = replace(model, tokenizer=tokenizer)
    for chat in (False, True):
        (prompt,) = prompts_of(adding, [item("Who?", "It is")], chat=chat, budget=4, task="x")
        assert prompt.ids[0] == start and prompt.ids[1] != start, chat


def test_no_prompt_ends_with_what_the_tokenizer_appends(scripted: Path, model: Model) -> None:
    tokenizer = copy.deepcopy(model.tokenizer)
    ends = [(token, tokenizer.convert_tokens_to_ids(token)) for token in ("<s>", "</s>")]
    tokenizer.backend_tokenizer.post_processor = TemplateProcessing(single="<s> $A </s>", special_tokens=ends)
    (prompt,) = prompts_of(replace(model, tokenizer=tokenizer), [item("Who? [answers]")], chat=False, budget=4, task="x")
    assert tokenizer.decode(prompt.ids) == "<s>Who? [answers]"
    assert generate(replace(model, tokenizer=tokenizer), scripted, [prompt])[0].text == r"\boxed{B}"


def test_a_pad_token_beyond_the_table_does_not_matter(scripted: Path, model: Model) -> None:
    asked = [item(f"Who? {last}") for last in ("[answers]", "[rambles]", "and and and [refuses]")]
    prompts = prompts_of(model, asked, chat=False, budget=4, task="x")
    tokenizer = copy.deepcopy(model.tokenizer)
    rows = model.network.get_input_embeddings().num_embeddings
    tokenizer.add_tokens([f"[unused {number}]" for number in range(rows - len(tokenizer))])
    tokenizer.add_special_tokens({"pad_token": "[PAD]"})
    assert tokenizer.pad_token_id == rows
    assert generate(replace(model, tokenizer=tokenizer), scripted, prompts) == generate(model, scripted, prompts)


def test_a_template_that_tells_the_date_tells_the_same_every_day(model: Model) -> None:
    tokenizer = copy.deepcopy(model.tokenizer)
    tokenizer.chat_template = "{{ strftime_now('%d %b %Y') }}" + TEMPLATE
    (prompt,) = prompts_of(replace(model, tokenizer=tokenizer), [item("Who?", "It")], chat=True, budget=4, task="x")
    assert prompt.text.startswith("26 Jul 2024<s>user")


def test_a_model_without_a_chat_template_is_refused_where_one_is_needed(tmp_path: Path) -> None:
    model = load(make_scripted(tmp_path, ["a", "b"], template=None), dtype="float32", device="cpu")
    with pytest.raises(FairgateError, match="task bold_toxicity: the tokenizer has no chat template"):
        prompts_of(model, [item("Who?")], chat=True, budget=4, task="bold_toxicity")
    assert not starts_in_reasoning(model, "Who?", chat=False, tags=TAGS)


@pytest.mark.parametrize(
    ("template", "message"),
    [
        ("{% for m in messages %}{{ m['content'] if m['role'] == 'user' else raise_exception('only user') }}{% endfor %}", "only user"),
        ("{% for m in messages %}{{ m['content'] + 1 }}{% endfor %}", "TypeError"),
        ("{{ messages[7]['content'] }}", "UndefinedError"),
        ("{{ messages[0]['content'] }}{{ 1 / 0 }}", "ZeroDivisionError"),
        ("{% for m in messages %}{{ m['content'] }}", "TemplateSyntaxError"),
        ("{% for m in messages if m['role'] == 'user' %}{{ m['content'] }}{% endfor %}", "ValueError"),  # the assistant's turn is lost
    ],
)
def test_a_template_that_cannot_write_the_turns_is_named_with_the_task(model: Model, template: str, message: str) -> None:
    tokenizer = copy.deepcopy(model.tokenizer)
    tokenizer.chat_template = template
    broken = replace(model, tokenizer=tokenizer)
    pattern = rf"task bold_toxicity: the chat template cannot write turns of the roles user, assistant \(.*{message}(.|\n)*Remedy: take"
    with pytest.raises(FairgateError, match=pattern):
        prompts_of(broken, [item("Who?", "It is")], chat=True, budget=4, task="bold_toxicity")
    # A raw prompt does not need it.
    (prompt,) = prompts_of(broken, [item("Who?")], chat=False, budget=4, task="bbq")
    assert not starts_in_reasoning(broken, prompt.text, chat=False, tags=TAGS)


def test_the_budget_is_what_the_context_leaves_and_few_prompts_that_fill_it_are_left_out(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    folder = make_scripted(tmp_path, ["!", "!"], context=16)
    model = load(folder, dtype="float32", device="cpu")
    prompts = prompts_of(model, [item("!" * n, name=f"item{n}") for n in (4, 14, 13)], chat=False, budget=8, task="x")
    assert [prompt.budget for prompt in prompts] == [8, 2, 3]
    assert batches_of(prompts, 8) == [[1], [2], [0]]
    assert [len(generate(model, folder, [prompt])[0].text) for prompt in prompts] == [8, 2, 3]
    with pytest.raises(FairgateError, match=r"1 of 2 prompts fill the context of 16 tokens; first: item 'item16'"):
        prompts_of(model, [item("!" * n, name=f"item{n}") for n in (4, 16)], chat=False, budget=8, task="x")
    many = [item("!" * 4, name=str(n)) for n in range(round(1 / MAX_TOO_LONG))]
    kept = prompts_of(model, [item("!" * 16, name="long"), *many], chat=False, budget=8, task="x")
    assert [prompt.item.id for prompt in kept] == [one.id for one in many]
    assert "task x: 1 of" in caplog.text and "first: item 'long'; left out" in caplog.text


def test_logits_that_are_not_numbers_name_the_item(tmp_path: Path) -> None:
    folder = make_scripted(tmp_path, ["!", "!"], ["?", "?"])
    model = load(folder, dtype="float32", device="cpu")
    with torch.no_grad():
        model.network.model.embed_tokens.weight[model.tokenizer.convert_tokens_to_ids("?")] = float("nan")
    prompts = prompts_of(model, [item("!", name="good"), item("!?", name="bad")], chat=False, budget=3, task="x")
    with pytest.raises(FairgateError, match=r"item 'bad': logits are not numbers"):
        generate(model, folder, prompts)


# As torch says it of a GPU and of the CPU.
@pytest.mark.parametrize("error", [torch.OutOfMemoryError("no memory"), RuntimeError("DefaultCPUAllocator: can't allocate memory")])
def test_memory_that_does_not_suffice_halves_the_batch_and_one_prompt_is_an_error(
    scripted: Path, model: Model, monkeypatch: pytest.MonkeyPatch, error: Exception
) -> None:
    prompts = prompts_of(model, [item(f"Who? {last}") for last in ("[answers]", "[refuses]", "[silent]")], chat=False, budget=3, task="x")
    wanted, limit, real = generate(model, scripted, prompts), 1, model.network.generate

    def small(input_ids: torch.Tensor, **options: object) -> object:
        if len(input_ids) > limit:
            raise error
        return real(input_ids=input_ids, **options)

    monkeypatch.setattr(model.network, "generate", small)
    assert generate(model, scripted, prompts) == wanted
    limit = 0
    with pytest.raises(FairgateError, match="memory does not suffice for"):
        generate(model, scripted, prompts)


THINKING = TEMPLATE.replace("<s>assistant\n{% endif %}", "<s>assistant\n<think>\n{% endif %}")


def test_a_model_whose_template_opens_a_thought_answers_only_after_closing_it(tmp_path: Path) -> None:
    folder = make_scripted(
        tmp_path, ["[answers]", r"\boxed{B}", "</s>"], ["[closes]", r"\boxed{A}", "</think>", r"\boxed{B}"], template=THINKING
    )
    model = load(folder, dtype="float32", device="cpu")
    for last, ending, answer in (("[answers]", Ending.unclosed_thought, -1), ("[closes]", Ending.ok, 1)):
        (prompt,) = prompts_of(model, [item(f"Who? {last}")], chat=False, budget=9, task="x")
        (written,) = generate(model, folder, [prompt])
        thinking = starts_in_reasoning(model, prompt.text, chat=False, tags=TAGS)
        assert thinking
        assert ending_of(written, final_answer(written.text, reasons=thinking, tags=TAGS), prompt.item.answers) == (ending, answer)
    # A continuation starts behind the beginning that the assistant's turn already has.
    assert not starts_in_reasoning(model, "<s>assistant\nIt is ", chat=True, tags=TAGS)
    assert starts_in_reasoning(model, "<s>assistant\n<think>\n", chat=True, tags=TAGS)


def test_tags_are_settings() -> None:
    tags = GenerationSettings(think_open="[THINK]", think_close="[/THINK]")
    assert final_answer("[THINK] a [/THINK] b", reasons=False, tags=tags) == " b"
    assert final_answer("<think> a", reasons=False, tags=tags) == "<think> a"
    assert final_answer("[THINK] a", reasons=False, tags=tags) is None
    assert final_answer("a </think> b </think> c", reasons=True, tags=TAGS) == " c"


@pytest.mark.parametrize(
    ("text", "answers", "answer"),
    [
        (r"so \boxed{A} is out, \boxed{B}", "AB", 1),
        (r"\boxed{B} or \boxed{E}", "AB", 1),  # the last allowed one
        ("A", "AB", 0),  # nothing but the answer
        ("A.", "AB", -1),
        (r"\boxed{ A }", "AB", -1),
        (r"\boxed{a}", "AB", -1),
        (r"boxed{B}", "AB", 1),
        (r"\boxed{YES}", ("yes", "no"), 0),
        (r"\boxed{No}", ("yes", "no"), 1),
        (r"\boxed{nO}", ("yes", "no"), -1),
        (r"\boxed{B}", "CAB", 2),  # the index is that of the option, not of the letter
        ("", "AB", -1),
    ],
)
def test_the_answer_is_what_the_last_box_holds(text: str, answers: str, answer: int) -> None:
    assert read_answer(text, tuple(answers)) == answer


def test_the_settings_of_the_model_are_put_back(scripted: Path, model: Model, monkeypatch: pytest.MonkeyPatch) -> None:
    prompts = prompts_of(model, [item("Who? [answers]")], chat=False, budget=3, task="x")
    own = model.network.generation_config
    generate(model, scripted, prompts)
    assert model.network.generation_config is own
    monkeypatch.setattr(model.network, "generate", lambda **options: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        generate(model, scripted, prompts)
    assert model.network.generation_config is own
