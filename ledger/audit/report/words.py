"""Every sentence of a report, in the languages that there are. The files `words_*.toml` hold them, with the same keys."""

from __future__ import annotations

import re
import tomllib
from collections.abc import Mapping
from functools import lru_cache
from importlib import resources
from typing import Any, Final

from ledger.core.errors import FixInput

LANGUAGES: Final = ("en", "fr")
_UNBREAKABLE: Final = re.compile(r" (?=[:;?!»])|(?<=«) ")
"""French has a space before these signs and inside quotation marks, at which no line may end."""


class Words:
    """The sentences of one language, found by dotted key. Raises KeyError for one that the files do not have."""

    def __init__(self, lang: str, values: Mapping[str, Any]) -> None:
        self.lang, self._values = lang, values

    def __call__(self, key: str, **parameters: object) -> str:
        """The sentence, its placeholders filled with values that are fit to be shown."""
        return str(self._value(key)).format_map(parameters)

    def has(self, key: str) -> bool:
        try:
            self._value(key)
        except KeyError:
            return False
        return True

    def items(self, key: str) -> tuple[str, ...]:
        """A list of sentences."""
        return tuple(self._value(key))

    def rows(self, key: str) -> tuple[Mapping[str, str], ...]:
        """A table of sentences."""
        return tuple(self._value(key))

    def number(self, value: int) -> str:
        """A number with its thousands apart, as the language writes it."""
        return f"{value:,}".replace(",", "\u00a0" if self.lang == "fr" else ",")

    def _value(self, key: str) -> Any:
        value: Any = self._values
        for part in key.split("."):
            value = value[part]
        return value


@lru_cache
def words(lang: str) -> Words:
    """Raises FixInput for a language that there is not."""
    if lang not in LANGUAGES:
        raise FixInput(f"reports are written in {' and '.join(LANGUAGES)}, not in {lang!r}")
    text = resources.files("ledger.audit.report").joinpath(f"words_{lang}.toml").read_text("utf-8")
    values = tomllib.loads(text)
    return Words(lang, _typeset(values) if lang == "fr" else values)


def _typeset(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _typeset(one) for key, one in value.items()}
    if isinstance(value, list):
        return [_typeset(one) for one in value]
    return _UNBREAKABLE.sub("\u00a0", value)
