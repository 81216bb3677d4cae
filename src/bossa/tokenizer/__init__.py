"""Text to token ids and back, as transformers does it, without it."""

from bossa.tokenizer.detokenizer import Detokenizer
from bossa.tokenizer.files import read_tokenizer_files, refuse_pointer, settled, shorten
from bossa.tokenizer.tokenizer import ChatText, Tokenizer

__all__ = [
    "ChatText",
    "Detokenizer",
    "Tokenizer",
    "read_tokenizer_files",
    "refuse_pointer",
    "settled",
    "shorten",
]
