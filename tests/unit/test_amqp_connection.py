"""Frames joined: the same bytes in the same order, in few writes, also when a write is interrupted."""

from __future__ import annotations

import socket
import ssl
import threading
from collections import deque
from pathlib import Path
from types import SimpleNamespace

import pytest
import trustme
from hypothesis import given
from hypothesis import strategies as st
from pika.adapters.base_connection import BaseConnection, _StreamingProtocolShim
from pika.adapters.utils.io_services_utils import _AsyncTransportBase

from passrelay_schemas.amqp_connection import RECORD_BYTES, SSL_OP_ENABLE_KTLS, FrameQueue, JoiningConnection
from passrelay_schemas.broker import connection_parameters
from passrelay_schemas.broker_settings import BrokerSettings


@given(st.lists(st.integers(1, 3 * RECORD_BYTES), max_size=12), st.integers(0, 5))
def test_the_bytes_stay_and_pieces_fit_into_records(sizes: list[int], sent: int) -> None:
    frames = [bytes([number]) * size for number, size in enumerate(sizes)]
    queue, out = FrameQueue(), b""
    for number, frame in enumerate(frames):
        queue.append(frame)
        if queue and number % 3 == 0:  # as pika does after a partial send
            piece = queue.popleft()
            out += piece[:sent]
            if piece[sent:]:
                queue.appendleft(piece[sent:])
    assert all(len(piece) <= RECORD_BYTES or piece[:1] == piece[-1:] for piece in queue)
    assert out + b"".join(queue) == b"".join(frames)


def test_a_published_message_and_an_ack_are_one_piece() -> None:
    queue = FrameQueue()
    for size in (40, 120, 4820, 21, 40, 120, 4820, 21):
        queue.append(b"x" * size)
    assert [len(piece) for piece in queue] == [2 * (40 + 120 + 4820 + 21)]


def test_what_grew_while_its_sending_was_interrupted_arrives_whole() -> None:
    authority = trustme.CA()
    server, client = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER), ssl.create_default_context()
    authority.issue_cert("broker.example").configure_cert(server)
    authority.configure_trust(client)
    ours, theirs = socket.socketpair()
    ours.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 4096)
    with ours, theirs:
        received = bytearray()

        def read_slowly() -> None:
            with server.wrap_socket(theirs, server_side=True) as peer:
                begin.wait()
                while part := peer.recv(65536):
                    received.extend(part)

        begin, reader = threading.Event(), threading.Thread(target=read_slowly, daemon=True)
        reader.start()
        with client.wrap_socket(ours, server_hostname="broker.example") as tls:
            tls.settimeout(0)
            queue, expected, interrupted = FrameQueue(), b"", 0
            for number in range(400):
                frame = number.to_bytes(2, "big") * 1000
                expected += frame
                queue.append(frame)
                try:
                    while queue:
                        piece = queue[0]
                        size = tls.send(piece)
                        queue.popleft()
                        if size < len(piece):
                            queue.appendleft(piece[size:])
                except ssl.SSLWantWriteError:
                    interrupted += 1
                    if interrupted > 3:  # the piece has grown since
                        begin.set()
            begin.set()
            tls.settimeout(None)
            while queue:
                tls.sendall(queue.popleft())
            tls.unwrap().close()
        reader.join(30)
    assert interrupted > 3
    assert bytes(received) == expected


class Transport:
    """As pika's, as far as it is touched."""

    def __init__(self) -> None:
        self._tx_buffers: deque[bytes] = deque([b"AMQP\0\0\x09\x01"])


def made(monkeypatch: pytest.MonkeyPatch, transport: object) -> None:
    """Pika's own way to a connection, as far as the moment when TCP and TLS are there."""
    monkeypatch.setattr(BaseConnection, "_on_stream_connected", lambda _: None)
    connection = JoiningConnection.__new__(JoiningConnection)
    for name in ("_proto_connection_lost", "_proto_eof_received", "_proto_data_received"):
        assert callable(getattr(connection, name))
    _StreamingProtocolShim(connection).connection_made(transport)


def test_pika_calls_what_puts_the_queue_in_its_place(monkeypatch: pytest.MonkeyPatch) -> None:
    transport = Transport()
    made(monkeypatch, transport)
    assert isinstance(transport._tx_buffers, FrameQueue)
    assert list(transport._tx_buffers) == [b"AMQP\0\0\x09\x01"]


def test_a_pika_with_other_names_goes_on_with_its_own(monkeypatch: pytest.MonkeyPatch) -> None:
    made(monkeypatch, SimpleNamespace())


def test_pika_still_has_what_is_replaced() -> None:
    """Otherwise every frame is a write again, and nothing else would tell."""
    assert isinstance(_AsyncTransportBase._MAX_RECV_BYTES, int)
    assert "_tx_buffers" in _AsyncTransportBase.__init__.__code__.co_names


def test_the_kernel_does_not_encrypt(tmp_path: Path) -> None:
    authority = tmp_path / "ca.pem"
    trustme.CA().cert_pem.write_to_path(str(authority))
    settings = BrokerSettings.model_validate({"url": "amqps://broker.example/passrelay", "ca_file": authority})
    parameters = connection_parameters(settings, name="test")
    assert parameters.ssl_options is not None
    assert not parameters.ssl_options.context.options & SSL_OP_ENABLE_KTLS
