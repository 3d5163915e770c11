"""URLs that requests choose: which ones are allowed, and that the client parses them as the check does."""

from __future__ import annotations

from typing import Any

from hypothesis import given
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase
from twisted.web.client import URI

from openhqm.errors import DestinationRefused
from openhqm.policy.destinations import MOST_CHARACTERS, DestinationPolicy
from tests import hypothesis_profile  # noqa: F401

# host, as Twisted's URI gives it, and the URL
ALLOWED = {
    "https://example.com": "example.com",
    "https://example.com/": "example.com",
    "https://example.com/hooks/1?a=b&c=%20#".rstrip("#"): "example.com",
    "https://example.com?a=b": "example.com",
    "https://example.com:443/hooks": "example.com",
    "https://EXAMPLE.com/Hooks": "example.com",
    "HTTPS://example.com/": "example.com",
    "https://a.b.c.d.e.example.co.uk/": "a.b.c.d.e.example.co.uk",
    "https://3com.com/": "3com.com",
    "https://1.example.com/": "1.example.com",
    "https://0x7f.example.com/": "0x7f.example.com",
    "https://127.0.0.1.example.com/": "127.0.0.1.example.com",  # a name like any other: its addresses are judged later
    "https://xn--bcher-kva.example/": "xn--bcher-kva.example",
    "https://example.xn--p1ai/": "example.xn--p1ai",
    "https://localhost.example.com/": "localhost.example.com",
    "https://internal.example.com/": "internal.example.com",
    "https://notlocalhost.com/": "notlocalhost.com",
    "https://example.com/a@b": "example.com",
    "https://example.com/?to=http://10.0.0.1/": "example.com",
    "https://example.com//10.0.0.1/": "example.com",
    "https://example.com/a;b=c": "example.com",
    "https://example.com/?a[]=1": "example.com",
    "https://1.1.1.1/": "1.1.1.1",
    "https://8.8.8.8/dns-query": "8.8.8.8",
    "https://9.255.255.255/": "9.255.255.255",
    "https://11.0.0.1/": "11.0.0.1",
    "https://100.63.255.255/": "100.63.255.255",
    "https://126.255.255.255/": "126.255.255.255",
    "https://168.63.129.17/": "168.63.129.17",
    "https://172.15.255.255/": "172.15.255.255",
    "https://172.32.0.1/": "172.32.0.1",
    "https://192.167.255.255/": "192.167.255.255",
    "https://198.20.0.1/": "198.20.0.1",
    "https://223.255.255.255/": "223.255.255.255",
    "https://[2606:4700:4700::1111]/": "2606:4700:4700::1111",
    "https://[2001:4860:4860::8888]:443/": "2001:4860:4860::8888",
    "https://[2A00:1450:4001:82A::200E]/": "2a00:1450:4001:82a::200e",
    "https://[2001:200::1]/": "2001:200::1",
    "https://[2003::1]/": "2003::1",
    "https://[::ffff:8.8.8.8]/": "::ffff:8.8.8.8",
}

