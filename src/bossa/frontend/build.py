"""A model on the meta device: every parameter a shape only, every computed buffer real."""

from __future__ import annotations

import copy
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch.nn.modules.module import register_module_module_registration_hook
from transformers import AutoModelForCausalLM, PretrainedConfig

from bossa.checks.arguments import described
from bossa.errors import BossaError, CompileError, ModelError, shown
from bossa.frontend import sizes
from bossa.frontend.config import refused
from bossa.frontend.quiet import quiet
from bossa.frontend.reasons import NoSuchAttention, one_line
from bossa.host.resources import free_memory

LONGEST_BY_DEFAULT = 32768
"""Where a model allows more, position tables this long are made unless a longer length is asked for."""


LONGEST = 1 << 18
"""The longest that a program can be compiled for: a table for each position is kept in the file and in memory."""

MOST_MODULES = 100_000
"""In one model: the largest have some ten thousand."""

MOST_WEIGHTS = 1 << 44
"""In one model, some 18 million millions: the largest have a tenth of one million millions."""

_POSITIONS = ("max_position_embeddings", "n_positions", "max_seq_len", "seq_length", "n_ctx", "max_sequence_length")


def sequence_limit(config: PretrainedConfig, asked: int | None) -> int:
    """The longest sequence to compile for, ``asked`` or the model's own maximum, but by default no more than
    `LONGEST_BY_DEFAULT`.

    Raises:
        CompileError: what is asked, or what the config says, is no length that a sequence can have.
    """
    if asked is not None and asked != -1:
        if asked < 2:
            raise CompileError(
                f"max_seq_length is {described(asked)}; it must be 2 or more, or -1 for the model's own maximum"
            )
        if asked > LONGEST:
            told = f"{asked:,}" if asked < 10**18 else described(asked)
            raise CompileError(f"max_seq_length is {told}; position tables are made for {LONGEST:,} tokens at most")
        return asked
    return min(_own_limit(config), LONGEST_BY_DEFAULT)


def tell_shortened(config: PretrainedConfig, asked: int | None) -> None:
    """Warn where the model allows more than it is compiled for and nothing was asked; once it is known to compile."""
    own = _own_limit(config) if asked in (None, -1) else 0
    if own > LONGEST_BY_DEFAULT:
        warnings.warn(
            f"the model allows {own:,} tokens, and is compiled for {LONGEST_BY_DEFAULT:,}: --max_seq_length (in Python"
            f" max_seq_length) asks for more, up to {LONGEST:,}",
            stacklevel=2,
        )


def _own_limit(config: PretrainedConfig) -> int:
    """The most tokens that the model was made for.

    Raises:
        CompileError: what the config says is no length that a sequence can have.
    """
    own = 2048
    for name in _POSITIONS:
        value = getattr(config, name, None)
        if isinstance(value, int) and not isinstance(value, bool):
            own = value
            if own < 2:
                field = sizes.spelled(config, name)
                raise CompileError(f"{field} is {own} in the model's config; it must be 2 or more: correct the config")
            break
    return own


def build_model(config: PretrainedConfig, implementation: str, *, trust_remote_code: bool = False) -> torch.nn.Module:
    """The causal LM of `config` in fp32 and eval mode, parameters on ``meta``, non-persistent buffers computed.

    Raises:
        ModelError: transformers cannot build it, or what it builds is of a size that no model has.
        CompileError: a buffer's values cannot be known.
    """
    config = copy.deepcopy(config)
    kind = shown(getattr(config, "model_type", "") or type(config).__name__)
    try:
        with quiet(), torch.device("meta"), _counted(kind):
            model = AutoModelForCausalLM.from_config(
                config, attn_implementation=implementation, dtype=torch.float32, trust_remote_code=trust_remote_code
            ).eval()
    except BossaError:
        raise
    except Exception as error:  # whatever the model's own constructor raises
        if "trust_remote_code" in str(error):
            raise ModelError(f"{kind}: the model needs its own code; --trust-remote-code allows it") from error
        if isinstance(error, KeyError) and error.args == (implementation,):
            raise NoSuchAttention(f"{kind}: transformers has no attention {implementation!r} for it") from error
        missing = str(error.args[0]).partition(" in ACT2FN")[0] if isinstance(error, KeyError) and error.args else None
        field, name = sizes.unknown_name(config, missing)
        if field:
            raise refused(kind, field, name, "one that transformers knows") from error
        cause = f"{type(error).__name__}: {one_line(error)}"
        if fields := ", ".join(sizes.zeros(config)):
            raise ModelError(f"{kind}: {fields} must not be 0 ({cause}): correct the config") from error
        raise ModelError(f"{kind}: transformers cannot build a causal language model from it ({cause})") from error
    _check_sizes(model, config, kind)
    _compute_buffers(model)
    return model


