"""What may be called what in a program: nothing that could be more than a name wherever it is printed."""

from __future__ import annotations

import re

from bossa.errors import shown

LONGEST = 4096
_NAME = re.compile(rf"[\w.*\-/:+\[\]()@,='|]{{1,{LONGEST}}}")
"""Letters, digits and the marks that tensors' names have: no space, quote, backslash or line break."""
LONGEST_TITLE = 255


def is_name(text: object) -> bool:
    """Whether a value, a weight, a table or a tensor may be called this."""
    return isinstance(text, str) and _NAME.fullmatch(text) is not None


def is_title(text: object) -> bool:
    """Whether a program may be called this: one line of text that can be shown as it is."""
    return isinstance(text, str) and 0 < len(text) <= LONGEST_TITLE and shown(text) == text