REFUSED = {
    "scheme": (
        *("http://example.com/", "ftp://example.com/", "file:///etc/passwd", "gopher://example.com:443/_x"),
        *("javascript:alert(1)", "data:text/html,x", "ws://example.com/", "wss://example.com/", "dict://example.com/"),
        *("//example.com/", "example.com", "/hooks", "", "https", "https:", "https:/example.com", "https:example.com"),
        *("https;//example.com/", "view-source:https://example.com/", "https:https://example.com/", "ſttps://example.com"),
    ),
    "port": (
        *("https://example.com:80/", "https://example.com:22/", "https://example.com:25/", "https://example.com:6379/"),
        *("https://example.com:0/", "https://example.com:65536/", "https://example.com:4430/", "https://example.com:/"),
        *("https://example.com:0443/", "https://example.com:+443/", "https://example.com:-443/", "https://example.com:443:443/"),
        *("https://example.com:4٤3/", "https://example.com:https/", "https://example.com:443a/", "https://8.8.8.8:8443/"),
    ),
    "user information": (
        *("https://user@example.com/", "https://user:pass@example.com/", "https://@example.com/"),
        *("https://example.com@10.0.0.1/", "https://example.com:443@127.0.0.1/", "https://10.0.0.1@example.com/"),
        *("https://a@b@example.com/", "https://example.com%40127.0.0.1/"),
    ),
    "characters": (
        *("https://example.com/#", "https://example.com/#a", "https://example.com#@127.0.0.1/", "https://127.0.0.1#.example.com"),
        *(" https://example.com/", "https://example.com/ ", "https://exam ple.com/", "https://example.com/a b"),
        *("https://example.com/\n", "\nhttps://example.com/", "https://exam\tple.com/"),
        *("https://example.com/\r\nHost: a", "https://example.com/\v", "https://example.com/\u2028"),
        *("https://example.com/\x00", "https://example.com\x00.evil.com/", "https://example.com/\x7f", "ht\ntps://example.com/"),
        *("https:\\\\example.com/", "https://example.com\\@127.0.0.1/", "https://127.0.0.1\\.example.com/", "https://a.com/\\b"),
        *("https://bücher.example/", "https://example。com/", "https://ｅxample.com/", "https://example.com/ü", "https://exa\u200bmple.com/"),
        *("https://%65xample.com/", "https://127.0.0.1%2f.example.com/", "https://example.com%00/", "https://%31%30.0.0.1/"),
    ),
    "host": (
        *("https://", "https:///", "https:///example.com", "https://?a", "https://:443/", "https://./", "https://../"),
        *("https://example.com./", "https://.example.com/", "https://example..com/", "https://-example.com/"),
        *("https://example-.com/", "https://exa_mple.com/", "https://exa*mple.com/", "https://example.com,a.com/"),
        *("https://ab--cd.example.com/", "https://xn--.com/", f"https://{'a' * 64}.com/", f"https://{'a.' * 127}com/"),
        *("https://[example.com]/", "https://[]/", "https://[::1/", "https://::1]/", "https://2606:4700::1/", "https://[[::1]]/"),
        *("https://example.com[::1]/", "https://[2606:4700::1]a/", "https://[v1.a]/", "https://example/", "https://redis/"),
    ),
    "numbers": (
        *("https://2130706433/", "https://0x7f000001/", "https://0X7F000001/", "https://017700000001/", "https://0/"),
        *("https://127.1/", "https://127.0.1/", "https://10.1/", "https://0177.0.0.1/", "https://0x7f.0.0.1/"),
        *("https://0x7f.0x0.0x0.0x1/", "https://127.0.0.01/", "https://127.000.000.001/", "https://127.0.0.1./"),
        *("https://127.0.0.0x1/", "https://0300.0250.0.1/", "https://192.168.257/", "https://3232235777/", "https://8.8.8.08/"),
        *("https://134744072/", "https://8.8.2056/", "https://256.1.1.1/", "https://1.2.3/", "https://1.2.3.4.5/"),
        *("https://①②⑦.⓪.⓪.①/", "https://１２７.０.０.１/", "https://١٢٧.٠.٠.١/", "https://127。0。0。1/", "https://1.1.1.1a/"),
        *("https://[127.0.0.1]/", "https://[8.8.8.8]/", "https://[::127.1]/", "https://[1::2::3]/", "https://[2606:4700::1%25eth0]/"),
        *("https://[fe80::1%eth0]/", "https://[2606:4700::12345]/", "https://[::ffff:0x7f.0.0.1]/", "https://[:::1]/"),
    ),
    "names": (
        *("https://localhost/", "https://LOCALHOST/", "https://a.localhost/", "https://localhost.localdomain/"),
        *("https://printer.local/", "https://metadata.google.internal/", "https://metadata/", "https://host.docker.internal/"),
        *("https://instance-data.ec2.internal/", "https://kubernetes.default.svc.cluster.local/", "https://router.home.arpa/"),
        *("https://metadata.goog/", "https://a.metadata.tencentyun.com/", "https://wiki.corp/", "https://nas.lan/"),
        *("https://abcdefghijklmnop.onion/", "https://a.test/", "https://a.invalid/", "https://a.alt/", "https://a.intranet/"),
    ),
    "IPv4": (
        *("https://0.0.0.0/", "https://0.1.2.3/", "https://10.0.0.1/", "https://10.255.255.255/", "https://100.64.0.1/"),
        *("https://100.100.100.200/", "https://127.0.0.1/", "https://127.0.0.1:443/", "https://127.255.255.254/"),
        *("https://168.63.129.16/", "https://169.254.169.254/latest/meta-data/", "https://169.254.170.2/", "https://169.254.0.23/"),
        *("https://172.16.0.1/", "https://172.31.255.255/", "https://192.0.0.1/", "https://192.0.0.192/", "https://192.0.2.1/"),
        *("https://192.88.99.1/", "https://192.168.0.1/", "https://192.168.255.255/", "https://198.18.0.1/", "https://198.19.255.255/"),
        *("https://198.51.100.7/", "https://203.0.113.7/", "https://224.0.0.1/", "https://239.255.255.250/", "https://240.0.0.1/"),
        *("https://255.255.255.255/", "https://172.17.0.1/", "https://192.0.0.170/"),
    ),
    "IPv6": (
        *("https://[::]/", "https://[::1]/", "https://[0:0:0:0:0:0:0:1]/", "https://[::1]:443/", "https://[::2]/"),
        *("https://[::127.0.0.1]/", "https://[::8.8.8.8]/", "https://[::7f00:1]/", "https://[::ffff:127.0.0.1]/"),
        *("https://[::ffff:7f00:1]/", "https://[::FFFF:10.0.0.1]/", "https://[0:0:0:0:0:ffff:a9fe:a9fe]/"),
        *("https://[::ffff:0:127.0.0.1]/", "https://[::ffff:0:10.0.0.1]/", "https://[64:ff9b::7f00:1]/", "https://[64:ff9b::8.8.8.8]/"),
        *("https://[64:ff9b:1::a00:1]/", "https://[64:ff9b:1:ffff::1]/", "https://[100::1]/", "https://[100:0:0:1::1]/"),
        *("https://[2001::1]/", "https://[2001:0:4136:e378:8000:63bf:3fff:fdd2]/", "https://[2001:10::1]/", "https://[2001:20::1]/"),
        *("https://[2001:2::1]/", "https://[2001:db8::1]/", "https://[2002:7f00:1::]/", "https://[2002:808:808::1]/"),
        *("https://[3fff::1]/", "https://[5f00::1]/", "https://[fc00::1]/", "https://[fd00:ec2::254]/", "https://[fd20:ce::254]/"),
        *("https://[fe80::1]/", "https://[febf::1]/", "https://[fec0::1]/", "https://[ff02::1]/", "https://[ff0e::1]/"),
        *("https://[200::1]/", "https://[4000::1]/", "https://[8000::1]/", "https://[1fff::1]/"),
    ),
}  # fmt: skip

