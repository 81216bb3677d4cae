"""A short name for how a native program expects its memory to be laid out, which a file's manifest must share."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from typing import Any

LAYOUT = ("max_seq_length", "vocab_size", "page_size", "page_bytes", "kv_precision", "slots", "constants")
"""The fields of a manifest that a program and its loader must agree on, or it would read what is not there."""


STATE = ("state_bytes", "state_drafts")
"""More of them, of programs with recurrent state; the others have none of these."""


def signature(manifest: Mapping[str, Any]) -> str:
    """32 hexadecimal digits of SHA-256 over the layout fields of a manifest, as JSON."""
    fields = {name: manifest[name] for name in LAYOUT}
    if manifest.get("state_bytes"):
        fields |= {name: manifest[name] for name in STATE}
    text = json.dumps(fields, sort_keys=True, separators=(",", ":"), ensure_ascii=True)
    return hashlib.sha256(text.encode()).hexdigest()[:32]
