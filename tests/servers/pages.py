"""Servers that pages of other origins may read (CORS), plain or with a certificate of their own."""

from __future__ import annotations

import dataclasses
import io
import ssl
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from servers.base import Answer, Asked, FakeServer
from servers.files import FileServer

_OPEN = {
    "Access-Control-Allow-Origin": "*",
    "Access-Control-Allow-Methods": "GET, HEAD, OPTIONS",
    "Access-Control-Allow-Headers": "*, Authorization",
    "Access-Control-Expose-Headers": "*",
    "Access-Control-Allow-Private-Network": "true",
}


class OpenServer(FakeServer):
    """Lets every page read what `tell` answers."""

    def tell(self, asked: Asked) -> Answer:
        raise NotImplementedError

    def answer(self, asked: Asked) -> Answer:
        if asked.method == "OPTIONS":
            return Answer(204, headers=_OPEN)
        told = self.tell(asked)
        return dataclasses.replace(told, headers={**told.headers, **_OPEN})

    def wrong(self) -> list[str]:
        """Paths that were asked for and are not there."""
        return [asked.path for asked in self.asked if self.answer(asked).status >= 400]


class OpenFiles(OpenServer, FileServer):
    """Files of a folder."""

    def tell(self, asked: Asked) -> Answer:
        return FileServer.answer(self, asked)


def with_certificate(server: FakeServer, folder: Path) -> str:
    """Let a running server speak https, with a certificate nobody knows; return its address."""
    x509 = pytest.importorskip("cryptography.x509")
    certificate, key = _make_certificate(x509)
    (folder / "certificate.pem").write_bytes(certificate)
    (folder / "key.pem").write_bytes(key)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(folder / "certificate.pem", folder / "key.pem")
    inner = server._server
    inner.socket = context.wrap_socket(
        inner.socket, server_side=True, do_handshake_on_connect=False
    )
    return server.address.replace("http://", "https://")


def _make_certificate(x509: Any) -> tuple[bytes, bytes]:
    import datetime as dt
    import ipaddress

    from cryptography.hazmat.primitives import hashes, serialization
    from cryptography.hazmat.primitives.asymmetric import ec

    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "127.0.0.1")])
    now = dt.datetime.now(dt.UTC)
    made = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - dt.timedelta(days=1))
        .not_valid_after(now + dt.timedelta(days=1))
        .add_extension(
            x509.SubjectAlternativeName([x509.IPAddress(ipaddress.ip_address("127.0.0.1"))]),
            critical=False,
        )
        .sign(key, hashes.SHA256())
    )
    return made.public_bytes(serialization.Encoding.PEM), key.private_bytes(
        serialization.Encoding.PEM,
        serialization.PrivateFormat.PKCS8,
        serialization.NoEncryption(),
    )


def part(array: np.ndarray, start: tuple[int, ...], shape: tuple[int, ...]) -> np.ndarray:
    """A box of an array (z, y, x), 0 where it reaches beyond."""
    found = np.zeros(shape, array.dtype)
    inner = array[tuple(slice(a, a + n) for a, n in zip(start, shape, strict=True))]
    found[tuple(slice(0, n) for n in inner.shape)] = inner
    return found


def jpeg(rows: np.ndarray) -> bytes:
    """A picture of rows and columns (or rows, columns, RGB) as JPEG."""
    stream = io.BytesIO()
    Image.fromarray(rows).save(stream, "JPEG", quality=90)
    return stream.getvalue()
