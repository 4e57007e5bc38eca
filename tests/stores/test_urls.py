"""What is said of a store's URL that is not understood: enough to mend it, and nothing of a password."""

from __future__ import annotations

import time
import traceback
from typing import Any

import pytest

from coatcheck.errors import ConfigurationError
from coatcheck.stores.redis import SyncRedisStore
from coatcheck.stores.url import sync_store_from_url

PASSWORD = "hunter2-correct-horse"  # never to be seen


@pytest.mark.parametrize(
    "make", [lambda url: sync_store_from_url(url, time.time), SyncRedisStore], ids=["any", "redis"]
)
@pytest.mark.parametrize(
    "url",
    [
        f"redis://:{PASSWORD}",
        f"redis://user:{PASSWORD}",
        f"redis://user:\u2100{PASSWORD}@host:6379/0",
        f"redis://user:[{PASSWORD}@host:6379/0",
        f"redis://user:{PASSWORD}/x@host",
        f"redis://user:{PASSWORD}@host:port/0",
        f"redis://user:{PASSWORD}@host:0/0",
        f"redis://user:p@host/{PASSWORD}",
        f"redis+cluster://a,user:{PASSWORD}",
        f"redis+sentinel://user:{PASSWORD}/service",
        f"unix://user:\u2100{PASSWORD}@/run/valkey.sock",
        f"sqlite://user:{PASSWORD}@host/file",
        f"sqlite://user:\u2100{PASSWORD}@host/file",
        f"sqlite://[{PASSWORD}/file",
        f"sqlite:///file?key={PASSWORD}",
        f"sqlite:///file#{PASSWORD}",
        f"memory://{PASSWORD}",
        f"memory://[{PASSWORD}",
        f"{PASSWORD}@host",
        f"user:{PASSWORD}@host:6379",
        f"user:{PASSWORD}@host://",
    ],
)
def test_url_that_is_not_understood_is_refused_without_showing_a_password(make: Any, url: str) -> None:
    with pytest.raises(ConfigurationError) as refused:
        make(url)
    error: BaseException | None = refused.value
    while error is not None:
        assert PASSWORD not in "".join(traceback.format_exception_only(error))
        error = error.__cause__ or error.__context__


@pytest.mark.parametrize(
    "url", ["sqlite:///", "sqlite://file", "sqlite:///file?mode=ro", "sqlite:///file#1", "sqlite://["]
)
def test_sqlite_url_that_is_not_understood_is_refused_with_what_is_expected(url: str) -> None:
    with pytest.raises(ConfigurationError, match="sqlite:///relative/file or sqlite:////absolute/file"):
        sync_store_from_url(url, time.time)