PLAUSIBLE = r"https?://([a-z0-9.\-]{1,20}|\[[0-9a-f:.]{2,20}\])(:[0-9]{1,5})?([/?][\x21-\x7e]{0,30})?"
GENEROUS = DestinationPolicy(("https", "http"), range(1, 65536))
EVERYWHERE = DestinationPolicy(("https", "http"), range(1, 65536), allow=("0.0.0.0/0", "::/0"))


def reason(policy: DestinationPolicy, url: str) -> str | None:
    """Why the URL is refused; None where it is allowed."""
    try:
        policy.check(url)
    except DestinationRefused as refused:
        return refused.reason
    return None


class TableTests(SynchronousTestCase):
    """`DestinationPolicy.check` with default settings"""

    def test_table_sizes(self) -> None:
        """The tables of these tests do not shrink, and have no entry twice."""
        refused = [url for urls in REFUSED.values() for url in urls]
        self.assertGreaterEqual(len(set(refused)), 200)
        self.assertGreaterEqual(len(ALLOWED), 25)
        self.assertEqual(len(set(refused)), len(refused))
        self.assertEqual(set(refused) & set(ALLOWED), set())

    def test_allowed(self) -> None:
        """URLs of the public internet are allowed, each with its host."""
        for url, host in ALLOWED.items():
            found = DestinationPolicy().check(url)
            self.assertEqual((found.scheme, found.host, found.port), ("https", host, 443), url)

    def test_refused(self) -> None:
        """All other URLs are refused, with the same text."""
        for kind, urls in REFUSED.items():
            for url in urls:
                refused = self.assertRaises(DestinationRefused, DestinationPolicy().check, url)
                self.assertEqual(str(refused), "the destination is not allowed", (kind, url))
                self.assertTrue(refused.reason, url)

    def test_refused_for_this_reason(self) -> None:
        """Each URL of the table is refused for the reason it stands for, also where all else about it is allowed."""
        for kind in ("host", "numbers", "names", "IPv4", "IPv6", "user information", "characters"):
            for url in REFUSED[kind]:
                self.assertIsNotNone(reason(GENEROUS, url), url)
        everywhere = DestinationPolicy(allow=("0.0.0.0/0", "::/0"))
        for url in (*REFUSED["IPv4"], *REFUSED["IPv6"]):
            self.assertIsNone(reason(everywhere, url), url)
        for kind in ("host", "numbers", "names", "user information", "characters", "scheme", "port"):
            for url in REFUSED[kind]:
                self.assertIsNotNone(reason(everywhere, url), url)

    def test_length(self) -> None:
        """A URL has at most 2048 characters."""
        url = "https://example.com/"
        longest = url + "a" * (MOST_CHARACTERS - len(url))
        self.assertIsNone(reason(DestinationPolicy(), longest))
        self.assertIsNotNone(reason(DestinationPolicy(), longest + "a"))


