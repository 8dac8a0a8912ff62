"""Models that read pictures: their text towers have a budget as models of text have."""

from __future__ import annotations

import pytest

pytest.importorskip("torch")
pytest.importorskip("transformers")

import torch
import transformers

from budgeteer.cache import BudgetedCache, budgeted
from budgeteer.core.errors import InvalidInput
from budgeteer.models.inside import argument_of

pytestmark = pytest.mark.filterwarnings("ignore:.past_key_values.:FutureWarning")
TEXT = {
    "vocab_size": 97, "hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 2, "num_attention_heads": 4,
    "num_key_value_heads": 2, "head_dim": 8, "max_position_embeddings": 512, "pad_token_id": 0, "bos_token_id": 1,
    "eos_token_id": 2,
}  # fmt: skip
VISION = {
    "hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 2, "num_attention_heads": 4, "image_size": 28,
    "patch_size": 14,
}  # fmt: skip
PICTURE = 96
"""Token that stands for a part of a picture."""


def llava():
    configuration = transformers.LlavaConfig(
        vision_config=transformers.CLIPVisionConfig(**VISION, projection_dim=32),
        text_config=transformers.LlamaConfig(**TEXT), image_token_index=PICTURE, image_seq_length=4,
    )  # fmt: skip
    return transformers.LlavaForConditionalGeneration(configuration).eval()


def gemma3():
    slides = {"sliding_window": 16, "layer_types": ["sliding_attention", "full_attention"]}
    configuration = transformers.Gemma3Config(
        vision_config=transformers.SiglipVisionConfig(**VISION),
        text_config=transformers.Gemma3TextConfig(**{**TEXT, **slides}), image_token_index=PICTURE,
        mm_tokens_per_image=4,
    )  # fmt: skip
    configuration.image_token_id = PICTURE
    return transformers.Gemma3ForConditionalGeneration(configuration).eval()


def prompt() -> dict[str, torch.Tensor]:
    """A text with a picture, of four tokens."""
    rng = torch.Generator().manual_seed(1)
    ids = torch.randint(3, 90, (1, 40), generator=rng)
    ids[0, 5:9] = PICTURE
    given = {"input_ids": ids, "attention_mask": torch.ones_like(ids), "token_type_ids": (ids == PICTURE).long()}
    return given | {"pixel_values": torch.randn(1, 3, 28, 28, generator=rng)}


def made(kind: str):
    torch.manual_seed(3)
    model = {"llava": llava, "gemma3": gemma3}[kind]()
    given = prompt()
    if kind == "llava":
        del given["token_type_ids"]
    return model, given


@pytest.mark.parametrize("method", ["snapkv:window=4,split=ada-kv", "h2o", "arkv:window=4"])
@pytest.mark.parametrize("kind", ["llava", "gemma3"])
def test_the_text_tower_keeps_what_it_would_keep_of_the_same_states(kind: str, method: str) -> None:
    """What the tower is given is noted, and given to it once more by itself."""
    model, given = made(kind)
    tower, noted = model.model.language_model, {}

    def note(module, args, kwargs) -> None:
        noted.update({name: value for name, value in kwargs.items() if name not in ("cache", "past_key_values")})

    handle = tower.register_forward_pre_hook(note, with_kwargs=True)
    with torch.no_grad():
        wanted = model(**given).logits
        assert torch.equal(model(**given, past_key_values=BudgetedCache(model, "100%", method)).logits, wanted)
        cache = BudgetedCache(model, "50%", method)
        assert torch.equal(model(**given, past_key_values=cache).logits, wanted)
        handle.remove()
        alone = BudgetedCache(tower, "50%", method)
        tower(**noted, **{argument_of(tower): alone})
        for mine, other in zip(cache.layers, alone.layers, strict=True):
            assert torch.equal(mine.storage.slots(40), other.storage.slots(40))
        assert cache.account().kept < cache.account().total
        token = torch.tensor([[7]])
        found = model(input_ids=token, past_key_values=cache).logits
        assert torch.equal(found, model.lm_head(tower(input_ids=token, past_key_values=alone).last_hidden_state))
    with budgeted(model, "50%", method):
        assert model.generate(**given, max_new_tokens=3, min_new_tokens=3, do_sample=False).shape == (1, 43)


def test_a_second_reading_without_the_picture_is_refused() -> None:
    model, given = made("llava")
    with torch.no_grad(), pytest.raises(InvalidInput, match=r"no pictures or sounds \(pixel_values\)"):
        model(**given, past_key_values=BudgetedCache(model, "50%", "kvzip"))
