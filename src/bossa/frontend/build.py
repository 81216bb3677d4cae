"""A model on the meta device: every parameter a shape only, every computed buffer real."""

from __future__ import annotations

import copy
import logging
import warnings
from collections.abc import Iterator
from contextlib import contextmanager

import torch
from transformers import AutoModelForCausalLM, PretrainedConfig

from bossa.errors import CompileError, ModelError

LONGEST_BY_DEFAULT = 32768
"""Where a model allows more, position tables this long are made unless a longer length is asked for."""


LONGEST = 1 << 18
"""The longest that a program can be compiled for: a table for each position is kept in the file and in memory."""


@contextmanager
def quiet() -> Iterator[None]:
    """Third-party warnings and logs off."""
    logger = logging.getLogger("transformers")
    level = logger.level
    logger.setLevel(logging.ERROR)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            yield
        finally:
            logger.setLevel(level)


def sequence_limit(config: PretrainedConfig, asked: int | None) -> int:
    """The longest sequence to compile for, ``asked`` or the model's own maximum."""
    own = None
    for name in ("max_position_embeddings", "n_positions", "max_seq_len", "seq_length", "n_ctx", "max_sequence_length"):
        value = getattr(config, name, None)
        if isinstance(value, int) and value > 1:
            own = value
            break
    if asked is not None and asked != -1:
        if asked < 2:
            raise CompileError(f"max_seq_length is {asked}; it must be 2 or more, or -1 for the model's own maximum")
        if asked > LONGEST:
            raise CompileError(f"max_seq_length is {asked:,}; position tables are made for {LONGEST:,} tokens at most")
        return asked
    return min(own or 2048, LONGEST_BY_DEFAULT)


def build_model(config: PretrainedConfig, implementation: str, *, trust_remote_code: bool = False) -> torch.nn.Module:
    """The causal LM of `config` in fp32 and eval mode, parameters on ``meta``, non-persistent buffers computed."""
    config = copy.deepcopy(config)
    try:
        with quiet(), torch.device("meta"):
            model = AutoModelForCausalLM.from_config(
                config, attn_implementation=implementation, dtype=torch.float32, trust_remote_code=trust_remote_code
            ).eval()
    except Exception as error:  # whatever the model's own constructor raises
        kind = getattr(config, "model_type", type(config).__name__)
        first = (str(error).splitlines() or [type(error).__name__])[0]
        if "trust_remote_code" in first:
            raise ModelError(f"{kind}: the model needs its own code; --trust-remote-code allows it") from error
        cause = f"{type(error).__name__}: {first[:200]}"
        raise ModelError(f"{kind}: transformers cannot build a causal language model of it ({cause})") from error
    _compute_buffers(model)
    return model


def copy_on_meta(model: torch.nn.Module, implementation: str) -> torch.nn.Module:
    """A copy of a causal LM in eval mode: parameters and saved buffers on ``meta``, the others with their values.

    What was replaced on the instances, forwards among them, is replaced in the copy.

    Raises:
        CompileError: something in it cannot be copied.
    """
    memo: dict[int, object] = {}
    for parameter in model.parameters():
        outline = torch.empty(parameter.shape, dtype=parameter.dtype, device="meta")
        memo[id(parameter)] = torch.nn.Parameter(outline, requires_grad=False)
    for module in model.modules():
        for name, buffer in module._buffers.items():
            if buffer is not None and name not in module._non_persistent_buffers_set:
                memo[id(buffer)] = buffer.to("meta")
    try:
        copied = copy.deepcopy(model, memo).eval()
    except Exception as error:  # whatever an attribute raises that a program has set
        cause = f"{type(error).__name__}: {(str(error).splitlines() or [''])[0][:200]}"
        raise CompileError(f"{type(model).__name__} cannot be copied ({cause})") from error
    for module in copied.modules():
        config = getattr(module, "config", None)
        if isinstance(config, PretrainedConfig):
            config._attn_implementation = implementation
            config.use_cache = False
    return copied


def _compute_buffers(model: torch.nn.Module) -> None:
    """Give non-persistent buffers their values, as transformers does after loading on ``meta``: by `_init_weights`."""
    for path, module in model.named_modules():
        names = [name for name in module._buffers if name in module._non_persistent_buffers_set]
        names = [name for name in names if module._buffers[name] is not None and module._buffers[name].is_meta]
        if not names:
            continue
        owner = _initializer(model, path)
        first = _initialized(owner, module, names, 0)
        second = _initialized(owner, module, names, 1)
        for name in names:
            if not torch.equal(first[name], second[name]):  # what it was filled with is still there
                raise CompileError(
                    f"{path}.{name}: a buffer of {type(module).__name__} that is computed in __init__ and not again by"
                    " _init_weights; Bossa cannot know its values without allocating the model"
                )


def _initialized(
    owner: torch.nn.Module, module: torch.nn.Module, names: list[str], fill: int
) -> dict[str, torch.Tensor]:
    """The buffers of a module after `_init_weights`, having been full of `fill` before."""
    for name in names:
        buffer = module._buffers[name]
        module._buffers[name] = torch.full(buffer.shape, fill, dtype=buffer.dtype, device="cpu")
    with torch.no_grad():
        owner._init_weights(module)
    return {name: module._buffers[name] for name in names}


def _initializer(model: torch.nn.Module, path: str) -> torch.nn.Module:
    """The innermost PreTrainedModel that owns the module at `path`."""
    owner, module = model, model
    for part in path.split("."):
        if part:
            module = getattr(module, part)
            if hasattr(module, "_init_weights"):
                owner = module
    return owner


def fix_frequencies(model: torch.nn.Module, max_seq_length: int) -> None:
    """Fix rotary frequencies that depend on the sequence's length (dynamic NTK, longrope) at `max_seq_length`.

    Each such module runs once on positions up to the maximum, which sets its frequencies; after that it is an ordinary
    one.
    """
    for _, module in model.named_modules():
        kind = getattr(module, "rope_type", None)
        if kind is None or not any(isinstance(b, torch.Tensor) for b in module._buffers.values()):
            continue
        kinds = kind if isinstance(kind, dict) else {None: kind}
        dynamic = [layer for layer, k in kinds.items() if k and ("dynamic" in k or k == "longrope")]
        if not dynamic:
            continue
        positions = torch.arange(max_seq_length)[None]
        for layer in dynamic:
            arguments = {} if layer is None else {"layer_type": layer}
            with torch.no_grad(), quiet():
                module(torch.zeros(1, 1, 1), positions, **arguments)
        if isinstance(kind, dict):
            module.rope_type = {layer: "default" if layer in dynamic else k for layer, k in kind.items()}
        else:
            module.rope_type = "default"
