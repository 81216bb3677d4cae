"""What an answer must be, as options give it: texts to choose from, and a file with a JSON schema."""

from __future__ import annotations

from typing import Any

import click

from bossa.cli.options import Text

MOST_BYTES = 16 << 20
"""Of a file with a schema."""


class Choices(click.ParamType["tuple[str, ...]"]):
    """Texts with commas between them, or a JSON list of texts, for those that hold commas themselves."""

    name = "texts"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> tuple[str, ...]:
        if isinstance(value, tuple):
            return value
        text = Text().convert(value, param, ctx)
        if not text.lstrip().startswith("["):
            texts = text.split(",")
        else:
            import json

            try:
                texts = json.loads(text)
            except (ValueError, RecursionError) as error:
                self.fail(f"it begins with [, and is no JSON list: {error}", param, ctx)
        for place, each in enumerate(texts):
            if not isinstance(each, str) or not each:
                self.fail(f"choice {place + 1} of {value!r} is no text, or empty: write it like good,bad", param, ctx)
            if each in texts[:place]:
                self.fail(f"{each!r} is there twice: leave one of them out", param, ctx)
        if not texts:
            self.fail("there are none in the list: write it like good,bad", param, ctx)
        return tuple(texts)


class SchemaFile(click.ParamType[str]):
    """A file with a JSON schema: its text."""

    name = "file"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> str:
        from bossa.errors import RequestError
        from bossa.sampling.declaration import schema

        try:
            with open(value, "rb") as file:
                content = file.read(MOST_BYTES + 1)
            if len(content) > MOST_BYTES:
                self.fail(f"{value}: has more than {MOST_BYTES >> 20} MiB, which no schema needs", param, ctx)
            text = content.decode("utf-8-sig")
            schema(str(value), text)
        except (OSError, ValueError) as error:  # UnicodeDecodeError is one
            reason = getattr(error, "strerror", None) or str(error)
            self.fail(f"{value} cannot be read: {reason}", param, ctx)
        except RequestError as error:
            self.fail(str(error), param, ctx)
        return text


CONSTRAINTS: dict[str, click.ParamType[Any]] = {"choices": Choices(), "json_schema": SchemaFile()}
"""The types of the options whose values are neither numbers nor one text."""
