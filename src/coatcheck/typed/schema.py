"""The schema: what an application makes of its session's type, and asks for the session's values.

What the type says is in `fields`, how changes are found and merged in `view`.
"""

from __future__ import annotations

from collections.abc import MutableMapping
from typing import Any, Generic, Literal, TypeAlias, TypeVar, get_args

from coatcheck.errors import ConfigurationError, SessionError, UnfitValue
from coatcheck.events import logger
from coatcheck.session import BaseSession
from coatcheck.typed.fields import Declared
from coatcheck.typed.view import Migrate, Rules, TypedView

T = TypeVar("T")

WhenUnfit: TypeAlias = Literal["default", "raise"]


class SessionSchema(Generic[T]):
    """What an application keeps in its session, as a type.

    Make one for each type, where the application is set up. Every field is one key of the session, so that concurrent
    requests that change different fields both win.

    Args:
        kind: a dataclass, a `msgspec.Struct`, a `TypedDict` or a `pydantic.BaseModel`. Every field has a default, or in
            a TypedDict may be missing, because a new session has no values.
        migrate: makes a value that fits of a stored one that does not; see `Migrate`.
        when_unfit: what `of` does with a stored value that does not fit, if there is no `migrate` or it raises.
            "default" shows the field's default, leaves what is stored as it is, and says so in the log; "raise" raises
            `UnfitValue`.

    Raises:
        ConfigurationError: the type can't be a session's.
    """

    def __init__(self, kind: type[T], *, migrate: Migrate | None = None, when_unfit: WhenUnfit = "default") -> None:
        if when_unfit not in get_args(WhenUnfit):
            msg = f"when_unfit: expected 'default' or 'raise', got {when_unfit!r}"
            raise ConfigurationError(msg)
        if migrate is not None and not callable(migrate):
            msg = f"migrate: expected a function of key, value and error, got a {type(migrate).__name__}"
            raise ConfigurationError(msg)
        self._declared = Declared(kind)
        self._raises = when_unfit == "raise"
        self._rules = Rules(migrate, self._report)
        self._reported: set[tuple[str, str]] = set()

    def of(self, session: MutableMapping[str, Any]) -> T:
        """Give the session's values as an instance of the type: the same one whenever a request asks.

        Changes of it, also deep inside, are stored with the session's other changes.

        Args:
            session: a `Session` or `SyncSession`, by whatever type the framework gives it.

        Raises:
            UnfitValue: with `when_unfit="raise"`, a stored value does not fit.
            SessionNotLoaded: a lazily loaded session was not loaded yet.
            SessionError: this is not a session of Coatcheck's.
        """
        if not isinstance(session, BaseSession):
            msg = f"of() needs a session of Coatcheck's, got a {type(session).__name__}: is its middleware installed?"
            raise SessionError(msg)
        work = session._read()
        for each in work.views:
            if isinstance(each, TypedView) and each.shows(self._declared):
                view: TypedView[T] = each
                view.show(work)
                break
        else:
            view = TypedView(self._declared, self._rules, work)
            work.views += (view,)
        if self._raises:
            for misfit in view.misfits():  # a new one: one that is raised holds on to all that is at work
                raise UnfitValue(str(misfit), key=misfit.key, expected=misfit.expected, found=misfit.found)
        return view.instance

    def _report(self, misfit: UnfitValue) -> None:
        """Say once for each kind of value that it does not fit. Never shows the value."""
        kind = (misfit.key, misfit.found)
        if self._raises or kind in self._reported:
            return
        self._reported.add(kind)
        logger.warning(
            "%s. Its default is shown, and what is stored is left as it is until the field is assigned. "
            "Give SessionSchema a migrate function to convert such values (said once for each kind)",
            misfit,
        )

    def __repr__(self) -> str:
        """Show the type."""
        return f"SessionSchema({self._declared.name})"
