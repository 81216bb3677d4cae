"""Files of a model, from its directory or from the hub, which is asked once before transformers asks it often."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from huggingface_hub import constants, get_hf_file_metadata, hf_hub_url
from huggingface_hub.errors import HfHubHTTPError, HFValidationError
from transformers.utils import cached_file

from bossa.errors import ModelError
from bossa.frontend.quiet import quiet
from bossa.frontend.reasons import one_line
from bossa.host import network


def reach(model: str, cache_dir: str | Path | None) -> bool:
    """Whether the hub answers; if not, what is in its cache is all that there is.

    Libraries try again and again, for half a minute and more, where no network is.

    Raises:
        ModelError: the name is none that the hub has, or the hub does not answer and the cache does not have the model.
    """
    if constants.HF_HUB_OFFLINE:
        return False
    try:
        patience = network.PATIENCE
        network.within(2 * patience, lambda: get_hf_file_metadata(hf_hub_url(model, "config.json"), timeout=patience))
    except HfHubHTTPError:  # it answers; what it says is said better where the file is fetched
        return True
    except HFValidationError as error:
        raise ModelError(f"{model}: no such directory, and not a valid name on the hub ({one_line(error)})") from None
    except Exception as error:  # the hub's HTTP clients have errors of their own, which change with its releases
        if fetched(model, "config.json", {"cache_dir": cache_dir, "local_files_only": True}) is None:
            raise ModelError(
                f"{model}: no such directory, and no such model could be fetched from the hub, which cannot be reached"
                f" ({one_line(error, 120)}): check the network, or name a directory"
            ) from None
        return False
    return True


def fetched(place: str, name: str, arguments: dict[str, Any]) -> Path | None:
    """A file of a model on this machine; None where the model has none, or none that can be had."""
    found = Path(place)
    if found.is_file():
        return found
    if found.is_dir():
        return found / name if (found / name).is_file() else None
    options = {key: value for key, value in arguments.items() if key in ("cache_dir", "local_files_only")}
    try:
        with quiet():
            path = cached_file(
                place,
                name,
                _raise_exceptions_for_missing_entries=False,
                _raise_exceptions_for_connection_errors=False,
                _raise_exceptions_for_gated_repo=False,
                **options,
            )
    except OSError:
        return None
    return None if path is None else Path(path)
