"""Python source as HTML, for the pages to show the code that runs behind them."""

from __future__ import annotations

import inspect
import io
import keyword
import tokenize
from collections.abc import Callable
from functools import cache
from typing import Any, Final

from markupsafe import Markup, escape

_CLASS_OF_TYPE: Final = {tokenize.COMMENT: "comment", tokenize.STRING: "string"}


@cache
def listing(function: Callable[..., Any]) -> Markup:
    """Give a function's source, with comments, strings and keywords marked by CSS classes."""
    source = inspect.getsource(function).rstrip()
    lines = source.splitlines(keepends=True)
    starts = [0]
    for line in lines:
        starts.append(starts[-1] + len(line))
    parts: list[str] = []
    done = 0
    for token in tokenize.generate_tokens(io.StringIO(source).readline):
        css_class = _CLASS_OF_TYPE.get(token.type)
        if token.type == tokenize.NAME and keyword.iskeyword(token.string):
            css_class = "keyword"
        if css_class is None:
            continue
        start = starts[token.start[0] - 1] + token.start[1]
        end = starts[token.end[0] - 1] + token.end[1]
        parts.append(escape(source[done:start]))
        parts.append(Markup('<span class="{}">{}</span>').format(css_class, source[start:end]))
        done = end
    return Markup("").join([*parts, escape(source[done:])])
