"""Finding the token's field in the beginning of a form, piece by piece as it arrives. No I/O.

A body is not read to its end for this: uploads stay streams.
"""

from __future__ import annotations

from typing import Final, Protocol

from coatcheck.csrf.policy import SEARCHED_BYTES
from coatcheck.csrf.tokens import FIELD
from coatcheck.errors import MissingExtra

try:
    from python_multipart import create_form_parser
except ImportError as error:
    _feature = "CSRF protection of forms"
    raise MissingExtra(_feature, "csrf") from error

_FORMS: Final = ("application/x-www-form-urlencoded", "multipart/form-data")
_FIELD: Final = FIELD.encode("ascii")


class _Field(Protocol):
    @property
    def field_name(self) -> bytes | None: ...

    @property
    def value(self) -> bytes | None: ...


class FormSearch:
    """Looks for the field in a body that is fed to it.

    Args:
        content_type: the request's Content-Type. A body that is not a form is not looked at.
    """

    def __init__(self, content_type: str) -> None:
        self.token: str | None = None
        """What the field holds, once it is found."""
        self.is_over = True
        """Whether to stop feeding: it is found, or not going to be."""
        self._left = SEARCHED_BYTES
        if content_type.partition(";")[0].strip().lower() in _FORMS:
            try:
                headers = {"Content-Type": content_type.encode("latin-1", "replace")}
                self._parser = create_form_parser(headers, self._found, None)
            except ValueError:
                return  # a multipart form without a boundary
            self.is_over = False

    def feed(self, chunk: bytes, *, is_last: bool) -> None:
        """Look at a piece of the body."""
        if self.is_over:
            return
        try:
            self._parser.write(chunk[: self._left])
            if is_last:
                self._parser.finalize()
        except ValueError:  # it is not what its Content-Type says; the application may say so
            self.is_over = True
        self._left -= len(chunk)
        self.is_over = self.is_over or is_last or self._left <= 0

    def _found(self, field: _Field) -> None:
        if field.field_name == _FIELD and self.token is None:
            self.token = (field.value or b"").decode("latin-1")
            self.is_over = True
