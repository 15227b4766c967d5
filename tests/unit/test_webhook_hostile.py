"""Hostile URLs against a server that listens and counts: none may bring a connection."""

import http.server
import ipaddress
import socket
import threading
import time

import pytest

from app.errors import SpearError
from app.recipes.webhook import parse_url
from app.webhooks.policy import Policy, is_public
from app.webhooks.transport import post

PUBLIC = "93.184.215.14"


class Trap:
    """A server on all of this machine's addresses that counts connections."""

    def __init__(self) -> None:
        self.connections = 0
        self._socket = socket.create_server(("::", 0), family=socket.AF_INET6, dualstack_ipv6=True)
        self.port = self._socket.getsockname()[1]
        threading.Thread(target=self._count, daemon=True).start()

    def _count(self) -> None:
        while True:
            try:
                found, _ = self._socket.accept()
            except OSError:
                return
            self.connections += 1
            found.close()

    def close(self) -> None:
        self._socket.shutdown(socket.SHUT_RDWR)
        self._socket.close()


@pytest.fixture
def trap():
    made = Trap()
    yield made
    made.close()


HOSTILE = [
    # loopback, in every spelling of an IPv4 address that resolvers have ever taken
    "https://127.0.0.1:{port}/", "https://127.1:{port}/", "https://127.0.1:{port}/", "https://2130706433:{port}/",
    "https://0x7f000001:{port}/", "https://0x7f.0.0.1:{port}/", "https://0x7f.1:{port}/", "https://017700000001:{port}/",
    "https://0177.0.0.1:{port}/", "https://0177.0.0.01:{port}/", "https://127.0.0.01:{port}/",
    "https://00127.0.0.1:{port}/", "https://127.0.0.1.:{port}/", "https://127.255.255.254:{port}/",
    "https://0:{port}/", "https://0.0.0.0:{port}/", "https://0x0:{port}/", "https://4294967295:{port}/",
    "https://0x17f000001:{port}/", "https://1.0x7f000001:{port}/",
    # IPv6, plain and wrapped around IPv4
    "https://[::1]:{port}/", "https://[::]:{port}/", "https://[0:0:0:0:0:0:0:1]:{port}/",
    "https://[::ffff:127.0.0.1]:{port}/", "https://[::ffff:7f00:1]:{port}/", "https://[::127.0.0.1]:{port}/",
    "https://[::ffff:0:127.0.0.1]:{port}/", "https://[64:ff9b::7f00:1]:{port}/", "https://[64:ff9b::127.0.0.1]:{port}/",
    "https://[64:ff9b:1::7f00:1]:{port}/", "https://[2002:7f00:1::]:{port}/", "https://[2002:7f00:1::1]:{port}/",
    "https://[2001:0:7f00:1::80ff:fffe]:{port}/", "https://[fe80::1]:{port}/", "https://[fe80::1%lo]:{port}/",
    "https://[fe80::1%25lo]:{port}/", "https://[::1%25lo]:{port}/", "https://[fc00::1]:{port}/",
    "https://[fd00:ec2::254]:{port}/", "https://[fec0::1]:{port}/", "https://[ff02::1]:{port}/",
    "https://[ff0e::1]:{port}/", "https://[100::1]:{port}/", "https://[2001:db8::1]:{port}/", "https://[::1:{port}/",
    "https://::1:{port}/", "https://[5f00::1]:{port}/", "https://[v1.fe80]:{port}/",
    # metadata services, link-local, private, shared, reserved, multicast
    "https://169.254.169.254:{port}/latest/meta-data/", "https://[::ffff:169.254.169.254]:{port}/",
    "https://[::ffff:a9fe:a9fe]:{port}/", "https://2852039166:{port}/", "https://0xa9fea9fe:{port}/",
    "https://100.100.100.200:{port}/", "https://100.64.0.1:{port}/", "https://10.0.0.1:{port}/",
    "https://172.16.0.1:{port}/", "https://172.31.255.255:{port}/", "https://192.168.1.1:{port}/",
    "https://192.0.0.1:{port}/", "https://192.0.2.1:{port}/", "https://192.88.99.1:{port}/",
    "https://198.18.0.1:{port}/", "https://198.51.100.7:{port}/", "https://203.0.113.7:{port}/",
    "https://224.0.0.1:{port}/", "https://239.255.255.255:{port}/", "https://240.0.0.1:{port}/",
    "https://255.255.255.255:{port}/", "https://0.1.2.3:{port}/",
    # names of this machine
    "https://localhost:{port}/", "https://LOCALHOST:{port}/", "https://localhost.:{port}/",
    "https://localhost.localdomain:{port}/", "https://ip6-localhost:{port}/", "https://evil.example:{port}/",
    # user info, confusion about where the host begins and ends
    "https://public.example@127.0.0.1:{port}/", "https://user:pass@127.0.0.1:{port}/",
    "https://127.0.0.1:{port}@public.example/", "https://127.0.0.1:{port}#@public.example/",
    "https://127.0.0.1:{port}\\@public.example/", "https://public.example\\@127.0.0.1:{port}/",
    "https://public.example#@127.0.0.1:{port}/", "https://public.example%00@127.0.0.1:{port}/",
    "https:///127.0.0.1:{port}/", "https:127.0.0.1:{port}/", "https:/127.0.0.1:{port}/", "//127.0.0.1:{port}/",
    "https:\\\\127.0.0.1:{port}\\", "https://127.0.0.1\\.public.example:{port}/", "https://;@127.0.0.1:{port}/",
    "https://[127.0.0.1]:{port}/", "https://127.0.0.1:{port}:443/", "https://127.0.0.1:+{port}/",
    "https://127.0.0.1:0{port}/", "https://127.0.0.1:{port}.0/", "https://127.0.0.1 public.example:{port}/",
    # percent-encoding, control characters, spaces
    "https://127.0.0.%31:{port}/", "https://%31%32%37.0.0.1:{port}/", "https://localhos%74:{port}/",
    "https://127.0.0.1%2f@public.example:{port}/", "https://127.0.0.1\t:{port}/", "https://127.0.0.1\n:{port}/",
    "https://127.0.0.1\r\nX-Injected: 1\r\n:{port}/", "https://127.0.0.1\x00:{port}/", " https://127.0.0.1:{port}/",
    "https://127.0.0.1:{port}/ HTTP/1.1\r\nHost: inside\r\n\r\n", "https://127.0.0.1:{port}/\x7f",
    "ht\ntps://127.0.0.1:{port}/", "https://127.0.0.1:\n{port}/", "https://127.0.0.1:{port}/\u2028",
    # other alphabets that turn into digits, dots and letters
    "https://\u2460\u2461\u2466.\u24ea.\u24ea.\u2460:{port}/", "https://127\u30020\u30020\u30021:{port}/",
    "https://127\uff0e0\uff0e0\uff0e1:{port}/", "https://\u24dbocalhost:{port}/", "https://localho\u017ft:{port}/",
    "https://lo\u00adcalhost:{port}/", "https://\uff11\uff12\uff17.0.0.1:{port}/", "https://xn--localhost-:{port}/",
    "https://evil.example\u3002:{port}/",
    # other schemes and ports
    "http://127.0.0.1:{port}/", "http://public.example:{port}/", "HTTPS://127.0.0.1:{port}/", "ftp://127.0.0.1:{port}/",
    "file:///etc/passwd", "gopher://127.0.0.1:{port}/_x", "dict://127.0.0.1:{port}/", "unix:///var/run/docker.sock",
    "ws://127.0.0.1:{port}/", "javascript:alert(1)", "data:text/plain,x", "jar:https://127.0.0.1:{port}!/",
    "http+unix://%2fvar%2frun%2fdocker.sock/", "https://127.0.0.1:99999/", "https://127.0.0.1:-1/", "",
    "127.0.0.1:{port}",
]  # fmt: skip


