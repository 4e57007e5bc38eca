"""The answer to what guards raise in Django's views."""

from __future__ import annotations

from typing import Any, Final
from urllib.parse import SplitResult, urlsplit, urlunsplit

from django.conf import settings
from django.http import HttpResponse, QueryDict
from django.shortcuts import resolve_url

from coatcheck.errors import LoginRequired
from coatcheck.guard import Guard, Request
from coatcheck.integrations._django_headers import put_headers

_GUARD: Final = Guard(login_path="/")
"""Says who is sent to the login, and with which `next`. Where that is says LOGIN_URL, which may be another site's."""


def answer_login_required(request: Any, error: LoginRequired) -> HttpResponse:
    """Send browsers to LOGIN_URL, and tell programs by 401 and JSON."""
    accept, sec_fetch_mode = (request.headers.get(name, "") for name in ("Accept", "Sec-Fetch-Mode"))
    refusal = _GUARD.answer(error, Request(request.method, request.get_full_path(), accept, sec_fetch_mode))
    response = HttpResponse(refusal.body, status=refusal.status)
    put_headers(response, list(refusal.headers))
    if "Location" in response:
        response["Location"] = _login_page(request, urlsplit(response["Location"]).query)
    return response


def _login_page(request: Any, following: str) -> str:
    """Give the address of the login, with more for its query: to another site, `next` has to say of which it is."""
    page: SplitResult = urlsplit(resolve_url(settings.LOGIN_URL))
    query = QueryDict(page.query, mutable=True)
    for name, path in QueryDict(following).items():
        query[name] = request.build_absolute_uri(path) if page.netloc else path
    return urlunsplit(page._replace(query=query.urlencode()))
