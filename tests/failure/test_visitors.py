"""The judges of the traffic: every answer that must not be is seen, or the other tests here would prove nothing."""

from __future__ import annotations

import json

import pytest
from visited_app import Answer, Headers
from visitors import Request, Requests, Verdict, Visitor

COOKIE = "__Host-session=first; Path=/; Max-Age=604800"
CLEARED = "__Host-session=; Path=/; Max-Age=0"


def page(user: str | None, *numbers: int, visits: int | None = None, headers: Headers | None = None) -> Answer:
    body = {"user": user, "visits": len(numbers) if visits is None else visits, "numbers": numbers}
    return Answer(200, headers or [], json.dumps(body).encode())


REFUSAL = Answer(503, [("retry-after", "5")])


@pytest.fixture
def visitor() -> Visitor:
    return Visitor("alice")


def written(visitor: Visitor, *answers: Answer) -> tuple[Requests, Request]:
    """Log in, and give these answers to what follows: a write (0), two reads, a write (1)… Gives the next request."""
    life = visitor.life()
    request = next(life)
    assert request.path == "/login/alice"
    for answer in (page("alice", headers=[("set-cookie", COOKIE)]), *answers):
        request = life.send(request.judge(answer))
    return life, request


def test_right_answers_are_right(visitor: Visitor) -> None:
    _, request = written(visitor, page("alice", 0), page("alice", 0), page("alice", 0))
    assert request.path == "/visit/1"
    assert request.cookie == "__Host-session=first"
    assert request.judge(page("alice", 0, 1)) is Verdict.RIGHT
    assert (visitor.faults, visitor.losses, visitor.writes) == ([], [], 2)


def test_a_refused_write_may_be_there_and_may_not(visitor: Visitor) -> None:
    _, request = written(visitor, REFUSAL)
    assert request.judge(page("alice")) is Verdict.RIGHT
    assert request.judge(page("alice", 0)) is Verdict.RIGHT
    assert (visitor.faults, visitor.losses, visitor.writes) == ([], [], 0)


def test_a_refused_write_that_was_shown_must_stay(visitor: Visitor) -> None:
    _, request = written(visitor, REFUSAL, page("alice", 0))
    request.judge(page("alice"))
    assert [loss.what for loss in visitor.losses] == ["write"]


def test_an_acknowledged_write_that_is_gone_is_a_loss(visitor: Visitor) -> None:
    _, request = written(visitor, page("alice", 0))
    request.judge(page("alice"))
    assert [loss.what for loss in visitor.losses] == ["write"]
    request.judge(page("alice"))
    assert len(visitor.losses) == 1, "counted once"


@pytest.mark.parametrize(
    ("answer", "fault"),
    [
        (page("bob", 0), "another's session"),
        (page("alice", 0, 0), "applied twice"),
        (page("alice", 0, visits=2), "half of a write"),
        (page("alice", 0, 99), "never made"),
        (Answer(500), "status 500"),
        (Answer(503), "status 503"),
        (Answer(503, [("retry-after", "5"), ("set-cookie", CLEARED)]), "clears the cookie"),
    ],
    ids=["another's", "twice", "half", "never made", "500", "no retry-after", "cookie cleared"],
)
def test_wrong_answers_are_wrong(visitor: Visitor, answer: Answer, fault: str) -> None:
    _, request = written(visitor, page("alice", 0))
    assert request.judge(answer) is Verdict.WRONG
    assert fault in visitor.faults[0]


def test_a_session_that_is_gone_is_a_loss_with_all_its_writes(visitor: Visitor) -> None:
    life, request = written(visitor, page("alice", 0))
    request = life.send(request.judge(page(None, headers=[("set-cookie", CLEARED)])))
    assert [loss.what for loss in visitor.losses] == ["session", "write"]
    assert request.path == "/logout/", "and the visitor begins anew"


def test_a_cookie_that_works_after_the_logout_is_a_loss(visitor: Visitor) -> None:
    life, request = written(visitor)
    numbers: list[int] = []
    while request.path != "/logout/":
        if request.path.startswith("/visit/"):
            numbers.append(int(request.path.rpartition("/")[2]))
        request = life.send(request.judge(page("alice", *numbers)))
    request = life.send(request.judge(page(None, headers=[("set-cookie", CLEARED)])))
    assert (request.path, request.cookie) == ("/profile/", "__Host-session=first")
    assert request.judge(page("alice")) is Verdict.RIGHT
    assert [loss.what for loss in visitor.losses] == ["logout"]
    assert request.judge(page("bob")) is Verdict.WRONG
