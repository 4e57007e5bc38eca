"""Requests with one old cookie run into each other in every way, and crash between any two calls.

Each request is a generator of operations, so the test decides which of them takes its next step. Whatever the order,
one session comes of the old one, nothing committed is lost, a crash loses nothing, and after a logout or a revocation
nothing comes back. (A request that changes something after that begins a new session, which is nobody's.)
"""

from __future__ import annotations

from collections.abc import Generator
from typing import Any

import pytest
from faces import Face, Kind
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st
from old_shop import OldShop

from coatcheck.keeper import Steps

ACTIONS = ("read", "change", "fail", "logout")
REVOKE = "revoke the user"
ENDS = ("logout", REVOKE)


class Visit:
    """A request with the old cookie, from its beginning to its response; or a revocation of its user."""

    def __init__(self, face: Face, cookie: str, action: str, name: str) -> None:
        self.face, self.action, self.name = face, action, name
        self.work: Any = face.sessions.begin([cookie.encode()])._work
        self.token: str | None = None
        self.may_have_ended = False
        self.has_answered = False
        self.is_over = False
        self._steps = self._run()
        self._result: Any = None

    def _run(self) -> Generator[Any, Any, None]:
        lifecycle, work = self.face.sessions.lifecycle, self.work
        if self.action == REVOKE:
            self.may_have_ended = True
            yield from self.face.sessions.administration.revoke_user("alice", None)
            self.has_answered = True
            return
        yield from lifecycle.load(work)
        if self.action == "change":
            work.assign(self.name, 1)
        if self.action == "logout":
            self.may_have_ended = True
            work.destroy()
        rule = self.face.sessions._rule_for(500 if self.action == "fail" else 200)
        steps: Steps[None] | None = rule(work)
        yield from steps or ()
        yield from lifecycle.adoption.leftover(work.claimed) or ()
        set_cookie = self.face.sessions._sealed(work)
        if set_cookie is not None and "Max-Age=0" not in set_cookie:
            self.token = set_cookie.partition(";")[0]
        self.has_answered = True

    def step(self) -> None:
        """Carry out one operation."""
        try:
            operation = self._steps.send(self._result)
        except StopIteration:
            self.is_over = True
        else:
            self._result = self.face.run(operation.perform(self.face.sessions.store))


def come(face: Face, cookie: str) -> Any:
    session: Any = face.sessions.begin([cookie.encode()])
    face.run(session.load())
    return session


def check(face: Face, cookie: str, visits: list[Visit]) -> None:
    """Look at what is there when all is over."""
    tokens = {visit.token for visit in visits if visit.token is not None}
    last = come(face, cookie)
    logins = [session for session in [come(face, token) for token in tokens] if "user" in session]
    assert len({each.handle for each in [*logins, last] if not each.is_new}) <= 1
    index = {device.handle for device in face.run(face.sessions.for_user("alice"))}
    assert {info.handle for info in face.listed(face.sessions.iterate()) if info.user_id == "alice"} <= index
    if any(visit.has_answered and visit.action in ENDS for visit in visits):
        assert (logins, dict(last)) == ([], {})
    elif not any(visit.may_have_ended for visit in visits):
        changes = {visit.name for visit in visits if visit.has_answered and visit.action == "change"}
        assert last.get("user") == "alice"
        assert changes <= set(last)
        assert all(dict(each) == dict(last) for each in logins)


@pytest.mark.parametrize("kept", ["remove", "keep"])
@pytest.mark.parametrize("action", ACTIONS)
def test_a_crash_at_any_point_loses_nothing_and_brings_nothing_back(kind: Kind, action: str, kept: Any) -> None:
    crashes = 0
    while True:
        old = OldShop(user_id=lambda values: values.get("user"), old=kept)
        face = Face(kind, "memory://", adopt=[old])
        cookie = old.put("s1", user="alice")
        visit = Visit(face, cookie, action, "a")
        for _ in range(crashes):
            visit.step()
        if visit.is_over:
            break
        check(face, cookie, [visit])
        crashes += 1
    assert crashes >= 6


ADOPTS_AND_REMOVES_IN_BETWEEN = [1] + [0] * 20
LOGS_OUT_IN_BETWEEN = [1, 1, 1, 1, 1] + [0] * 20


@pytest.mark.parametrize("kept", ["remove", "keep"])
@settings(max_examples=150, suppress_health_check=list(HealthCheck))
@given(
    actions=st.lists(st.sampled_from([*ACTIONS, REVOKE]), min_size=2, max_size=3),
    turns=st.lists(st.integers(0, 2), max_size=40),
    crashes=st.dictionaries(st.integers(0, 2), st.integers(0, 12), max_size=1),
)
@example(actions=["read", "change"], turns=ADOPTS_AND_REMOVES_IN_BETWEEN, crashes={})
@example(actions=["logout", "change"], turns=LOGS_OUT_IN_BETWEEN, crashes={})
@example(actions=[REVOKE, "change"], turns=LOGS_OUT_IN_BETWEEN, crashes={})
def test_whatever_the_order_one_session_comes_of_it(
    kind: Kind, kept: Any, actions: list[str], turns: list[int], crashes: dict[int, int]
) -> None:
    old = OldShop(user_id=lambda values: values.get("user"), old=kept)
    face = Face(kind, "memory://", adopt=[old])
    cookie = old.put("s1", user="alice")
    visits = [Visit(face, cookie, action, f"by {number}") for number, action in enumerate(actions)]
    left = {number: crashes.get(number, 1_000) for number in range(len(visits))}
    turns = [*turns, *(number for _ in range(60) for number in range(3))]
    for turn in turns:
        number = turn % len(visits)
        if left[number] > 0 and not visits[number].is_over:
            left[number] -= 1
            visits[number].step()
    check(face, cookie, visits)
    Face.close_all()


def test_a_session_that_lost_the_race_leaves_nothing_behind(kind: Kind) -> None:
    old = OldShop(user_id=lambda values: values.get("user"))
    face = Face(kind, "memory://", adopt=[old])
    cookie = old.put("s1", user="alice")
    visits = [Visit(face, cookie, "read", name) for name in "abc"]
    while not all(visit.is_over for visit in visits):
        for visit in visits:
            visit.step()
    assert [visit.work.standing for visit in visits] == ["stored"] * 3
    keys, _ = face.run(face.sessions.store.scan("", 100))
    assert sorted(key.partition("-")[0] if "-" in key else "session" for key in keys) == ["adopted", "session", "user"]
