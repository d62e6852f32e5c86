"""Which addresses a request that a user defined may be sent to: public ones, and what the operator allows. Pure.

A worker stands where its users do not: beside databases, consoles and the cloud's metadata service, which gives
credentials to whoever asks. So everything is refused that the IANA registries of special-purpose addresses do not call
globally reachable. The lists stand here and are not `ipaddress.is_global`, whose answer differs between Python's
releases. An IPv4 address inside an IPv6 one (mapped, or translated by NAT64) is judged as what it is.
"""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Iterable
from typing import Final

Address = ipaddress.IPv4Address | ipaddress.IPv6Address
Network = ipaddress.IPv4Network | ipaddress.IPv6Network

#: The first one that holds an address names it.
_SPECIAL: Final = tuple(
    (ipaddress.ip_network(network), kind)
    for network, kind in (
        ("169.254.169.254/32", "metadata"),
        ("100.100.100.200/32", "metadata"),  # Alibaba Cloud
        ("168.63.129.16/32", "metadata"),  # Azure; looks like a public address
        ("192.0.0.192/32", "metadata"),  # Oracle Cloud, of old
        ("fd00:ec2::254/128", "metadata"),  # AWS
        ("fd20:ce::254/128", "metadata"),  # Google Cloud
        ("0.0.0.0/8", "unspecified"),
        ("10.0.0.0/8", "private"),
        ("100.64.0.0/10", "shared (CGNAT)"),
        ("127.0.0.0/8", "loopback"),
        ("169.254.0.0/16", "link-local"),
        ("172.16.0.0/12", "private"),
        ("192.0.0.0/24", "reserved"),
        ("192.0.2.0/24", "documentation"),
        ("192.88.99.0/24", "6to4"),
        ("192.168.0.0/16", "private"),
        ("198.18.0.0/15", "benchmark"),
        ("198.51.100.0/24", "documentation"),
        ("203.0.113.0/24", "documentation"),
        ("224.0.0.0/4", "multicast"),
        ("240.0.0.0/4", "reserved"),
        ("::/128", "unspecified"),
        ("::1/128", "loopback"),
        ("64:ff9b:1::/48", "local NAT64"),
        ("2001::/23", "reserved"),  # Teredo and ORCHID among them
        ("2001:db8::/32", "documentation"),
        ("2002::/16", "6to4"),
        ("3fff::/20", "documentation"),
        ("fc00::/7", "private"),
        ("fe80::/10", "link-local"),
        ("fec0::/10", "private"),
        ("ff00::/8", "multicast"),
    )
)
_GLOBAL_UNICAST: Final = ipaddress.IPv6Network("2000::/3")
_NAT64: Final = ipaddress.IPv6Network("64:ff9b::/96")
#: With a letter in its last part: everything else is meant as an address.
_HOST_NAME: Final = re.compile(r"(?:[A-Za-z0-9_-]+\.)*[0-9_-]*[A-Za-z][A-Za-z0-9_-]*")


class AddressPolicy:
    """Public addresses, and in addition what `allowed` names: networks, single addresses, and exact host names."""

    def __init__(self, allowed: Iterable[str] = ()) -> None:
        """Raises ValueError for an entry that is neither a network nor a host name."""
        self._networks: list[Network] = []
        self._hosts: set[str] = set()
        for entry in allowed:
            if _HOST_NAME.fullmatch(entry):
                self._hosts.add(entry.lower())
                continue
            try:
                self._networks.append(ipaddress.ip_network(entry))
            except ValueError as error:
                raise ValueError(f"neither a host name nor a network: {error}") from None

    def refusal(self, host: str, address: str) -> str | None:
        """Why `host` must not be reached at `address` (as the resolver writes it): one or two words; None if it may."""
        plain = ipaddress.ip_address(address.partition("%")[0])
        seen = _inner(plain)
        if host.lower().rstrip(".") in self._hosts or any(
            each in network for network in self._networks for each in (plain, seen)
        ):
            return None
        for network, kind in _SPECIAL:
            if seen in network:
                return kind
        return "reserved" if seen.version == 6 and seen not in _GLOBAL_UNICAST else None


def _inner(address: Address) -> Address:
    """The IPv4 address that an IPv6 one stands for, else the address itself."""
    if isinstance(address, ipaddress.IPv6Address):
        if address.ipv4_mapped is not None:
            return address.ipv4_mapped
        if address in _NAT64:
            return ipaddress.IPv4Address(int(address) & 0xFFFFFFFF)
    return address
