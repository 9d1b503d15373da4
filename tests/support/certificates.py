"""Certificates for servers on this machine."""

import shutil
import subprocess
from pathlib import Path

import pytest


def make_certificate(folder: Path) -> Path:
    """Return a self-signed certificate for 127.0.0.1; its key is ``key.pem`` beside it."""
    openssl = shutil.which("openssl")
    if openssl is None:
        pytest.skip("no openssl command to make a certificate with")
    certificate, key = folder / "certificate.pem", folder / "key.pem"
    request = "req -x509 -newkey rsa:2048 -nodes -days 2 -subj /CN=test -addext subjectAltName=IP:127.0.0.1"
    subprocess.run([openssl, *request.split(), "-keyout", key, "-out", certificate], check=True, capture_output=True)
    return certificate
