"""Certificates of one run: nothing comes in, an authority of its own and what it signed goes out.

Messages between the parts of a Dask cluster are pickles, so whoever may speak to a
worker may run code on it. Every run therefore makes an authority that signs one
certificate for each role and is then forgotten: its key is never written and never
leaves `make_certificates`, so that nothing else will ever be trusted by this run.
"""

from __future__ import annotations

import datetime as dt
import os
import secrets
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from floodem.errors import DependencyError
from floodem.files import storage_error
from floodem.volumes.packages import require_package

if TYPE_CHECKING:
    from cryptography import x509
    from cryptography.hazmat.primitives.asymmetric import ec

ROLES = ("scheduler", "worker", "client")

_VALID_BEFORE = dt.timedelta(days=1)
"""Clocks of nodes differ."""
_VALID_FOR = dt.timedelta(days=365)
"""No run is longer; the keys end with theirs."""
_NAME = "floodem run"


@dataclass(frozen=True, slots=True, kw_only=True)
class Signed:
    """What one role shows: PEM texts.

    Attributes
    ----------
    certificate
        Signed by the run's authority.
    key
        Its private key.
    """

    certificate: str
    key: str

    def __repr__(self) -> str:
        return "Signed(...)"


@dataclass(frozen=True, slots=True, kw_only=True)
class Certificates:
    """An authority and what it signed: PEM texts.

    Attributes
    ----------
    ca
        Certificate of the authority; whom it signed is trusted.
    roles
        One for each of `ROLES`.
    """

    ca: str
    roles: dict[str, Signed]

    def write(self, folder: Path, *, role: str) -> tuple[Path, Path, Path]:
        """Write one role's files into a private folder.

        Returns
        -------
        tuple of Path
            Authority, certificate and key, readable for the owner only.

        Raises
        ------
        StorageError
            When the file system refuses, or one of them is there.
        """
        signed = self.roles[role]
        texts = {"ca.pem": self.ca, f"{role}.pem": signed.certificate, f"{role}.key": signed.key}
        for name, text in texts.items():
            try:
                # never readable for others, not even for the moment until a chmod
                handle = os.open(folder / name, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
                with os.fdopen(handle, "w", encoding="ascii") as file:
                    file.write(text)
            except OSError as error:
                raise storage_error("write", folder / name, error) from error
        ca, certificate, key = (folder / name for name in texts)
        return ca, certificate, key

    def security(self) -> Any:
        """Return them as dask.distributed takes them; they stay in memory."""
        distributed = require_package(
            "distributed", purpose="--cluster", install="floodem[cluster]"
        )
        known = {f"tls_{role}_cert": signed.certificate for role, signed in self.roles.items()}
        known |= {f"tls_{role}_key": signed.key for role, signed in self.roles.items()}
        return distributed.Security(require_encryption=True, tls_ca_file=self.ca, **known)


def make_certificates() -> Certificates:
    """Make an authority, let it sign a certificate for each role, and forget its key.

    Raises
    ------
    DependencyError
        When the package cryptography is missing.
    """
    try:
        from cryptography.hazmat.primitives.asymmetric import ec
    except ImportError as error:
        raise DependencyError(
            "certificates of a cluster need the package cryptography: install the extra cluster, "
            "pip install 'floodem[cluster]'"
        ) from error
    authority = ec.generate_private_key(ec.SECP256R1())
    ca = _sign(authority, authority, role=None)
    roles = {}
    for role in ROLES:
        key = ec.generate_private_key(ec.SECP256R1())
        roles[role] = Signed(certificate=_pem(_sign(key, authority, role=role)), key=_key_pem(key))
    return Certificates(ca=_pem(ca), roles=roles)


def private_folder(parent: Path, *, prefix: str) -> Path:
    """Make a new folder that nobody else can enter, in a folder that is made where missing.

    Raises
    ------
    StorageError
        When the file system refuses.
    """
    folder = parent / f"{prefix}{secrets.token_hex(8)}"
    try:
        parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        folder.mkdir(mode=0o700)
        os.chmod(folder, 0o700)  # whatever the umask took away
    except OSError as error:
        raise storage_error("make", folder, error) from error
    return folder


def _sign(
    key: ec.EllipticCurvePrivateKey, authority: ec.EllipticCurvePrivateKey, *, role: str | None
) -> x509.Certificate:
    """Return a certificate of `key`, signed by the authority; role None is the authority's own."""
    from cryptography import x509
    from cryptography.hazmat.primitives import hashes
    from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

    now = dt.datetime.now(tz=dt.UTC)
    issuer = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, _NAME)])
    subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, f"{_NAME} {role}")])
    is_authority = role is None
    built = (
        x509.CertificateBuilder()
        .subject_name(issuer if is_authority else subject)
        .issuer_name(issuer)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - _VALID_BEFORE)
        .not_valid_after(now + _VALID_FOR)
        .add_extension(
            x509.BasicConstraints(ca=is_authority, path_length=0 if is_authority else None),
            critical=True,
        )
        .add_extension(
            x509.KeyUsage(
                digital_signature=not is_authority,
                key_cert_sign=is_authority,
                crl_sign=is_authority,
                content_commitment=False,
                key_encipherment=False,
                data_encipherment=False,
                key_agreement=False,
                encipher_only=False,
                decipher_only=False,
            ),
            critical=True,
        )
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False)
        .add_extension(
            x509.AuthorityKeyIdentifier.from_issuer_public_key(authority.public_key()),
            critical=False,
        )
    )
    if not is_authority:
        # every part of a cluster both calls and is called
        both = [ExtendedKeyUsageOID.SERVER_AUTH, ExtendedKeyUsageOID.CLIENT_AUTH]
        built = built.add_extension(x509.ExtendedKeyUsage(both), critical=False)
    return built.sign(authority, hashes.SHA256())


def _pem(certificate: x509.Certificate) -> str:
    from cryptography.hazmat.primitives import serialization

    return certificate.public_bytes(serialization.Encoding.PEM).decode("ascii")


def _key_pem(key: ec.EllipticCurvePrivateKey) -> str:
    from cryptography.hazmat.primitives import serialization

    return key.private_bytes(
        serialization.Encoding.PEM,
        serialization.PrivateFormat.PKCS8,
        serialization.NoEncryption(),
    ).decode("ascii")
