"""Text to token ids and back, as transformers does it, without it."""

from bossa.tokenizer.detokenizer import Detokenizer
from bossa.tokenizer.files import read_tokenizer_files, shorten
from bossa.tokenizer.tokenizer import Tokenizer

__all__ = ["Detokenizer", "Tokenizer", "read_tokenizer_files", "shorten"]
