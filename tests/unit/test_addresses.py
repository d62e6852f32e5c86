"""Which addresses a user's request may be sent to."""

import pytest

from tasks_app.sections import ConfigurationError, build
from workers_app.addresses import AddressPolicy
from workers_app.conf import WorkerSettings


@pytest.mark.parametrize(
    ("address", "kind"),
    [
        ("127.0.0.1", "loopback"), ("127.255.255.255", "loopback"), ("::1", "loopback"),
        ("10.0.0.1", "private"), ("172.16.0.1", "private"), ("172.31.255.255", "private"), ("192.168.1.1", "private"),
        ("fd12::1", "private"), ("fec0::1", "private"),
        ("169.254.1.1", "link-local"), ("fe80::1", "link-local"), ("fe80::1%eth0", "link-local"),
        ("169.254.169.254", "metadata"), ("100.100.100.200", "metadata"), ("168.63.129.16", "metadata"),
        ("192.0.0.192", "metadata"), ("fd00:ec2::254", "metadata"), ("fd20:ce::254", "metadata"),
        ("0.0.0.0", "unspecified"), ("0.1.2.3", "unspecified"), ("::", "unspecified"),
        ("100.64.0.1", "shared (CGNAT)"), ("100.127.255.255", "shared (CGNAT)"),
        ("224.0.0.1", "multicast"), ("239.255.255.255", "multicast"), ("ff02::1", "multicast"),
        ("192.0.0.1", "reserved"), ("240.0.0.1", "reserved"), ("255.255.255.255", "reserved"),
        ("192.0.2.1", "documentation"), ("198.51.100.1", "documentation"), ("203.0.113.1", "documentation"),
        ("2001:db8::1", "documentation"), ("3fff::1", "documentation"), ("198.18.0.1", "benchmark"),
        ("::ffff:127.0.0.1", "loopback"), ("::ffff:10.0.0.1", "private"), ("::ffff:169.254.169.254", "metadata"),
        ("64:ff9b::127.0.0.1", "loopback"), ("64:ff9b::a9fe:a9fe", "metadata"), ("64:ff9b::10.0.0.1", "private"),
        ("64:ff9b:1::8.8.8.8", "local NAT64"), ("2002:7f00:1::1", "6to4"), ("2002:808:808::1", "6to4"),
        ("192.88.99.1", "6to4"), ("2001:0:808:808::1", "reserved"), ("::8.8.8.8", "reserved"), ("5f00::1", "reserved"),
        ("100::1", "reserved"), ("4000::1", "reserved"),
    ],
)  # fmt: skip
def test_an_address_that_is_not_public_is_refused_and_named(address, kind):
    assert AddressPolicy().refusal("example.org", address) == kind


@pytest.mark.parametrize(
    "address",
    ["8.8.8.8", "172.15.255.255", "172.32.0.1", "100.63.255.255", "100.128.0.1", "169.253.0.1", "223.255.255.255",
     "2606:4700::1111", "::ffff:8.8.8.8", "64:ff9b::8.8.8.8"],
)  # fmt: skip
def test_a_public_address_is_let_through(address):
    assert AddressPolicy().refusal("example.org", address) is None


@pytest.mark.parametrize(
    ("allowed", "host", "address"),
    [
        ("10.1.0.0/16", "db", "10.1.2.3"),
        ("10.1.2.3", "db", "10.1.2.3"),
        ("10.1.0.0/16", "db", "::ffff:10.1.2.3"),
        ("10.1.0.0/16", "db", "64:ff9b::10.1.2.3"),
        ("::ffff:10.1.0.0/112", "db", "::ffff:10.1.2.3"),
        ("fd12::/16", "db", "fd12::1"),
        ("DB.intern", "db.INTERN", "10.1.2.3"),
        ("db.intern", "db.intern.", "10.1.2.3"),
        ("node_1", "node_1", "127.0.0.1"),
    ],
)
def test_what_the_operator_allows_is_let_through(allowed, host, address):
    assert AddressPolicy([allowed]).refusal(host, address) is None


@pytest.mark.parametrize(
    ("allowed", "host", "address"),
    [
        ("10.1.0.0/16", "db", "10.2.0.1"),
        ("db.intern", "other.db.intern", "10.1.2.3"),
        ("db.intern", "intern", "10.1.2.3"),
        ("10.1.2.3", "10.1.2.3", "127.0.0.1"),
    ],
)
def test_nothing_beside_it_is(allowed, host, address):
    assert AddressPolicy([allowed]).refusal(host, address) is not None


@pytest.mark.parametrize("entry", ["10.0.0.1/8", "10.0.0.0/33", "10.0.0", "*.intern", "http://db", "db:80", "a..b", ""])
def test_an_entry_that_cannot_be_meant_stops_the_start(entry):
    with pytest.raises(ConfigurationError, match="http_allow"):
        build(WorkerSettings, {"http_allow": ("10.0.0.0/8", entry)}, section="workers")