@contextmanager
def _counted(kind: str) -> Iterator[None]:
    """Within it, no more than `MOST_MODULES` are built."""
    count = 0

    def registered(_parent: Any, _name: str, _module: Any) -> None:
        nonlocal count
        count += 1
        if count > MOST_MODULES:
            raise ModelError(f"{kind}: its config asks for more than {MOST_MODULES:,} modules: correct its numbers")

    handle = register_module_module_registration_hook(registered)
    try:
        yield
    finally:
        handle.remove()


def _check_sizes(model: torch.nn.Module, config: PretrainedConfig, kind: str) -> None:
    """Refuse weights of no size, and more of them than any model has."""
    total, largest = 0, ("", (0,), 0)
    for name, parameter in model.named_parameters():
        count = parameter.numel()
        total += count
        largest = max(largest, (name, tuple(parameter.shape), count), key=lambda entry: entry[2])
        if not count:
            fields = ", ".join(sizes.zeros(config))
            why = f"{fields} must not be 0" if fields else "a size in its config must not be 0"
            raise ModelError(f"{kind}: {name} would have the shape {list(parameter.shape)}: {why}: correct the config")
    if total > MOST_WEIGHTS:
        raise ModelError(
            f"{kind}: it would have {total:.1e} weights ({largest[0]} {list(largest[1])}): correct the sizes in its"
            " config"
        )


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
        cause = f"{type(error).__name__}: {one_line(error)}"
        raise CompileError(f"{type(model).__name__} cannot be copied ({cause})") from error
    for module in copied.modules():
        config = getattr(module, "config", None)
        if isinstance(config, PretrainedConfig):
            config._attn_implementation = implementation
            config.use_cache = False
    return copied


def _compute_buffers(model: torch.nn.Module) -> None:
    """Give non-persistent buffers their values, as transformers does after loading on ``meta``: by `_init_weights`."""
    wanted: list[tuple[str, torch.nn.Module, list[str]]] = []
    for path, module in model.named_modules():
        names = [name for name in module._buffers if name in module._non_persistent_buffers_set]
        names = [name for name in names if (buffer := module._buffers[name]) is not None and buffer.is_meta]
        if names:
            wanted.append((path, module, names))
    _check_room(wanted)
    for path, module, names in wanted:
        owner = _initializer(model, path)
        first = _initialized(owner, module, names, 0)
        second = _initialized(owner, module, names, 1)
        for name in names:
            one, other = first[name], second[name]
            if torch.is_floating_point(one) and bool((one.isnan() | (one == torch.inf)).any()):
                raise ModelError(
                    f"{path}.{name}: by the config, a buffer of {type(module).__name__} has values that are not finite:"
                    " correct it (for rotary positions, rope_theta and rope_parameters)"
                )
            if not torch.equal(one, other):  # what it was filled with is still there
                raise CompileError(
                    f"{path}.{name}: a buffer of {type(module).__name__} that is computed in __init__ and not again by"
                    " _init_weights; Bossa cannot know its values without allocating the model"
                )


def _check_room(wanted: list[tuple[str, torch.nn.Module, list[str]]]) -> None:
    """Refuse buffers that memory does not hold, before they are made twice over."""
    bytes_of = {
        f"{path}.{name}": buffer.numel() * buffer.element_size()
        for path, module, names in wanted
        for name in names
        if (buffer := module._buffers[name]) is not None
    }
    largest = max(bytes_of, key=lambda name: bytes_of[name], default="")
    total = sum(bytes_of.values()) + bytes_of.get(largest, 0)
    if total > 1 << 26 and total > free_memory():
        raise ModelError(
            f"{largest}: the buffers that the model computes take {total / 1e9:,.1f} GB, more than is free: correct the"
            " sizes in its config, the number of positions among them"
        )


def _initialized(
    owner: torch.nn.Module, module: torch.nn.Module, names: list[str], fill: int
) -> dict[str, torch.Tensor]:
    """The buffers of a module after `_init_weights`, having been full of `fill` before."""
    for name in names:
        buffer = module._buffers[name]
        module._buffers[name] = torch.full(buffer.shape, fill, dtype=buffer.dtype, device="cpu")
    try:
        with torch.no_grad(), quiet():
            owner._init_weights(module)
    except Exception as error:  # what a class computes of odd values in its config
        cause = f"{type(error).__name__}: {one_line(error)}"
        raise ModelError(
            f"{type(module).__name__}: its buffers cannot be computed from the config ({cause})"
        ) from error
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

    Raises:
        ModelError: what the config says of them cannot be computed.
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
            try:
                with torch.no_grad(), quiet():
                    module(torch.zeros(1, 1, 1), positions, **arguments)
            except Exception as error:  # what a class computes of odd values in its config
                cause = f"{type(error).__name__}: {one_line(error)}"
                raise ModelError(
                    f"{type(module).__name__}: rotary frequencies cannot be computed from the config ({cause})"
                ) from error
        if isinstance(kind, dict):
            module.rope_type = {layer: "default" if layer in dynamic else k for layer, k in kind.items()}
        else:
            module.rope_type = "default"