class ParsersTests(SynchronousTestCase):
    """The checked destination is the one that is called"""

    def test_twisted_parses_alike(self) -> None:
        """Twisted's client finds the same host, port and target in the checked URL."""
        for url in ALLOWED:
            self.agree(url)

    @given(st.from_regex(PLAUSIBLE, fullmatch=True))
    def test_twisted_parses_any_alike(self, url: str) -> None:
        """It does so for every URL that passes the check."""
        self.agree(url)

    def agree(self, url: str) -> None:
        try:
            found = EVERYWHERE.check(url)
        except DestinationRefused:
            return
        self.assertEqual(EVERYWHERE.check(found.url), found)
        read = URI.fromBytes(found.url.encode())
        self.assertEqual(
            (read.scheme, read.host, read.port), (found.scheme.encode(), found.host.encode(), found.port), url
        )
        if not found.target.startswith("//"):
            self.assertEqual(read.originForm.rstrip(b"?;"), found.target.encode().rstrip(b"?;"), url)

    @given(st.text())
    def test_any_text(self, text: str) -> None:
        """Any text is a destination or `DestinationRefused`, and raises nothing else."""
        for url in (text, f"https://{text}", f"https://{text}/", f"https://example.com{text}"):
            reason(DestinationPolicy(), url)

    @given(st.integers(0, 2**32 - 1), st.sampled_from(["{:d}", "0x{:x}", "0{:o}", "0X{:08X}", "00{:o}"]))
    def test_whole_numbers(self, number: int, form: str) -> None:
        """An IPv4 address written as one number is refused, public or not, because parsers differ on it."""
        self.assertIsNotNone(reason(DestinationPolicy(), f"https://{form.format(number)}/"))

    @given(st.lists(st.tuples(st.integers(0, 255), st.sampled_from(["0x{:x}", "0{:o}"])), min_size=4, max_size=4))
    def test_octets_of_another_base(self, octets: list[tuple[int, str]]) -> None:
        """Octal and hexadecimal octets are refused."""
        host = ".".join(form.format(octet) for octet, form in octets)
        self.assertIsNotNone(reason(DestinationPolicy(), f"https://{host}/"))


