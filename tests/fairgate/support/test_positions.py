from __future__ import annotations

from transformers import AutoConfig

from fairgate.support.positions import context_of, regime_of, setting, thresholds_of

LONGROPE = {"rope_type": "longrope", "rope_theta": 10000.0, "short_factor": [1.0] * 8, "long_factor": [4.0] * 8}


def test_the_context_has_several_names() -> None:
    assert context_of(AutoConfig.for_model("llama", max_position_embeddings=64)) == 64
    assert context_of(AutoConfig.for_model("gpt2", n_positions=32)) == 32
    assert context_of(AutoConfig.for_model("mpt")) is None


def test_a_key_that_the_architecture_does_not_have_means_nothing() -> None:
    stray = {"max_position_embeddings": 64, "sliding_window": "8"}
    bloom = AutoConfig.for_model("bloom", **stray)
    assert (context_of(bloom), thresholds_of(bloom), setting(bloom, "sliding_window")) == (None, (), None)
    assert setting(AutoConfig.for_model("mistral", sliding_window=8), "sliding_window") == 8


def test_factors_change_at_the_length_of_the_training_texts() -> None:
    numbers = {"hidden_size": 64, "num_attention_heads": 4, "max_position_embeddings": 256}

    def thresholds(rope: dict[str, object]) -> tuple[int, ...]:
        return thresholds_of(AutoConfig.for_model("llama", rope_parameters=rope, **numbers))

    assert thresholds({**LONGROPE, "original_max_position_embeddings": 16}) == (16,)
    assert thresholds({"rope_type": "dynamic", "rope_theta": 10000.0, "factor": 2.0}) == ()
    assert thresholds({"rope_type": "default", "rope_theta": 10000.0}) == ()
    assert thresholds_of(AutoConfig.for_model("gpt2")) == ()
    by_layer = {"full": {**LONGROPE, "original_max_position_embeddings": 32}, "near": {"rope_type": "default"}}
    by_layer["far"] = {**LONGROPE, "original_max_position_embeddings": 16}
    mixed = AutoConfig.for_model("gemma3_text")
    mixed.rope_parameters = by_layer
    assert thresholds_of(mixed) == (16, 32)


def test_a_text_as_long_as_the_threshold_does_not_exceed_it() -> None:
    assert [regime_of(length, (16, 32)) for length in (1, 16, 17, 32, 33)] == [0, 0, 1, 1, 2]
    assert regime_of(10**6, ()) == 0
