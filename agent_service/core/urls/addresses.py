"""Host and port as URLs name them: ``host``, ``host:6379``, ``[::1]:6379``."""

import ipaddress
import re
from typing import Final

__all__ = ["parse_address", "parse_port"]

_ADDRESS: Final = re.compile(r"(?:\[(?P<v6>[^\]]+)\]|(?P<name>[^\s:@\[\]/?#]*))(?::(?P<port>.*))?", re.DOTALL)


def parse_address(text: str) -> tuple[str, int | None]:
    """Return the host, which may be empty, and the port where there is one.

    :raises ValueError: saying what is wrong, without repeating anything that may be a password in the wrong place.
    """
    found = _ADDRESS.fullmatch(text)
    if found is None or (found["v6"] and not _is_ip6(found["v6"])):
        raise ValueError("has a host or port that cannot be read (percent-encode special characters of the password)")
    return found["v6"] or found["name"], parse_port(found["port"]) if found["port"] else None


def parse_port(text: str) -> int:
    """Return the port.

    :raises ValueError: as for :func:`parse_address`.
    """
    if not re.fullmatch(r"\d{1,5}", text, re.ASCII):
        raise ValueError("has a host or port that cannot be read: the port is no number from 1 to 65535")
    port = int(text)
    if not 0 < port < 65_536:
        raise ValueError(f"has port {port}; ports are 1 to 65535")
    return port


def _is_ip6(text: str) -> bool:
    try:
        return ipaddress.ip_address(text).version == 6
    except ValueError:
        return False
