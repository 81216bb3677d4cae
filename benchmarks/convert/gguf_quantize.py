"""A GGUF file in another precision, by llama.cpp's own code.

gguf_quantize.py IN.gguf OUT.gguf q8_0|q4_0
"""

from __future__ import annotations

import sys

import llama_cpp as llama

KINDS = {"q4_0": llama.LLAMA_FTYPE_MOSTLY_Q4_0, "q8_0": llama.LLAMA_FTYPE_MOSTLY_Q8_0}

if __name__ == "__main__":
    source, target, kind = sys.argv[1:]
    params = llama.llama_model_quantize_default_params()
    params.ftype = KINDS[kind]
    sys.exit(llama.llama_model_quantize(source.encode(), target.encode(), params))
