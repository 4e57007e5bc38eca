"""What is remembered of the device that a user logged in from, so that a list of devices can be read by people."""

from __future__ import annotations

from ipaddress import IPv4Address, IPv6Address, ip_address, ip_network
from typing import Final, Literal, NamedTuple

ClientAddress = Literal["truncated", "whole", "none"]

MAX_USER_AGENT_CHARACTERS: Final = 256
_IPV4_PREFIX_BITS: Final = 24
_IPV6_PREFIX_BITS: Final = 48


class Device(NamedTuple):
    """What a request says of where it comes from. Both are the client's word and may be anything."""

    user_agent: str | None = None
    client_address: str | None = None


def remembered(device: Device, *, user_agent: bool, client_address: ClientAddress) -> Device:
    """Give what may be kept of a device: bounded, printable, and of an address only as much as is wanted."""
    return Device(
        _printable(device.user_agent) if user_agent else None,
        _address(device.client_address, client_address),
    )


def _printable(text: str | None) -> str | None:
    if not text:
        return None
    return "".join(character if character.isprintable() else "\ufffd" for character in text[:MAX_USER_AGENT_CHARACTERS])


def _address(text: str | None, keep: ClientAddress) -> str | None:
    if not text or keep == "none":
        return None
    try:
        address = ip_address(text.partition("%")[0])
    except ValueError:
        return None  # a Unix socket's path, or a proxy's invention
    if isinstance(address, IPv6Address) and address.ipv4_mapped is not None:
        address = address.ipv4_mapped
    return str(address) if keep == "whole" else _truncated(address)


def _truncated(address: IPv4Address | IPv6Address) -> str:
    """Give the network, which tells places apart and persons not: a.b.c.0, or the first 48 bits."""
    bits = _IPV4_PREFIX_BITS if isinstance(address, IPv4Address) else _IPV6_PREFIX_BITS
    return str(ip_network((address, bits), strict=False).network_address)
