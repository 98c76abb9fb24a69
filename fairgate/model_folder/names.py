"""The tensors of a folder under the names that transformers gives them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

from fairgate.model_folder.weights import Weights
from fairgate.support.errors import BadRecord

if TYPE_CHECKING:
    from transformers import PreTrainedModel


def stored_names(weights: Weights, model: PreTrainedModel) -> dict[str, str]:
    """The stored name of each tensor, by the model's name for it.

    A checkpoint may or may not carry the prefix of the model without its head. A tensor that the
    model does not have keeps its stored name.

    Raises:
        BadRecord: a tensor is stored with and without the prefix.
    """
    expected = set(model.state_dict())
    prefix = f"{getattr(model, 'base_model_prefix', '')}."
    stored_as: dict[str, str] = {}
    for stored in weights.tensors:
        candidates = (stored, prefix + stored, stored.removeprefix(prefix))
        name = next((name for name in candidates if name in expected), stored)
        if name in stored_as:
            what = f"tensor {name} stands twice, as {stored_as[name]} and as {stored}"
            raise BadRecord(what, where=str(weights.folder), remedy="keep one of the two; readers take different ones")
        stored_as[name] = stored
    return stored_as


def with_ties(names: Mapping[str, str], model: PreTrainedModel) -> dict[str, str]:
    """`names`, in which a tied tensor that is not stored has the name of the one that is."""
    tied = dict(names)
    for one, other in getattr(model, "all_tied_weights_keys", {}).items():
        for missing, stored in ((one, other), (other, one)):
            if missing not in tied and stored in tied:
                tied[missing] = tied[stored]
    return tied


def unresolved_names(weights: Weights, model: PreTrainedModel) -> list[str]:
    """Parameters of the model for which no tensor is stored under a name that is known here.

    The output layer is none of them: it is copied under whatever name it has. GPT-NeoX stores
    another than transformers uses.
    """
    names, head = with_ties(stored_names(weights, model), model), model.get_output_embeddings()
    own = set() if head is None else {id(parameter) for parameter in head.parameters()}
    return [name for name, parameter in model.named_parameters() if name not in names and id(parameter) not in own]


def output_is_embedding(weights: Weights, model: PreTrainedModel) -> bool:
    """Whether the output layer is the embedding's own tensor, by what the folder holds.

    transformers ties the two where the configuration says so, except where both are stored and
    differ.
    """
    head, inputs = model.get_output_embeddings(), model.get_input_embeddings()
    if head is None or not model.config.tie_word_embeddings:
        return False
    names = stored_names(weights, model)
    of = {id(module): name for name, module in model.named_modules()}
    pair = [names.get(f"{of[id(module)]}.weight") for module in (head, inputs)]
    if None in pair:
        return True
    with weights.opened() as opened:
        first, second = (opened.tensor(str(name)) for name in pair)
        return first.shape == second.shape and bool((first.double() == second.double()).all())
