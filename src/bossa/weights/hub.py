"""Models on the Hugging Face hub: from the local hub cache where they lie whole, fetched otherwise."""

from __future__ import annotations

import contextlib
import os
import re
from collections.abc import Iterator
from pathlib import Path

from bossa.errors import ModelError, WeightsError, shown
from bossa.host import network
from bossa.host.home import NoHome, expanded
from bossa.weights.shards import numbered_shards, read_index
from bossa.weights.source import INDEX, PARTS

HUB_ID = re.compile(r"[A-Za-z0-9][\w.-]{0,95}(/[A-Za-z0-9][\w.-]{0,95})?\Z")
FILE_ENDINGS = (".safetensors", ".pt", ".pth", ".bin", ".ckpt", ".gguf", ".json")
LONGEST_SHOWN = 200
ALLOWED = ["*.json", "*.safetensors", "*.txt", "*.jinja", "*.model"]


def find_model(name: str, cache_dir: str | os.PathLike[str] | None = None) -> Path:
    """The directory of a model's snapshot, by its hub id.

    The cache is looked at first, so a model that was fetched before is found without the network and without
    importing the hub's library.

    Raises:
        ModelError: the name is neither a path nor a hub id, or the hub cannot be reached or does not have it.
    """
    if not HUB_ID.match(name) or name.endswith(FILE_ENDINGS):
        raise ModelError(f"{_cut(shown(name))}: no such model or file: check the path")
    found = cached_snapshot(name, cache_dir)
    return found if found is not None else _fetch(name, cache_dir)


def cached_snapshot(name: str, cache_dir: str | os.PathLike[str] | None = None) -> Path | None:
    """The newest snapshot of a model's main branch in the hub cache, if it has a config and all of its weights."""
    cache = Path(cache_dir) if cache_dir is not None else _hub_cache()
    if cache is None:
        return None
    model = cache / ("models--" + name.replace("/", "--"))
    try:
        revision = (model / "refs" / "main").read_text().strip()
    except (OSError, UnicodeDecodeError):
        return None
    if not re.fullmatch(r"[0-9a-f]{7,64}", revision):
        return None
    folder = model / "snapshots" / revision
    return folder if (folder / "config.json").is_file() and _has_weights(folder) else None


def _cut(name: str) -> str:
    return name if len(name) <= LONGEST_SHOWN else name[: LONGEST_SHOWN - 1] + "…"


def _has_weights(folder: Path) -> bool:
    for part in PARTS:
        if (folder / part).is_file():
            return True
        if (folder / (part + INDEX)).is_file():
            try:
                read_index(folder / (part + INDEX))
            except WeightsError:  # a download that was stopped halfway
                return False
            return True
    with contextlib.suppress(OSError, WeightsError):
        return bool(numbered_shards(folder, os.listdir(folder)))
    return False


def _hub_cache() -> Path | None:
    """Where the hub's library keeps its cache: the same environment variables, in the same order; None without a home.

    Raises:
        ModelError: a variable names the home of a user that there is not.
    """
    places = (("HF_HUB_CACHE", ""), ("HUGGINGFACE_HUB_CACHE", ""), ("HF_HOME", "hub"))
    for variable, below in (*places, ("XDG_CACHE_HOME", "huggingface/hub")):
        if value := os.environ.get(variable):
            try:
                return expanded(value) / below
            except NoHome as error:
                raise ModelError(f"{variable}: {shown(value)}: {error}: set it to another path") from None
    try:
        return expanded("~/.cache/huggingface/hub")
    except NoHome:
        return None


def files_on_hub(name: str) -> list[str]:
    """The names of a model's files on the hub, by one request: without an answer it is given up after seconds.

    The hub's library itself tries again and again for half a minute, and without any bound where nothing answers.

    Raises:
        ModelError: the hub cannot be reached, or does not have the model.
    """
    from huggingface_hub import HfApi

    patience = network.PATIENCE
    with _explained(name):
        info = network.within(2 * patience, lambda: HfApi().model_info(name, timeout=patience))
        return [file.rfilename for file in info.siblings or ()]


def _fetch(name: str, cache_dir: str | os.PathLike[str] | None) -> Path:
    from huggingface_hub import snapshot_download

    patterns = list(ALLOWED)
    if not any(file.endswith(".safetensors") and "/" not in file for file in files_on_hub(name)):
        patterns.append("pytorch_model*.bin")
    folder = Path(cache_dir) if cache_dir is not None else None
    with _explained(name):
        return Path(snapshot_download(name, cache_dir=folder, allow_patterns=patterns, ignore_patterns=["*/*"]))


@contextlib.contextmanager
def _explained(name: str) -> Iterator[None]:
    """Turns the errors of the hub's library into one of ours."""
    from huggingface_hub.errors import GatedRepoError, RepositoryNotFoundError

    try:
        yield
    except GatedRepoError:
        raise ModelError(f"{name}: the hub asks for access to this model: log in with 'hf auth login'") from None
    except RepositoryNotFoundError:
        raise ModelError(f"{name}: no such file or directory, and no such model on the hub: check the name") from None
    except Exception as error:  # the hub's HTTP clients have errors of their own, which change with its releases
        reason = shown((str(error).strip().splitlines() or [type(error).__name__])[0][:120])
        raise ModelError(
            f"{name}: no such file or directory, and no such model could be fetched from the hub ({reason}):"
            " check the name and the network, or pass a directory"
        ) from None
