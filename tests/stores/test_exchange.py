"""What travels to a Redis together, and what may be sent again: the rules by themselves, without a server."""

from __future__ import annotations

from typing import Any

import pytest
import redis

from coatcheck.errors import StoreFull, StoreUnavailable
from coatcheck.stores.protocol import Outcome
from coatcheck.stores.redis.commands import Command, Commands, MixedUpAnswers
from coatcheck.stores.redis.exchange import Exchange, deliver
from coatcheck.stores.redis.failures import Lost, NotSent

COMMANDS = Commands("c:")
LOAD = COMMANDS.load(("a", "b"))
CREATE = COMMANDS.create("a", b"record", 1000)
UPDATE = COMMANDS.update("a", b"revision", b"record", 1000)
TOUCH = COMMANDS.touch("a", 1000)
DELETE = COMMANDS.delete("a")
REPEATABLE = [LOAD, TOUCH, COMMANDS.time_left("a"), COMMANDS.announce("a"), COMMANDS.scan(0, 10)]
WRITES = [CREATE, UPDATE, DELETE]


def run(commands: list[Command[Any]], outcomes: list[Any], *, merges: bool = True) -> tuple[list[Any], list[Exchange]]:
    """Deliver commands; what comes of each attempt is given. Gives the results, and what was sent."""
    delivery = deliver(commands, merges=merges, clock=lambda: 0.0)
    sent: list[Exchange] = []
    following = iter(outcomes)
    outcome: Any = None
    while True:
        try:
            step = delivery.send(outcome)
        except StopIteration as stop:
            assert next(following, None) is None, "not all attempts were made"
            return stop.value, sent
        if isinstance(step, Exchange):
            sent.append(step)
            outcome = next(following)
        else:
            assert 0 <= step < 0.1
            outcome = None


# --- what is sent -----------------------------------------------------------------------------------------------------


def test_all_loads_are_one_mget_that_names_each_key_once() -> None:
    again = COMMANDS.load(("b", "c"))
    results, (exchange,) = run([LOAD, TOUCH, again], [[[b"A", None, b"C"], b"T"]])
    assert exchange.sent == [("MGET", "c:a", "c:b", "c:c"), ("GETEX", "c:a", "PX", 1000)]
    assert results == [[b"A", None], b"T", [None, b"C"]]


def test_in_a_cluster_every_key_is_asked_for_by_itself() -> None:
    results, (exchange,) = run([LOAD, DELETE], [[b"A", None, b"D"]], merges=False)
    assert exchange.sent == [("GET", "c:a"), ("GET", "c:b"), ("GETDEL", "c:a")]
    assert results == [[b"A", None], b"D"]


def test_answers_are_given_out_in_the_order_of_the_commands() -> None:
    results, _ = run([CREATE, UPDATE, TOUCH, DELETE], [[b"OK", 1, None, b"old"]])
    assert results == [True, Outcome.DONE, None, b"old"]


def test_the_packed_form_is_the_protocols() -> None:
    assert Exchange([TOUCH, LOAD], merges=True).packed() == (
        b"*3\r\n$4\r\nMGET\r\n$3\r\nc:a\r\n$3\r\nc:b\r\n*4\r\n$5\r\nGETEX\r\n$3\r\nc:a\r\n$2\r\nPX\r\n$4\r\n1000\r\n"
    )


# --- answers that can't be true ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("command", "reply"),
    [
        (LOAD, [b"A"]), (LOAD, [b"A", b"B", b"C"]), (LOAD, b"A"), (LOAD, [b"A", 1]), (LOAD, None), (CREATE, b"A"),
        (UPDATE, 2), (TOUCH, 1), (TOUCH, [b"A"]), (DELETE, 7), (COMMANDS.time_left("a"), b"A"),
        (COMMANDS.scan(0, 1), b"A"), (COMMANDS.scan(0, 1), [b"A", b"B"]), (COMMANDS.scan(0, 1), [b"0", [b"c:a", None]]),
        (CREATE, 1),
    ],
)  # fmt: skip
def test_an_answer_of_another_command_is_noticed_and_nobody_trusts_the_others(command: Any, reply: Any) -> None:
    with pytest.raises(MixedUpAnswers):
        run([command], [[reply]])
    is_load = command is LOAD  # whose answer comes first
    with pytest.raises(MixedUpAnswers):
        run([TOUCH, command], [[reply, b"T"] if is_load else [b"T", reply]])


# --- errors reach those whom they concern -----------------------------------------------------------------------------


def test_an_error_reaches_exactly_the_command_that_it_answers() -> None:
    wrong = redis.ResponseError("WRONGTYPE Operation against a key holding the wrong kind of value")
    results, sent = run([LOAD, TOUCH, DELETE], [[[b"A", b"B"], wrong, b"D"]])
    assert results[0] == [b"A", b"B"]
    assert isinstance(results[1], StoreUnavailable)
    assert results[1].__cause__ is wrong
    assert results[2] == b"D"
    assert len(sent) == 1


def test_in_a_cluster_an_error_for_one_key_reaches_only_its_load() -> None:
    refused = redis.exceptions.NoPermissionError("no")
    results, _ = run([LOAD, COMMANDS.load(("c",))], [[b"A", refused, b"C"]], merges=False)
    assert isinstance(results[0], StoreUnavailable)
    assert results[1] == [b"C"]


def test_an_error_of_the_mget_reaches_every_load_and_nothing_else() -> None:
    results, _ = run([LOAD, TOUCH, COMMANDS.load(("c",))], [[redis.ResponseError("ERR"), b"T"]])
    assert [isinstance(result, StoreUnavailable) for result in results] == [True, False, True]


