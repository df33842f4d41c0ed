"""Keys and certificates of a cluster that lives for a test, by the openssl command."""

from __future__ import annotations

import subprocess
from pathlib import Path
from typing import Final

_DAYS: Final = "2"
_CURVE: Final = ("-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes")


class Authority:
    """Signs certificates; all files are in `folder`, `certificate` and `key` are its own."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self.key = folder / "ca.key"
        self.certificate = folder / "ca.crt"
        own = ("-subj", "/CN=podloxx tests", "-addext", "keyUsage=critical,keyCertSign,cRLSign")
        _openssl("req", "-x509", *_CURVE, "-keyout", self.key, "-out", self.certificate, "-days", _DAYS, *own)

    def issue(self, name: str, *groups: str, names: str = "") -> tuple[Path, Path]:
        """Certificate and key of user `name` in `groups`; `names` are a server's (`DNS:…,IP:…`)."""
        file_name = name.replace(":", "-").replace("/", "-")
        certificate, key, request, extensions = (
            self._folder / f"{file_name}.{suffix}" for suffix in ("crt", "key", "csr", "ext")
        )
        subject = "".join(f"/O={group}" for group in groups) + f"/CN={name}"
        _openssl("req", "-new", *_CURVE, "-keyout", key, "-out", request, "-subj", subject)
        lines = ["authorityKeyIdentifier=keyid", "extendedKeyUsage=serverAuth,clientAuth"]
        extensions.write_text("\n".join([*lines, f"subjectAltName={names}"] if names else lines))
        signed = ("-CA", self.certificate, "-CAkey", self.key, "-CAcreateserial", "-days", _DAYS)
        _openssl("x509", "-req", "-in", request, *signed, "-out", certificate, "-extfile", extensions)
        return certificate, key


def signing_key(folder: Path, name: str) -> tuple[Path, Path]:
    """A private key and its public one."""
    private, public = folder / f"{name}.key", folder / f"{name}.pub"
    _openssl("ecparam", "-name", "prime256v1", "-genkey", "-noout", "-out", private)
    _openssl("ec", "-in", private, "-pubout", "-out", public)
    return private, public


def _openssl(*arguments: str | Path) -> None:
    done = subprocess.run(["openssl", *map(str, arguments)], capture_output=True, text=True, timeout=30, check=False)
    assert done.returncode == 0, f"openssl {arguments[0]}: {done.stderr}"