def resolve_to_this_machine(host: str, port: int) -> list[str]:
    """The most dangerous name server: every name, and every spelling of an address, is this machine."""
    return ["127.0.0.1"]


def by_the_system(host: str, port: int) -> list[str]:
    return [str(found[4][0]) for found in socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)]


def test_there_are_enough_of_them():
    assert len(set(HOSTILE)) == len(HOSTILE) >= 60


@pytest.mark.parametrize("resolve", [resolve_to_this_machine, by_the_system])
def test_no_hostile_url_brings_a_connection(trap, resolve):
    policy = Policy(frozenset({"*"}), ports=frozenset({trap.port}))
    outcomes = {
        url: post(url.format(port=trap.port), body=b"{}", headers={}, policy=policy, resolve=resolve, seconds=2)
        for url in HOSTILE
        if resolve is resolve_to_this_machine or "example" not in url  # no name server is asked for what may not exist
    }
    time.sleep(0.1)
    assert trap.connections == 0
    told = ("refused: ", "OSError: the name cannot be resolved")
    assert [url for url, outcome in outcomes.items() if not (outcome.error or "").startswith(told)] == []


def test_the_trap_would_have_counted(trap):
    policy = Policy(frozenset({f"https://127.0.0.1:{trap.port}"}))
    outcome = post(f"https://127.0.0.1:{trap.port}/", body=b"{}", headers={}, policy=policy, seconds=2)
    assert outcome.status_code is None
    assert trap.connections == 1


def test_what_is_no_public_literal_is_refused_before_any_name_server(trap):
    def never(host: str, port: int) -> list[str]:
        raise AssertionError(host)

    policy = Policy(frozenset({"*"}), ports=frozenset({trap.port}))
    names = ("evil.example", "localhost.localdomain", "xn--localhost-", "public.example")
    for url in HOSTILE:
        if not any(f"https://{name}:" in url for name in names):
            outcome = post(url.format(port=trap.port), body=b"{}", headers={}, policy=policy, resolve=never, seconds=2)
            assert (outcome.error or "").startswith("refused"), url