def test_everybody_gets_an_error_of_their_own() -> None:
    results, _ = run([LOAD, TOUCH], [NotSent.because(redis.AuthenticationError("no"))])
    assert results[0] is not results[1]


def test_what_a_server_says_of_its_error_moves_no_cursor_in_a_log() -> None:
    (result,), _ = run([CREATE], [[redis.ResponseError("\x1b[2J\nall is well")]])
    assert "\\x1b[2J\\nall is well" in str(result)


def test_a_full_server_is_told_from_one_that_is_out_of_reach() -> None:
    (result,), _ = run([CREATE], [[redis.OutOfMemoryError("command not allowed when used memory > 'maxmemory'")]])
    assert isinstance(result, StoreFull)
    script = redis.ResponseError(
        "OOM command not allowed when used memory > 'maxmemory'. script: 1, on @user_script:13."
    )
    (result,), _ = run([UPDATE], [[script]])
    assert isinstance(result, StoreFull)


@pytest.mark.parametrize(
    ("error", "advice"),
    [
        (redis.exceptions.ClusterCrossSlotError("Keys in request don't hash to the same slot"), "redis+cluster://"),
        (redis.ResponseError("unknown command 'GETEX', with args beginning with: "), "Redis 6.2"),
        (redis.exceptions.NoPermissionError("this user has no permissions"), "docs/redis.md"),
    ],
)
def test_an_error_says_what_to_do(error: Exception, advice: str) -> None:
    (result,), _ = run([TOUCH], [[error]])
    assert advice in str(result)


# --- trying again -----------------------------------------------------------------------------------------------------

CUT = redis.ConnectionError("Connection reset by peer")
SILENT = redis.TimeoutError("Timeout reading from socket")


@pytest.mark.parametrize("command", [*REPEATABLE, *WRITES], ids=lambda command: command.arguments[:1])
def test_what_was_not_sent_is_sent_again_whatever_it_is(command: Command[Any]) -> None:
    _, sent = run([command], [NotSent.because(CUT)] * 3)
    assert len(sent) == 3


@pytest.mark.parametrize("command", REPEATABLE, ids=lambda command: command.arguments[:1])
def test_what_may_be_done_twice_is_sent_again_when_its_fate_is_not_known(command: Command[Any]) -> None:
    results, sent = run([command], [Lost.because(CUT)] * 3)
    assert len(sent) == 3
    assert isinstance(results[0], StoreUnavailable)
    assert results[0].__cause__ is CUT


@pytest.mark.parametrize("command", WRITES, ids=lambda command: command.arguments[:1])
def test_a_write_whose_fate_is_not_known_is_never_sent_again(command: Command[Any]) -> None:
    results, sent = run([command], [Lost.because(CUT)])
    assert len(sent) == 1
    assert isinstance(results[0], StoreUnavailable)


def test_of_a_batch_that_was_lost_only_what_may_be_is_sent_again() -> None:
    results, sent = run([CREATE, LOAD, DELETE, TOUCH], [Lost.because(CUT), [[b"A", b"B"], b"T"]])
    assert [each.sent for each in sent][1] == [("MGET", "c:a", "c:b"), ("GETEX", "c:a", "PX", 1000)]
    assert isinstance(results[0], StoreUnavailable)
    assert results[1] == [b"A", b"B"]
    assert isinstance(results[2], StoreUnavailable)
    assert results[3] == b"T"


@pytest.mark.parametrize("failure", [NotSent, Lost])
@pytest.mark.parametrize("error", [SILENT, TimeoutError(), redis.AuthenticationError("no")])
def test_what_would_only_fail_again_is_not_tried_again(failure: type[NotSent | Lost], error: Exception) -> None:
    _, sent = run([LOAD], [failure.because(error)])
    assert len(sent) == 1


@pytest.mark.parametrize(
    "refusal",
    [
        redis.ReadOnlyError("You can't write against a read only replica."),
        redis.exceptions.ClusterDownError("CLUSTERDOWN Hash slot not served"),
        redis.exceptions.MasterDownError("MASTERDOWN Link with MASTER is down"),
        redis.exceptions.TryAgainError("TRYAGAIN"),
        redis.exceptions.MovedError("1 127.0.0.1:7001"),
        redis.exceptions.AskError("1 127.0.0.1:7001"),
    ],
)
def test_a_write_that_the_server_says_it_has_not_carried_out_is_sent_again(refusal: Exception) -> None:
    results, sent = run([UPDATE, TOUCH], [[refusal, b"T"], [1]])
    assert results == [Outcome.DONE, b"T"]
    assert sent[1].sent == [UPDATE.arguments]
    assert [each.attempt for each in sent] == [0, 1]


def test_a_script_that_the_server_has_forgotten_is_sent_in_full() -> None:
    newer = redis.exceptions.NoScriptError("NOSCRIPT No matching script. Please use EVAL.")
    results, sent = run([UPDATE, LOAD, UPDATE], [[[b"A", b"B"], newer, newer], [1, b"newer"]])
    assert results == [Outcome.DONE, [b"A", b"B"], b"newer"]
    assert [arguments[0] for arguments in sent[1].sent] == ["EVAL", "EVAL"]
    assert sent[1].sent[0][2:] == UPDATE.arguments[2:]


def test_pauses_differ_from_one_delivery_to_the_next() -> None:
    def pause() -> Any:
        delivery = deliver([LOAD], merges=True, clock=lambda: 0.0)
        delivery.send(None)
        return delivery.send(NotSent.because(CUT))

    assert len({pause() for _ in range(20)}) > 10


def test_silence_is_called_by_its_name() -> None:
    (result,), _ = run([LOAD], [Lost.because(TimeoutError())])
    assert str(result).endswith("no answer in time")