class SettingsTests(SynchronousTestCase):
    """`DestinationPolicy` with an operator's settings"""

    def test_http(self) -> None:
        """Plain HTTP and other ports can be allowed, each by itself."""
        policy = DestinationPolicy(schemes=("http",), ports=(80, 8080))
        self.assertEqual(policy.check("http://example.com/").port, 80)
        self.assertEqual(policy.check("http://example.com:8080/").url, "http://example.com:8080/")
        for url in ("https://example.com/", "https://example.com:8080/", "http://example.com:8081/"):
            self.assertIsNotNone(reason(policy, url), url)
        self.assertIsNotNone(reason(DestinationPolicy(schemes=("http",)), "http://example.com/"))

    def test_allow(self) -> None:
        """Listed networks and names are allowed, and nothing else."""
        policy = DestinationPolicy(allow=("10.1.0.0/16", "fd00::/8", "Redis", "hooks.corp"))
        for url in (
            "https://10.1.2.3/",
            "https://[fd00::1]/",
            "https://[::ffff:10.1.2.3]/",
            "https://redis/",
            "https://HOOKS.corp",
        ):
            self.assertIsNone(reason(policy, url), url)
        for url in (
            "https://10.2.0.1/",
            "https://[fc00::1]/",
            "https://redis2/",
            "https://a.hooks.corp/",
            "https://corp/",
        ):
            self.assertIsNotNone(reason(policy, url), url)
        for url in ("http://10.1.2.3/", "https://10.1.2.3:80/", "https://10.1.515/", "https://a@redis/"):
            self.assertIsNotNone(reason(policy, url), url)

    def test_deny(self) -> None:
        """The deny list takes precedence over public addresses (our own, for example) and over the allow list."""
        policy = DestinationPolicy(deny=("9.9.9.9", "2606:4700::/32", "gateway.example.com"), allow=("9.9.9.0/24",))
        for url in (
            "https://9.9.9.9/",
            "https://[::ffff:9.9.9.9]/",
            "https://[2606:4700::1]/",
            "https://GATEWAY.example.com/",
        ):
            self.assertIsNotNone(reason(policy, url), url)
        self.assertFalse(policy.permits("9.9.9.9", "example.com"))
        self.assertFalse(policy.permits("1.1.1.1", "gateway.example.com"))
        self.assertTrue(policy.permits("9.9.9.8", "example.com"))

    def test_addresses_of_names(self) -> None:
        """A name is allowed as its addresses are. A listed name is allowed whatever it resolves to."""
        policy = DestinationPolicy(allow=("10.1.0.0/16", "hooks.corp"))
        for address, host, verdict in (
            ("8.8.8.8", "example.com", True),
            ("2606:4700::1", "example.com", True),
            ("127.0.0.1", "example.com", False),
            ("::1", "example.com", False),
            ("10.1.0.1", "example.com", True),
            ("10.2.0.1", "example.com", False),
            ("10.2.0.1", "hooks.corp", True),
            ("10.2.0.1", "Hooks.Corp", True),
            ("10.2.0.1", "a.hooks.corp", False),
            ("fe80::1%eth0", "hooks.corp", False),
            ("", "hooks.corp", False),
            ("unknown", "hooks.corp", False),
        ):
            self.assertIs(policy.permits(address, host), verdict, (address, host))

    def test_invalid_settings(self) -> None:
        """Invalid settings are refused at once."""
        wrong: tuple[dict[str, Any], ...] = (
            *({"schemes": ()}, {"schemes": ("ftp",)}, {"schemes": "https"}, {"ports": ()}, {"ports": (0,)}),
            *({"ports": (65536,)}, {"allow": ("10.0.0.1/8",)}, {"deny": ("*.corp",)}, {"allow": "hooks.corp"}),
        )
        for settings in wrong:
            self.assertRaises(ValueError, DestinationPolicy, **settings)
