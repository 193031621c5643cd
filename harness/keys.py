"""The keys that this lab signs with: kernels and modules that a machine under test shall trust, or shall not.

One key is the lab's: firmware is made to trust it. The other is a stranger's: made in the same way, known to nobody,
so that a module which is well signed by the wrong signer can be shown to be refused.
"""

from __future__ import annotations

import secrets
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import rsa
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from harness.errors import InfraError
from harness.placing import placed_once

_BITS = 2048
"""What every firmware, shim and kernel verifies; shim refuses to take some longer keys from firmware variables."""
_LIFETIME = timedelta(days=30 * 365)
_KEY = "signing.key"
_DER = "signing.der"
_PEM = "signing.pem"


@dataclass(frozen=True, slots=True)
class SigningKey:
    """A private key and the self-signed certificate by which others recognise its signatures."""

    key: Path
    """Private key, PEM, readable by its owner alone."""
    certificate: Path
    """The certificate, DER: what the kernel's ``sign-file`` and MOK enrolment take."""
    pem: Path
    """The same certificate, PEM: what ``sbsign`` and firmware tools take."""
    common_name: str
    """Who signed, as ``modinfo`` shows it; differs from lab to lab."""


@dataclass(frozen=True, slots=True)
class SigningKeys:
    """Both keys of a lab."""

    lab: SigningKey
    stranger: SigningKey

    @classmethod
    def open(cls, folder: Path) -> SigningKeys:
        """The keys below ``folder``, made there when it has none; many processes may ask at once.

        Raises:
            InfraError: the folder cannot be written, or what lies there is no certificate.
        """
        try:
            folder.mkdir(parents=True, exist_ok=True, mode=0o700)
            folder.chmod(0o700)  # every path to the private keys leads through it
            return cls(_open(folder / "lab", "kdmatrix lab"), _open(folder / "stranger", "kdmatrix stranger"))
        except OSError as error:
            raise InfraError(f"{folder}: no place for signing keys: {error.strerror}") from error


def _open(folder: Path, name: str) -> SigningKey:
    placed_once(folder, lambda empty: _make(empty, f"{name} {secrets.token_hex(4)}"), timeout=60.0)
    try:
        certificate = x509.load_der_x509_certificate((folder / _DER).read_bytes())
        common_name = str(certificate.subject.get_attributes_for_oid(NameOID.COMMON_NAME)[0].value)
    except (OSError, ValueError, IndexError) as error:
        raise InfraError(
            f"{folder}: no usable signing key there ({error}); remove the folder to get a new one"
        ) from None
    return SigningKey(folder / _KEY, folder / _DER, folder / _PEM, common_name)


def _make(folder: Path, common_name: str) -> None:
    key = rsa.generate_private_key(public_exponent=65537, key_size=_BITS)
    certificate = _certificate(key, common_name)
    (folder / _DER).write_bytes(certificate.public_bytes(Encoding.DER))
    (folder / _PEM).write_bytes(certificate.public_bytes(Encoding.PEM))
    private = folder / _KEY
    private.touch(mode=0o600)
    private.write_bytes(key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()))


def _certificate(key: rsa.RSAPrivateKey, common_name: str) -> x509.Certificate:
    """A certificate for boot images and kernel modules alike.

    It is a CA, like those that ``openssl req -x509`` makes: kernels built with ``INTEGRITY_CA_MACHINE_KEYRING`` take
    no other from the owner's list. Its extended usage names code signing at large; the narrower usage for modules
    only would make shim refuse it for kernels.
    """
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, common_name)])
    now = datetime.now(UTC)
    return (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - timedelta(days=1))  # a guest's clock may be behind
        .not_valid_after(now + _LIFETIME)
        .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
        .add_extension(_USAGE, critical=True)
        .add_extension(x509.ExtendedKeyUsage([ExtendedKeyUsageOID.CODE_SIGNING]), critical=False)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False)
        .add_extension(x509.AuthorityKeyIdentifier.from_issuer_public_key(key.public_key()), critical=False)
        .sign(key, SHA256())
    )


_USAGE = x509.KeyUsage(
    digital_signature=True,
    content_commitment=False,
    key_encipherment=False,
    data_encipherment=False,
    key_agreement=False,
    key_cert_sign=True,
    crl_sign=False,
    encipher_only=False,
    decipher_only=False,
)
