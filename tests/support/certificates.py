"""Certificates for servers on this machine."""

import functools
import shutil
import subprocess
import tempfile
from pathlib import Path

import pytest


def make_certificate(folder: Path, *, name: str = "test") -> Path:
    """
    Return a self-signed certificate for 127.0.0.1; its key is ``key.pem`` beside it.

    :param name: of whom it speaks. All of one name have the same bytes, because a key takes a third of a second.
    """
    certificate, key = folder / "certificate.pem", folder / "key.pem"
    certificate_bytes, key_bytes = _made(name)
    certificate.write_bytes(certificate_bytes)
    key.touch(0o600)
    key.write_bytes(key_bytes)
    return certificate


@functools.cache
def _made(name: str) -> tuple[bytes, bytes]:
    openssl = shutil.which("openssl")
    if openssl is None:
        pytest.skip("no openssl command to make a certificate with")
    with tempfile.TemporaryDirectory(prefix="agent-service-certificate-") as folder:
        certificate, key = Path(folder, "certificate.pem"), Path(folder, "key.pem")
        request = f"req -x509 -newkey rsa:2048 -nodes -days 2 -subj /CN={name} -addext subjectAltName=IP:127.0.0.1"
        command = [openssl, *request.split(), "-keyout", str(key), "-out", str(certificate)]
        subprocess.run(command, check=True, capture_output=True)
        return certificate.read_bytes(), key.read_bytes()
