"""The devices page: where a user is logged in, and how to end that."""

from __future__ import annotations

from starlette.requests import Request
from starlette.responses import JSONResponse, RedirectResponse, Response

from coatcheck.demo import steps
from coatcheck.demo.guard import require_login
from coatcheck.demo.pages import page
from coatcheck.demo.requests import prefers_json, read_form, session_of, sessions_of, text_field
from coatcheck.demo.users import User
from coatcheck.session_info import SessionInfo


@require_login
async def devices(request: Request, user: User) -> Response:
    """Show every session of the user."""
    infos = await steps.list_devices(sessions_of(request), session_of(request), user)
    if prefers_json(request):
        return JSONResponse({"sessions": [_as_json(info) for info in infos]})
    latest_first = sorted(infos, key=lambda info: (info.is_current, info.last_seen_at, info.created_at), reverse=True)
    config = sessions_of(request).config
    precision = config.idle_timeout * config.refresh_after
    return await page(request, "devices.html", devices=latest_first, precision=precision)


def _as_json(info: SessionInfo) -> dict[str, object]:
    return {
        "handle": info.handle,
        "current": info.is_current,
        "created_at": info.created_at.isoformat(),
        "last_seen_at": info.last_seen_at.isoformat(),
        "expires_at": info.expires_at.isoformat(),
        "user_agent": info.user_agent,
    }


@require_login
async def revoke(request: Request, user: User) -> Response:
    """End one of the user's sessions."""
    handle = text_field(await read_form(request), "handle")
    session = session_of(request)
    is_found = await steps.sign_out_device(sessions_of(request), session, user, handle)
    if prefers_json(request):
        if is_found:
            return JSONResponse({"revoked": True})
        return JSONResponse({"error": "not_found", "message": steps.NO_SUCH_DEVICE}, 404)
    if not is_found:
        session.flash(steps.NO_SUCH_DEVICE, "problem")
    return RedirectResponse("/devices", 303)


@require_login
async def revoke_others(request: Request, user: User) -> Response:
    """End all of the user's sessions but this one."""
    count = await steps.sign_out_others(sessions_of(request), session_of(request), user)
    return JSONResponse({"revoked": count}) if prefers_json(request) else RedirectResponse("/devices", 303)
