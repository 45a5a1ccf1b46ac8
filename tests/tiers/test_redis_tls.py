"""The Redis tier over TLS."""
# ruff: noqa: F811  # a fixture is imported, and is the name of an argument

import shutil
import socket
import ssl
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
from tests.support.servers import RedisServer
from tests.support.servers.asking import Asking
from tests.support.servers.fixtures import asking  # noqa: F401  # a fixture
from tests.support.servers.impostors import Listener, listening, relay
from tests.tiers.places import NEVER_MS

from credenza.tiers.base import Get, Put, TierError

NAME = b"test:name"


@pytest.fixture(scope="session")
def certificate(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A file with a certificate for localhost and its key."""
    openssl = shutil.which("openssl")
    if openssl is None:
        pytest.skip("no openssl on the PATH, which makes the certificate")
    path = tmp_path_factory.mktemp("tls") / "both.pem"
    command = (
        f"{openssl} req -x509 -newkey rsa:2048 -nodes -days 2 -subj /CN=localhost -addext subjectAltName=DNS:localhost"
    )
    subprocess.run(
        [*command.split(), "-keyout", path, "-out", f"{path}.crt"], check=True, capture_output=True, timeout=15
    )
    path.write_text(path.read_text() + Path(f"{path}.crt").read_text())
    return path


@pytest.fixture
def tls_server(certificate: Path, redis_server: RedisServer) -> Iterator[Listener]:
    """A real server behind something that speaks TLS for it."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate)

    def unwrap(sock: socket.socket) -> None:
        with context.wrap_socket(sock, server_side=True) as plain:
            relay(plain, redis_server.port, listener.ends)

    with listening(unwrap) as listener:
        yield listener


def test_server_with_a_trusted_certificate_is_used(asking: Asking, tls_server: Listener, certificate: Path) -> None:
    """Large values included, and a connection that lasts for several batches."""
    ask = asking(f"rediss://localhost:{tls_server.port}?ssl_ca_certs={certificate}.crt")
    envelope = bytes(range(256)) * 2_000
    for _ in range(3):
        stored, record = ask(Put(NAME, envelope, 60_000, NEVER_MS), Get(NAME))
        assert stored is True
        assert record.endswith(envelope)
    assert tls_server.accepted == 1


def test_server_with_another_certificate_is_refused(asking: Asking, tls_server: Listener) -> None:
    """Nothing is sent to a server that cannot prove who it is."""
    with pytest.raises(TierError, match="CERTIFICATE_VERIFY_FAILED"):
        asking(f"rediss://localhost:{tls_server.port}")(Get(NAME))


def test_plain_server_is_no_tls_server(asking: Asking, redis_server: RedisServer) -> None:
    """The error is that of a tier that is away."""
    with pytest.raises(TierError, match="cannot be reached"):
        asking(f"rediss://localhost:{redis_server.port}")(Get(NAME), timeout_ns=1_000_000_000)
