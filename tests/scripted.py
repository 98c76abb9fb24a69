"""A tiny chat model that says what the test wants: each token has one successor, whatever stands
before it.
"""

from __future__ import annotations

from pathlib import Path

import torch
from transformers import LlamaConfig, LlamaForCausalLM

from tests.tiny import make_tokenizer

TEMPLATE = (
    "{% for message in messages %}<s>{{ message['role'] }}\n{{ message['content'] }}</s>{% endfor %}"
    "{% if add_generation_prompt %}<s>assistant\n{% endif %}"
)


def make_scripted(folder: Path, *chains: list[str], template: str | None = TEMPLATE, otherwise: str = "</s>", context: int = 1024) -> Path:
    """A Llama whose likeliest next token is the one that follows in a chain; `otherwise` follows a
    token that is in none.

    Words of the chains become tokens of their own. Nothing but the last token reaches the output:
    both blocks' ends are zero, the embedding is the identity, and the head is the table of
    successors.
    """
    tokenizer = make_tokenizer()
    words = list(dict.fromkeys(word for chain in [*chains, [otherwise]] for word in chain))
    tokenizer.add_tokens([word for word in words if word not in tokenizer.get_vocab()])
    tokenizer.chat_template = template
    size = -(-len(tokenizer) // 8) * 8
    follows = torch.full((size,), tokenizer.convert_tokens_to_ids(otherwise))
    for chain in chains:
        ids = tokenizer.convert_tokens_to_ids(chain)
        follows[ids[:-1]] = torch.tensor(ids[1:])
    config = LlamaConfig(
        vocab_size=size, hidden_size=size, intermediate_size=8, num_hidden_layers=1, num_attention_heads=4, max_position_embeddings=context,
        tie_word_embeddings=False, bos_token_id=tokenizer.bos_token_id, eos_token_id=tokenizer.eos_token_id,
    )  # fmt: skip
    model = LlamaForCausalLM(config)
    with torch.no_grad():
        model.model.layers[0].self_attn.o_proj.weight.zero_()
        model.model.layers[0].mlp.down_proj.weight.zero_()
        model.model.embed_tokens.weight.copy_(torch.eye(size))
        model.lm_head.weight.zero_()[follows, torch.arange(size)] = 1.0
    model.eval().float().save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder
