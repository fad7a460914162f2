"""Several threads on one LDAP connection: each gets its own answer, and its end is everybody's at once."""

from __future__ import annotations

import random
import socket
import threading
from concurrent.futures import Future, ThreadPoolExecutor

import pytest

from passrelay_consumer import ldap_messages, shared_connection
from passrelay_consumer.ldap_messages import UNBIND, Answer, Kind, message, sized
from passrelay_consumer.result_codes import DirectoryError, Trouble
from passrelay_consumer.shared_connection import SharedConnection
from tests.unit.ldap_script import PATIENCE_SECONDS, Script, done, found, notice, reference, script

UNBIND_TAG = UNBIND[0]
LOST = (
    ("another protocol", b"HTTP/1.1 400 Bad Request\r\n\r\n"),
    ("a length that no message has", b"\x30\x84\xff\xff\xff\xff"),
    ("an endless length", b"\x30\x80"),
    ("an answer to nothing", message(77, done())),
    ("broken off inside", b"\x30\x05\x02\x01\x01\x65\x7f"),
    ("a notice of disconnection", notice("shutting down")),
)
ENDS = (
    ("the end of the connection", b""),
    ("half an answer and the end", message(1, done())[:-3]),
)


def told(future: Future[list[Answer]]) -> list[bytes]:
    return [answer.content for answer in future.result(PATIENCE_SECONDS)]


def lost(future: Future[list[Answer]]) -> DirectoryError:
    error = future.exception(PATIENCE_SECONDS)
    assert isinstance(error, DirectoryError)
    assert error.code is None
    assert error.trouble is Trouble.SERVER
    return error


def asked(made: Script, count: int) -> dict[int, Future[list[Answer]]]:
    """So many calls that wait for their answers, by the ids of their requests."""
    calls = {}
    for _ in range(count):
        future = made.ask(done())
        calls[made.request().number] = future
    return calls


def test_answers_in_any_order_in_pieces_of_any_size_reach_who_asked() -> None:
    rng = random.Random(7)
    with script() as made:
        for _ in range(20):
            calls = asked(made, 8)
            answers = [(number, [found(f"uid={number}"), done(words=f"{number}")]) for number in calls]
            rng.shuffle(answers)
            stream = b"".join(message(number, part) for number, parts in answers for part in parts)
            while stream:
                size = rng.choice((1, 3, 50, 400))
                made.socket.sendall(stream[:size])
                stream = stream[size:]
            for number, future in calls.items():
                entry, result = future.result(PATIENCE_SECONDS)
                assert ldap_messages.entry(entry) == (f"uid={number}", {})
                assert ldap_messages.result(result).words == f"{number}"


def test_a_slow_answer_holds_up_no_other_whoever_reads() -> None:
    with script() as made:
        slow, *quick = asked(made, 4).items()
        for number, future in quick:
            made.say(number, done(Kind.MODIFIED))
            assert told(future)
        for _ in range(3):  # later ones too, while the first one waits
            ((number, future),) = asked(made, 1).items()
            made.say(number, done())
            assert told(future)
        made.say(slow[0], done(words="late"))
        assert told(slow[1])


def test_entries_and_references_come_before_the_result() -> None:
    with script() as made:
        ((number, future),) = asked(made, 1).items()
        made.say(number, found("uid=a"), reference("ldap://other/"), found("uid=b"), done(code=4))
        answers = future.result(PATIENCE_SECONDS)
        assert [answer.kind for answer in answers] == [Kind.ENTRY, Kind.REFERENCE, Kind.ENTRY, Kind.DONE]
        assert ldap_messages.result(answers[-1]).code == 4


@pytest.mark.parametrize("garbage", [raw for _, raw in (*LOST, *ENDS)], ids=[what for what, _ in (*LOST, *ENDS)])
def test_what_ends_the_connection_ends_it_for_all_who_wait_and_for_who_comes(garbage: bytes) -> None:
    with script() as made:
        calls = asked(made, 5)
        made.socket.sendall(garbage)
        if garbage in [raw for _, raw in ENDS]:
            made.socket.shutdown(socket.SHUT_WR)
        reasons = {str(lost(future)) for future in calls.values()}
        assert len(reasons) == 1
        assert not made.connection.usable
        with pytest.raises(DirectoryError):
            made.connection.ask(done())
        assert made.hung_up()


