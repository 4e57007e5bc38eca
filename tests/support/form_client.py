"""A client that sends forms as pages do: from the demo's own origin, and with the CSRF token that it gave."""

from __future__ import annotations

from typing import Any

import httpx


class FormClient(httpx.AsyncClient):
    """Asks for a token before each request that changes something and carries a session."""

    async def request(self, method: str, url: httpx.URL | str, **options: Any) -> httpx.Response:
        """Send a request, with its token. Give `headers={"X-CSRF-Token": ...}` to send another."""
        headers = dict(options.pop("headers", None) or {})
        if method in ("GET", "HEAD", "OPTIONS"):
            return await super().request(method, url, headers=headers, **options)
        headers.setdefault("Origin", str(self.base_url).rstrip("/"))
        if self.cookies and "X-CSRF-Token" not in headers:
            profile = await self.get("/profile", headers={"Accept": "application/json"}, follow_redirects=False)
            if profile.status_code == 200:
                headers["X-CSRF-Token"] = profile.json()["csrf_token"]
        return await super().request(method, url, headers=headers, **options)
