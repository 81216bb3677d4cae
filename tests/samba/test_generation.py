"""``generate`` with a step of the program's, and without one."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator
from types import MethodType
from typing import Any

import pytest
import torch
import transformers
from torch import nn
from torch.nn import functional as F  # noqa: N812
from transformers.modeling_outputs import CausalLMOutputWithPast

from bossa import samba

LENGTH = 16
PROMPT = torch.tensor([[5, 9, 2, 7]])
PADDED = torch.tensor([[0, 0, 3, 4, 5], [8, 1, 6, 2, 5]])
MASK = (PADDED != 0).long()
OPTIONS: dict[str, Any] = {"max_length": 14, "do_sample": False, "pad_token_id": 0}


@pytest.fixture(params=["gpt2", "llama"])
def model(request: pytest.FixtureRequest) -> Iterator[Any]:
    torch.manual_seed(2)
    config: transformers.PreTrainedConfig
    if request.param == "gpt2":
        config = transformers.GPT2Config(
            n_embd=32, n_layer=2, n_head=4, n_positions=LENGTH, vocab_size=90, bos_token_id=0, eos_token_id=0
        )
    else:
        config = transformers.LlamaConfig(
            hidden_size=32, intermediate_size=48, num_hidden_layers=2, num_attention_heads=4, vocab_size=90,
            max_position_embeddings=LENGTH, eos_token_id=0,
        )  # fmt: skip
    made = transformers.AutoModelForCausalLM.from_config(config).eval()
    cls = type(made)
    yield made
    if "__call__" in vars(cls):
        del cls.__call__


def step(self: Any, *args: Any, **kwargs: Any) -> CausalLMOutputWithPast:
    """A step such as programs put in the place of a model's own: padded, without a cache."""
    n = kwargs["input_ids"].shape[1]
    ids = F.pad(kwargs["input_ids"], (0, LENGTH - n)).int()
    mask = F.pad(kwargs["attention_mask"], (0, LENGTH - n))
    positions = (mask.cumsum(-1) - 1).clamp(min=0)
    with torch.no_grad():
        # the class's forward, whatever has been put before it
        logits = type(self).forward(self, ids, attention_mask=mask, position_ids=positions.int()).logits
    return CausalLMOutputWithPast(logits=logits[:, :n, :].float())


def into_class(model: Any) -> None:
    type(model).__call__ = step


def into_instance(model: Any) -> None:
    model.forward = MethodType(step, model)


@pytest.mark.parametrize("replace", [into_class, into_instance])
def test_a_replaced_step_gives_the_tokens_of_generate(model: Any, replace: Callable[[Any], None]):
    expected = model.generate(PROMPT, **OPTIONS)
    padded = model.generate(PADDED, attention_mask=MASK, **OPTIONS)
    beams = model.generate(PROMPT, num_beams=3, **OPTIONS)
    samba.from_torch_model_(model)
    replace(model)
    assert torch.equal(model.generate(PROMPT, **OPTIONS), expected)
    assert torch.equal(model.generate(PROMPT, use_cache=False, **OPTIONS), expected)
    assert torch.equal(model.generate(PADDED, attention_mask=MASK, **OPTIONS), padded)
    assert torch.equal(model.generate(PROMPT, num_beams=3, **OPTIONS), beams)


def test_a_model_that_nobody_touched_generates_as_before_with_its_cache(model: Any):
    expected = model.generate(PROMPT, **OPTIONS)
    padded = model.generate(PADDED, attention_mask=MASK, **OPTIONS)
    samba.from_torch_model_(model)
    lengths = []
    model.register_forward_pre_hook(
        lambda module, args, kwargs: lengths.append(kwargs["input_ids"].shape[1]), with_kwargs=True
    )
    assert torch.equal(model.generate(PROMPT, **OPTIONS), expected)
    assert lengths[:3] == [4, 1, 1]
    assert torch.equal(model.generate(PADDED, attention_mask=MASK, **OPTIONS), padded)


def test_a_replaced_step_that_keeps_the_cache_is_given_the_last_id_alone(model: Any):
    expected = model.generate(PROMPT, **OPTIONS)
    samba.from_torch_model_(model)
    lengths = []

    def own(self: Any, *args: Any, **kwargs: Any) -> Any:
        lengths.append(kwargs["input_ids"].shape[1])
        return nn.Module.__call__(self, *args, **kwargs)

    type(model).__call__ = own
    assert torch.equal(model.generate(PROMPT, **OPTIONS), expected)
    assert lengths[:3] == [4, 1, 1]


def test_a_copy_prepares_its_own_steps(model: Any):
    samba.from_torch_model_(model)
    assert copy.deepcopy(model).prepare_inputs_for_generation.__self__ is not model


def test_a_model_inside_another_module_is_prepared_too(model: Any):
    expected = model.generate(PROMPT, **OPTIONS)
    samba.from_torch_model_(nn.ModuleDict({"lm": model}))
    into_class(model)
    assert torch.equal(model.generate(PROMPT, **OPTIONS), expected)