def test_a_notice_tells_why_and_an_answer_before_it_counts() -> None:
    with script() as made:
        (first, answered), (_, waiting) = asked(made, 2).items()
        made.say(first, done())
        assert told(answered)
        made.socket.sendall(notice("shutting down"))
        assert "shutting down" in str(lost(waiting))


def test_a_call_without_answer_gives_the_connection_up_for_the_others_too() -> None:
    with script(timeout_seconds=0.2) as made:
        calls = asked(made, 3)
        assert {"0.2 s" in str(lost(future)) for future in calls.values()} == {True}
        assert made.hung_up()


def test_a_server_that_reads_nothing_is_given_up() -> None:
    with script(timeout_seconds=0.2) as made:
        assert "0.2 s" in str(lost(made.ask(b"x" * 2**22)))
        assert not made.connection.usable


def test_an_endless_answer_is_given_up(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shared_connection, "_MOST_ANSWER_BYTES", 1000)
    with script() as made:
        ((number, future),) = asked(made, 1).items()
        made.say(number, *[found("uid=somebody", cn=b"x" * 100)] * 10)
        assert "more than 1000 bytes" in str(lost(future))


def test_empty_entries_without_end_are_given_up_too(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shared_connection, "_MOST_ANSWER_BYTES", 10_000)
    with script() as made:
        ((number, future),) = asked(made, 1).items()
        made.say(number, *[sized(Kind.ENTRY, b"")] * 1000)
        assert "more than 10000 bytes" in str(lost(future))


def test_an_answer_that_is_too_large_with_its_result_is_told_to_who_waits_for_it(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(shared_connection, "_MOST_ANSWER_BYTES", 1000)
    with script() as made:
        (_, reads), (number, waits) = asked(made, 2).items()
        made.say(number, found("uid=somebody", cn=b"x" * 700), done(words="y" * 120))
        assert "more than 1000 bytes" in str(lost(waits))
        assert str(lost(reads)) == str(lost(waits))


def test_a_connection_that_is_closed_answers_what_is_on_its_way_and_then_unbinds() -> None:
    with script() as made:
        ((number, future),) = asked(made, 1).items()
        made.connection.close()
        with pytest.raises(DirectoryError):
            made.connection.ask(done())
        made.say(number, done())
        assert told(future)
        assert made.request().kind == UNBIND_TAG
        assert made.hung_up()


def test_a_request_that_was_begun_and_not_finished_ends_it(monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupted(*_: object) -> None:
        raise KeyboardInterrupt

    with script() as made:
        calls = asked(made, 2)
        monkeypatch.setattr(SharedConnection, "_send", interrupted)
        with pytest.raises(KeyboardInterrupt):
            made.connection.ask(done())
        assert not made.connection.usable
        for future in calls.values():
            lost(future)


def test_message_ids_begin_again_after_the_last_one() -> None:
    with script() as made:
        made.connection._last_id = ldap_messages.MOST_ID - 1
        calls = asked(made, 2)
        assert set(calls) == {ldap_messages.MOST_ID, 1}
        for number, future in calls.items():
            made.say(number, done())
            assert told(future)


def test_many_threads_at_once_each_get_their_own() -> None:
    with script() as made, ThreadPoolExecutor(8) as threads:

        def serve() -> None:
            rng, waiting, left = random.Random(1), list[Answer](), 8 * 200
            while left or waiting:
                if left and (made.says_more() or not waiting):
                    waiting.append(made.request())
                    left -= 1
                else:
                    one = waiting.pop(rng.randrange(len(waiting)))
                    made.say(one.number, done(words=ldap_messages.result(one).words))

        server = threading.Thread(target=serve, daemon=True)
        server.start()

        def ask(worker: int) -> list[str]:
            own = [f"{worker}-{number}" for number in range(200)]
            heard = [ldap_messages.result(made.connection.ask(done(words=word))[-1]).words for word in own]
            assert heard == own
            return heard

        assert len({word for words in threads.map(ask, range(8)) for word in words}) == 8 * 200
        server.join(PATIENCE_SECONDS)