def test_a_rebinding_name_server_is_asked_once_and_its_first_answer_is_where_the_connection_goes(trap):
    answers = iter([[PUBLIC], ["127.0.0.1"], ["127.0.0.1"]])
    dialled = []

    def dial(address: tuple[str, int], timeout: float) -> socket.socket:
        dialled.append(address)
        raise ConnectionRefusedError

    post(
        f"https://rebind.example:{trap.port}/", body=b"{}", headers={}, dial=dial, seconds=2,
        policy=Policy(frozenset({"*"}), ports=frozenset({trap.port})), resolve=lambda host, port: next(answers),
    )
    assert dialled == [(PUBLIC, trap.port)]
    assert next(answers) == ["127.0.0.1"]
    assert trap.connections == 0


@pytest.mark.parametrize("inner", ["127.0.0.1", "::1", "10.1.2.3", "169.254.169.254", "::ffff:10.0.0.1", "fd00::1"])
@pytest.mark.parametrize("first", [True, False])
def test_one_inner_address_among_public_ones_is_enough_to_refuse(trap, inner, first):
    found = [inner, PUBLIC] if first else [PUBLIC, inner]
    outcome = post(
        f"https://mixed.example:{trap.port}/", body=b"{}", headers={}, seconds=2, resolve=lambda host, port: found,
        policy=Policy(frozenset({"*"}), ports=frozenset({trap.port})),
    )
    assert (outcome.error or "").startswith("refused")
    assert trap.connections == 0


@pytest.mark.parametrize("address", [
    "169.254.169.254", "fe80::1", "0.0.0.0", "224.0.0.1", "::ffff:169.254.169.254", "64:ff9b::169.254.169.254",
    "2002:a9fe:a9fe::1", "::169.254.169.254", "::", "ff02::1",
])  # fmt: skip
def test_a_listed_name_may_be_inside_but_not_link_local(address):
    policy = Policy.of("hooks.internal")
    found = policy.admit("https://hooks.internal/x")
    assert policy.choose(found, ["10.0.0.7"]) == "10.0.0.7"
    with pytest.raises(SpearError, match="not public"):
        policy.choose(found, [address])


def test_a_redirect_to_the_inside_is_not_followed(trap):
    class Redirect(http.server.BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            self.send_response(307)
            self.send_header("Location", f"https://127.0.0.1:{trap.port}/")
            self.end_headers()

        def log_message(self, *_) -> None: ...

    server = http.server.HTTPServer(("127.0.0.1", 0), Redirect)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    url = f"http://127.0.0.1:{server.server_address[1]}"
    outcome = post(f"{url}/", body=b"{}", headers={}, policy=Policy.of(f"{url},*"), seconds=2)
    server.shutdown()
    server.server_close()
    assert (outcome.status_code, outcome.accepted) == (307, False)
    assert trap.connections == 0


def test_proxies_of_the_environment_are_not_asked(trap, monkeypatch):
    for name in ("http_proxy", "https_proxy", "all_proxy", "HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY"):
        monkeypatch.setenv(name, f"http://127.0.0.1:{trap.port}")
    with socket.create_server(("127.0.0.1", 0)) as closed:
        url = f"http://127.0.0.1:{closed.getsockname()[1]}"
    outcome = post(f"{url}/", body=b"{}", headers={}, policy=Policy.of(url), seconds=2)
    assert "refused" in (outcome.error or "").lower()
    assert trap.connections == 0


def test_nothing_goes_anywhere_without_a_list():
    with pytest.raises(SpearError, match="not on the operator's list"):
        Policy.of("").admit("https://hooks.example.org/x")


@pytest.mark.parametrize("entry", ["https://a.example/p", "a.example/x", "a.example:80", "ftp://a.example", "a b", "@"])
def test_a_list_with_a_mistake_is_refused(entry):
    with pytest.raises(ValueError, match=r"."):
        Policy.of(entry)


@pytest.mark.parametrize(
    "url",
    ["https://hooks.example.org", "https://hooks.example.org/a/b?c=d%20e&f", "https://xn--bcher-kva.example:8443/",
     "https://[2606:4700::1111]/x", "https://1.1.1.1/", "https://Hooks.Example.org/"],
)  # fmt: skip
def test_ordinary_urls_pass(url):
    assert Policy.of("*").admit(url) == parse_url(url)


def test_the_addresses_of_the_public_internet():
    for one in (PUBLIC, "8.8.8.8", "2606:4700::1111", "::ffff:8.8.8.8", "64:ff9b::808:808", "2a00:1450::1"):
        assert is_public(ipaddress.ip_address(one)), one
