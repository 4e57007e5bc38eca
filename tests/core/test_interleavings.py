"""Requests of one user run into each other in every way, and crash between any two calls to the store.

Each request is a generator of store operations, so a test decides which of them takes its next step. A model knows
what must be true of the sessions whatever the order: none is alive that its user's index does not know, none comes back
after its end, nothing committed is lost, and nobody sees with a token from before a login what came after it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass, field
from datetime import timedelta
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import pytest
import redis
from faces import KEY, Face, Kind
from hypothesis import HealthCheck, Phase, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule
from servers import Server, server_binaries

from coatcheck.errors import TooManySessions
from coatcheck.interop.redistore import RedistoreStore, SyncRedistoreStore
from coatcheck.keeper import Steps
from coatcheck.operations import Load
from coatcheck.record import Record
from coatcheck.stores.memory import MemoryStore, SyncMemoryStore
from coatcheck.stores.protocol import HasTokens
from coatcheck.stores.sqlite import SQLiteStore, SyncSQLiteStore
from coatcheck.testing import ManualClock
from coatcheck.token import is_store_key
from coatcheck.users import epoch_key, index_key, user_tag

USERS = ("alice", "bob")


@dataclass(eq=False)
class Family:
    """One session through all the IDs that it has had, as the model sees it."""

    user: str | None
    token: str
    older_tokens: list[str] = field(default_factory=list)
    committed: set[str] = field(default_factory=set)
    ended: bool = False
    end_covers_heirs: bool = False
    """It was ended itself, so a login on it that was under way must not outlive it either."""
    heirs: list[Family] = field(default_factory=list)
    """What logins made of it."""

    def end(self) -> None:
        """Its end, by a logout or by its handle."""
        self.ended = self.end_covers_heirs = True
        for heir in self.heirs:
            heir.end()


class Process:
    """A request under way: its remaining steps, and what is to be noted when it is done."""

    def __init__(self, steps: Steps[Any], done: Callable[[Any], None], user: str | None) -> None:
        self.steps = steps
        self.done = done
        self.user = user
        self.result: Any = None
        self.keys_to_load: list[str] = []
        self.is_over = False

    def step(self, face: Face) -> None:
        """Carry out one store operation."""
        if self.keys_to_load:
            self.load_next(face)
            return
        try:
            operation = self.steps.send(self.result)
        except StopIteration as stop:
            self.is_over = True
            self.done(stop.value)
        except TooManySessions:
            self.is_over = True
        else:
            self.perform(face, operation)

    def perform(self, face: Face, operation: Any) -> None:
        """Ask the store, for one key at a time: a cluster has a user's records and the session's on different nodes."""
        if not isinstance(operation, Load):
            self.result = face.run(operation.perform(face.sessions.store))
            return
        self.result, self.keys_to_load = [], list(operation.keys)
        if self.keys_to_load:
            self.load_next(face)

    def load_next(self, face: Face) -> None:
        self.result += face.run(Load((self.keys_to_load.pop(0),)).perform(face.sessions.store))


class Interleavings(RuleBasedStateMachine):
    """Random orders. The subclasses say on which store, async or sync."""

    kind: Kind = "sync"
    store_context: Any = None

    def __init__(self) -> None:
        super().__init__()
        self.clock = ManualClock()
        self._context = self.make_store()
        store = self._context.__enter__()
        self.face = Face(
            self.kind,
            store,
            secret_keys=None if isinstance(store, HasTokens) else [KEY],
            clock=self.clock,
            max_sessions_per_user=3,
            renew_every=timedelta(minutes=20),
        )
        self.families: list[Family] = []
        self.processes: list[Process] = []
        self.counter = 0

    @contextmanager
    def make_store(self) -> Iterator[Any]:
        yield (SyncMemoryStore if self.kind == "sync" else MemoryStore)(clock=self.clock)

    def teardown(self) -> None:
        Face.close_all()
        self._context.__exit__(None, None, None)

    # --- helpers ------------------------------------------------------------------------------------------------

    def start(self, steps: Steps[Any] | None, done: Callable[[Any], None], user: str | None = None) -> None:
        if steps is None:
            done(None)
        else:
            self.processes.append(Process(steps, done, user))

    def some_family(self, data: Any) -> Family:
        return data.draw(st.sampled_from([family for family in self.families if not family.ended]))  # type: ignore[no-any-return]

    @property
    def lifecycle(self) -> Any:
        return self.face.sessions.lifecycle

    # --- rules --------------------------------------------------------------------------------------------------

    @initialize()
    def begin(self) -> None:
        for user in (None, *USERS):
            session = self.face.request()
            session["start"] = 1
            if user is not None:
                session.login(user)
            self.face.respond(session)
            self.families.append(Family(user, session.token, committed={"start"}))

    @precondition(lambda self: any(not family.ended for family in self.families))
    @rule(data=st.data())
    def write(self, data: Any) -> None:
        """A request that adds a value of its own."""
        family = self.some_family(data)
        session = self.face.request(family.token)
        self.counter += 1
        key = f"key{self.counter}"
        session[key] = self.counter
        work = session._work
        existed = not session.is_new

        handle = session.handle

        def done(_: Any) -> None:
            if session.has_ended:
                return
            family.committed.add(key)
            if work.moved_to is None and session.handle != handle:  # this request renewed the session
                family.older_tokens.append(family.token)
                family.token = session.token

        if existed:
            self.start(self.lifecycle.commit(work), done, family.user)

    @precondition(lambda self: any(not family.ended for family in self.families))
    @rule(data=st.data(), user=st.sampled_from(USERS))
    def log_in(self, data: Any, user: str) -> None:
        """A login on a session, as its user, another one, or for the first time."""
        family = self.some_family(data)
        session = self.face.request(family.token)
        continues = not session.is_new and family.user in (None, user)
        takes_over = not session.is_new and not continues
        session.login(user)

        def done(_: Any) -> None:
            if takes_over:
                family.end()  # it was another user's
            if session.has_ended:
                return
            heir = Family(user, session.token, [family.token, *family.older_tokens], set(dict(session)))
            self.families.append(heir)
            if continues:
                if family.end_covers_heirs:
                    heir.end()
                family.ended = True  # what it was lives on in its heir
                family.heirs.append(heir)

        self.start(self.lifecycle.commit(session._work), done, user)

    @precondition(lambda self: any(not family.ended for family in self.families))
    @rule(data=st.data())
    def log_out(self, data: Any) -> None:
        family = self.some_family(data)
        session = self.face.request(family.token)
        if session.is_new:
            return
        session.destroy()

        self.start(self.lifecycle.commit(session._work), lambda _: family.end(), family.user)

    @precondition(lambda self: any(not family.ended for family in self.families))
    @rule(data=st.data())
    def revoke(self, data: Any) -> None:
        family = self.some_family(data)
        session = self.face.request(family.token)
        if session.is_new:
            return

        self.start(self.face.sessions.administration.revoke(session.handle), lambda _: family.end(), family.user)

    @rule(user=st.sampled_from(USERS))
    def revoke_user(self, user: str) -> None:
        before = [family for family in self.families if family.user == user]

        def done(_: Any) -> None:
            for family in before:
                family.ended = True

        self.start(self.face.sessions.administration.revoke_user(user, None), done, user)

    @rule(minutes=st.sampled_from([5, 25, 70]))
    def let_time_pass(self, minutes: int) -> None:
        """Requests do not take minutes, so those under way are finished first."""
        self.finish_all()
        self.clock.advance(timedelta(minutes=minutes))

    @precondition(lambda self: self.processes)
    @rule(data=st.data(), steps=st.integers(1, 4))
    def step(self, data: Any, steps: int) -> None:
        """One of the requests under way goes on."""
        process = data.draw(st.sampled_from(self.processes))
        for _ in range(steps):
            if not process.is_over:
                process.step(self.face)
        if process.is_over:
            self.processes.remove(process)

    @precondition(lambda self: self.processes)
    @rule(data=st.data())
    def crash(self, data: Any) -> None:
        """One of the requests under way is never heard of again."""
        process = data.draw(st.sampled_from(self.processes))
        self.processes.remove(process)
        process.steps.close()

    @rule()
    def finish_all(self) -> None:
        for process in self.processes:
            while not process.is_over:
                process.step(self.face)
        self.processes.clear()

    # --- what must be true ----------------------------------------------------------------------------------------

    @invariant()
    def every_live_session_of_a_user_is_in_the_index(self) -> None:
        for key, record in self.records().items():
            if isinstance(record, Record) and record.login is not None and self.is_of_epoch(record):
                index = self.find(index_key(user_tag(record.login.user_id)))
                assert index is not None
                assert key in index.entries

    @invariant()
    def what_has_ended_does_not_come_back(self) -> None:
        for family in self.families:
            if family.ended:
                for token in (family.token, *family.older_tokens):
                    session = self.face.request(token)
                    assert session.is_new or session.user_id != family.user, family

    @invariant()
    def a_token_from_before_a_login_sees_nothing_of_it(self) -> None:
        for family in self.families:
            for token in family.older_tokens:
                session = self.face.request(token)
                if session.user_id is not None:
                    assert session.user_id == family.user
                    assert session._work.moved_to is not None, "only the grace after a renewal lets an old token in"

    @invariant()
    def what_was_committed_is_there_while_the_session_lives(self) -> None:
        for family in self.families:
            session = self.face.request(family.token)
            if not family.ended and not session.is_new and session.user_id == family.user:
                assert family.committed <= set(session)

    @invariant()
    def nobody_has_more_sessions_than_allowed(self) -> None:
        if not self.processes:
            for user in USERS:
                assert len(self.face.run(self.face.sessions.for_user(user))) <= 3 + self.crashed_renewals(user)

    def crashed_renewals(self, user: str) -> int:
        """A renewal that crashed leaves a second record of its session, whose ID nobody knows."""
        known = {self.face.request(family.token).handle for family in self.families}
        listed = {info.handle for info in self.face.run(self.face.sessions.for_user(user))}
        return len(listed - known)

    def records(self) -> dict[str, Any]:
        cursor, records = "", {}
        while True:
            keys, cursor = self.face.run(self.face.sessions.store.scan(cursor, 100))
            records.update({key: self.find(key) for key in keys if is_store_key(key)})
            if not cursor:
                return records

    def find(self, key: str) -> Any:
        (_, record), _ = self.face.run_steps(self.lifecycle.keeper.find(key))
        return record

    def is_of_epoch(self, record: Record) -> bool:
        assert record.login is not None
        epoch = self.find(epoch_key(user_tag(record.login.user_id)))
        return epoch is None or record.login.epoch >= epoch.epoch


SETTINGS = settings(
    max_examples=80,
    stateful_step_count=25,
    deadline=None,
    suppress_health_check=list(HealthCheck),
    phases=[Phase.explicit, Phase.generate],
)


class InMemoryAsync(Interleavings):
    kind = "async"


class InSQLite(Interleavings):
    @contextmanager
    def make_store(self) -> Iterator[Any]:
        with TemporaryDirectory(prefix="coatcheck-test-") as folder:
            kind = SyncSQLiteStore if self.kind == "sync" else SQLiteStore
            yield kind(Path(folder) / "sessions.sqlite3", clock=self.clock)


class InSQLiteAsync(InSQLite):
    kind = "async"


class InValkey(Interleavings):
    """On a server, whose own clock stands for ours: time that passes is only that of the rules."""

    server: Server

    @contextmanager
    def make_store(self) -> Iterator[Any]:
        with closing(redis.Redis(port=self.server.port)) as client:
            client.flushall()
        yield self.server.url


class InValkeyAsync(InValkey):
    kind = "async"


class InRedistore(InValkey):
    """As Go keeps its sessions, with no Go about. Its tokens don't say whose session it is."""

    @contextmanager
    def make_store(self) -> Iterator[Any]:
        with super().make_store() as url:
            kind = SyncRedistoreStore if self.kind == "sync" else RedistoreStore
            yield kind(url, key_pairs=[KEY.encode()], clock=self.clock)


class InRedistoreAsync(InRedistore):
    kind = "async"


def run(machine: type[Interleavings]) -> None:
    case = machine.TestCase
    case.settings = SETTINGS
    case().runTest()


@pytest.mark.parametrize("machine", [Interleavings, InMemoryAsync, InSQLite, InSQLiteAsync])
def test_no_order_of_steps_and_crashes_breaks_a_promise(machine: type[Interleavings]) -> None:
    run(machine)


@pytest.mark.parametrize("machine", [InValkey, InValkeyAsync, InRedistore, InRedistoreAsync])
def test_no_order_of_steps_and_crashes_breaks_a_promise_on_a_server(
    machine: type[InValkey], running_servers: dict[str, Server]
) -> None:
    machine.server = running_servers[next(iter(server_binaries()))]
    run(machine)
