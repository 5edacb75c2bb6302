"""Tests of which servers and addresses may be asked."""

from ipaddress import ip_address

import pytest

from service.errors import FetchRefused
from service.fetch.rules import Rules, is_public

NOT_PUBLIC = [
    "127.0.0.1", "127.8.9.1", "0.0.0.0", "10.1.2.3", "172.16.0.1", "172.31.255.255", "192.168.1.1",
    "169.254.169.254", "100.64.0.1", "100.100.100.200", "192.0.0.192", "198.18.0.1", "224.0.0.1",
    "239.1.2.3", "240.0.0.1", "255.255.255.255", "168.63.129.16", "192.0.2.1", "203.0.113.9",
    "::", "::1", "fe80::1", "fc00::1", "fd00:ec2::254", "ff02::1", "ff0e::1", "2001:db8::1",
    "::ffff:127.0.0.1", "::ffff:10.0.0.1", "::ffff:169.254.169.254", "64:ff9b::127.0.0.1",
    "64:ff9b::a9fe:a9fe", "64:ff9b:1::a00:1", "2002:7f00:1::1", "2002:a9fe:a9fe::1",
    "2001:0:53aa:64c::1", "::127.0.0.1", "fec0::1", "::ffff:0:7f00:1", "5f00::1", "4000::1",
    "192.88.99.1",
]  # fmt: skip
PUBLIC = [
    "93.184.216.34", "8.8.8.8", "1.1.1.1", "172.32.0.1", "2606:4700::1111", "::ffff:8.8.8.8",
    "64:ff9b::8.8.8.8", "2002:808:808::1",
]  # fmt: skip


@pytest.mark.parametrize("address", NOT_PUBLIC)
def test_addresses_of_other_networks_are_not_public(address: str) -> None:
    assert not is_public(ip_address(address))


@pytest.mark.parametrize("address", PUBLIC)
def test_addresses_of_the_internet_are_public(address: str) -> None:
    assert is_public(ip_address(address))


@pytest.mark.parametrize(
    "url",
    [
        "ftp://a.org/x.jpg", "file:///etc/passwd", "gopher://a.org", "//a.org/x", "a.org/x.jpg", "",
        "http://", "http:///x", "http://user@a.org/", "http://user:word@a.org/", "http://@a.org/",
        "http://a.org:22/", "https://a.org:80/", "http://a.org:443/", "http://a.org:0/",
        "http://a.org:99999/", "http://a.org:x/", "http://a.org\\@b.org/", "http://a.org/ x",
        "http://a.org/\n", "http://ä.org/", "http://[::1/", "http://a.org/" + "x" * 2048,
        "data:image/png;base64,AA", "http://a.org/\0",
    ],
)  # fmt: skip
def test_addresses_that_are_not_fetched(url: str) -> None:
    rules = Rules.parse("public")
    assert rules is not None
    with pytest.raises(FetchRefused):
        rules.checked(url)


def test_servers_that_are_listed() -> None:
    rules = Rules.parse("img.example.org, *.Shop.example, 10.0.0.5:9000, [fd00::5]:8080, box:81")
    assert rules is not None
    for url, public in (
        ("https://img.example.org/a.jpg", True),
        ("http://IMG.example.org./a.jpg", True),
        ("http://a.b.shop.example/", True),
        ("http://10.0.0.5:9000/a", False),
        ("https://10.0.0.5:9000/a", False),
        ("http://[fd00::5]:8080/a", False),
        ("http://box:81/", False),
    ):
        assert rules.checked(url).public is public, url
    for url in (
        "https://example.org/", "https://img.example.org.evil.org/", "http://shop.example/",
        "http://xshop.example/", "http://10.0.0.5/", "http://10.0.0.5:9001/", "http://box/",
        "http://img.example.org:81/", "http://[fd00::6]:8080/",
    ):  # fmt: skip
        with pytest.raises(FetchRefused, match="GPQ_FETCH"):
            rules.checked(url)


def test_the_setting() -> None:
    assert Rules.parse("off") is None
    public = Rules.parse(" public ")
    assert public is not None and public.checked("http://a.org/x").host == "a.org"
    for text in ("", "https://a.org", "a.org:0", "a.org:70000", "a b", "*", "a.org,,b.org", "a:b"):
        with pytest.raises(ValueError, match="GPQ_FETCH"):
            Rules.parse(text)
