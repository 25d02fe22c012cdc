"""Every run signs its own certificates, and forgets with what."""

from __future__ import annotations

import socket
import ssl
import stat
import sys
import threading

import pytest

from floodem.cluster.certificates import ROLES, make_certificates, private_folder
from floodem.errors import StorageError

cryptography = pytest.importorskip("cryptography")


@pytest.fixture(scope="module")
def ours():
    return make_certificates()


@pytest.fixture(scope="module")
def others():
    return make_certificates()


def context(folder, made, *, role, server=False):
    """What OpenSSL itself makes of the files, strictly; dask relaxes some of this."""
    ca, certificate, key = made.write(folder, role=role)
    purpose = ssl.Purpose.CLIENT_AUTH if server else ssl.Purpose.SERVER_AUTH
    found = ssl.create_default_context(purpose, cafile=str(ca))
    found.load_cert_chain(certificate, key)
    found.verify_flags |= ssl.VERIFY_X509_STRICT
    found.check_hostname = False
    found.verify_mode = ssl.CERT_REQUIRED
    return found


def shake_hands(server, client):
    """Return what each side said: None, or the error."""
    told = {}
    left, right = socket.socketpair()

    def serve():
        try:
            with server.wrap_socket(left, server_side=True) as tls:
                tls.recv(1)
        except OSError as error:
            told["server"] = error

    thread = threading.Thread(target=serve)
    thread.start()
    try:
        with client.wrap_socket(right, server_hostname="x") as tls:
            tls.sendall(b"!")
            tls.recv(1)
    except OSError as error:
        told["client"] = error
    finally:
        right.close()
        thread.join()
        left.close()
    return told


def test_parts_of_one_run_trust_each_other(tmp_path, ours):
    for server in ROLES:
        for client in ROLES:
            one, other = tmp_path / f"{server}-{client}", tmp_path / f"{server}-{client}-2"
            one.mkdir()
            other.mkdir()
            told = shake_hands(
                context(one, ours, role=server, server=True), context(other, ours, role=client)
            )
            assert told == {}


def test_the_certificate_of_another_run_is_refused(tmp_path, ours, others):
    for name in ("a", "b"):
        (tmp_path / name).mkdir()
    server = context(tmp_path / "a", ours, role="scheduler", server=True)
    client = context(tmp_path / "b", others, role="client")
    client.verify_mode = ssl.CERT_NONE  # one that trusts anybody
    told = shake_hands(server, client)
    assert "CERTIFICATE_VERIFY_FAILED" in str(told["server"])


def test_without_a_certificate_there_is_no_way_in(tmp_path, ours):
    server = context(tmp_path, ours, role="scheduler", server=True)
    client = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    client.check_hostname = False
    client.verify_mode = ssl.CERT_NONE
    told = shake_hands(server, client)
    assert "PEER_DID_NOT_RETURN_A_CERTIFICATE" in str(told["server"])


def test_a_role_cannot_sign_others(ours):
    from cryptography import x509

    authority = x509.load_pem_x509_certificate(ours.ca.encode())
    assert authority.extensions.get_extension_for_class(x509.BasicConstraints).value.ca
    for role in ROLES:
        certificate = x509.load_pem_x509_certificate(ours.roles[role].certificate.encode())
        assert not certificate.extensions.get_extension_for_class(x509.BasicConstraints).value.ca
        certificate.verify_directly_issued_by(authority)


def test_keys_show_up_in_no_text(ours):
    shown = f"{ours!r} {ours.roles!r} {ours.security()!r}"
    assert "PRIVATE" not in shown


@pytest.mark.skipif(sys.platform == "win32", reason="Windows has no such modes")
def test_files_are_for_the_owner_only_and_never_replace_others(tmp_path, ours):
    folder = private_folder(tmp_path / "new" / "shared", prefix="certificates-")
    files = ours.write(folder, role="worker")
    assert stat.S_IMODE(folder.stat().st_mode) == 0o700
    assert [stat.S_IMODE(file.stat().st_mode) for file in files] == [0o600] * 3
    with pytest.raises(StorageError, match="ca.pem"):
        ours.write(folder, role="worker")
    assert private_folder(tmp_path / "new" / "shared", prefix="certificates-") != folder
