"""The fuzzed readers by name. Each is imported where it is used: some need torch and transformers."""

from __future__ import annotations

import importlib
import os

from fuzz.reader import Reader

LIGHT = {
    "pef": "fuzz.readers.program_files:PefReader",
    "module-pef": "fuzz.readers.program_files:ModulePefReader",
    "program": "fuzz.readers.programs:ProgramReader",
    "safetensors": "fuzz.readers.safetensors:SafetensorsReader",
    "index": "fuzz.readers.safetensors:IndexReader",
    "cache": "fuzz.readers.packed:CacheReader",
    "tokenizer": "fuzz.readers.tokenizers:TokenizerReader",
    "template": "fuzz.readers.templates:TemplateReader",
    "prompts": "fuzz.readers.prompts:PromptsReader",
}
HEAVY = {
    "config": "fuzz.readers.configs:ConfigReader",
    "torch": "fuzz.readers.torch_files:TorchReader",
    "gguf": "fuzz.readers.gguf:GgufReader",
}
"""These import torch or transformers, which takes seconds."""
READERS = LIGHT | HEAVY
OTHER = "BOSSA_FUZZ_READER"
"""The environment's name of a reader beyond these: the tests have one that answers as none should."""


def make(name: str) -> Reader:
    module, _, kind = (READERS.get(name) or os.environ[OTHER]).partition(":")
    reader: Reader = getattr(importlib.import_module(module), kind)()
    return reader
