"""Weights: the cache, verified downloads from a server on loopback, and what is refused."""

from __future__ import annotations

import hashlib
import http.server
import threading
import urllib.request

import pytest

from regimes.descriptors.options import DescriptorOptions, find_network
from regimes.descriptors.registry import ENTRIES
from regimes.descriptors.weights import WeightsFile, cache_folder, obtain, read_weights
from regimes.errors import BadDescriptor
from regimes.storage.artifacts import to_json

CONTENT = bytes(range(256)) * 9000
DIGEST = hashlib.sha256(CONTENT).hexdigest()


class Handler(http.server.BaseHTTPRequestHandler):
    """/whole gives the content, /short a part of it, /silent nothing; all else is missing."""

    def do_GET(self):
        self.server.asked.append(self.path)
        if self.path == "/silent":
            self.server.released.wait(30)
            return
        if self.path not in ("/whole", "/short"):
            self.send_error(404)
            return
        self.send_response(200)
        self.send_header("Content-Length", str(len(CONTENT)))
        self.end_headers()
        self.wfile.write(CONTENT if self.path == "/whole" else CONTENT[:1000])

    def log_message(self, *args):
        pass


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch):
    """An empty cache."""
    monkeypatch.setenv("REGIMES_CACHE", str(tmp_path / "cache"))
    for name in ("http_proxy", "HTTP_PROXY", "all_proxy", "ALL_PROXY"):
        monkeypatch.delenv(name, raising=False)
    return tmp_path / "cache" / "weights"


@pytest.fixture
def server():
    """A web server on loopback."""
    made = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    made.asked, made.released = [], threading.Event()
    thread = threading.Thread(target=made.serve_forever)
    thread.start()
    made.url = f"http://127.0.0.1:{made.server_port}"
    yield made
    made.released.set()
    made.shutdown()
    thread.join()
    made.server_close()


def test_a_download_is_verified_kept_and_not_repeated(server, cache):
    file = WeightsFile(name="net.pt", url=f"{server.url}/whole", sha256=DIGEST)
    first, second = obtain(file), obtain(file)
    assert first == second
    assert first.sha256 == DIGEST
    assert first.path == cache / "net.pt"
    assert first.path.read_bytes() == CONTENT
    assert server.asked == ["/whole"]


@pytest.mark.parametrize(("name", "sha256"), [("net.pt", "0" * 64), ("net-00000000.pth", None)])
def test_a_download_with_the_wrong_hash_is_refused_and_not_kept(server, cache, name, sha256):
    file = WeightsFile(name=name, url=f"{server.url}/whole", sha256=sha256)
    with pytest.raises(BadDescriptor, match=f"the download has {DIGEST}; nothing was kept"):
        obtain(file)
    assert list(cache.iterdir()) == []


@pytest.mark.parametrize("name", ["net.pt", f"net-{DIGEST[:8]}.pth"])
def test_a_download_whose_hash_is_unknown_or_begins_right_is_kept(server, name):
    found = obtain(WeightsFile(name=name, url=f"{server.url}/whole"), unverified=True)
    assert found.sha256 == DIGEST


def test_weights_whose_hash_is_unknown_are_not_downloaded_unasked(server, cache):
    file = WeightsFile(name="net.pt", url=f"{server.url}/whole")
    with pytest.raises(BadDescriptor, match="no hash is known") as caught:
        obtain(file)
    assert "pass --download-unverified (the hash it has is recorded" in str(caught.value)
    assert "\n" not in str(caught.value)
    assert server.asked == []
    assert obtain(file, unverified=True).path == cache / "net.pt"
    assert obtain(file).sha256 == DIGEST


def test_a_program_whose_hash_is_not_known_is_not_downloaded_even_if_asked(server):
    file = WeightsFile(name="net.pt", url=f"{server.url}/whole", is_program=True)
    with pytest.raises(BadDescriptor, match="a program of which no hash is known"):
        obtain(file, unverified=True)
    assert server.asked == []


@pytest.mark.parametrize("name", ["dinov2", "clip"])
def test_descriptors_without_a_known_hash_ask_for_consent(name, monkeypatch):
    asked = []
    monkeypatch.setattr("regimes.descriptors.weights._download", lambda *a: asked.append(a))
    with pytest.raises(BadDescriptor, match="pass --download-unverified"):
        find_network(DescriptorOptions(descriptor=name))
    assert asked == []
    with pytest.raises(
        BadDescriptor, match="cannot be read"
    ):  # nothing was downloaded in its place
        find_network(DescriptorOptions(descriptor=name, download_unverified=True))
    assert len(asked) == 1


def test_consent_leaves_the_names_of_results_without_it_as_they_were():
    assert "unverified" not in to_json(DescriptorOptions())
    assert "unverified" in to_json(DescriptorOptions(download_unverified=True))


@pytest.mark.parametrize(
    ("path", "words"),
    [
        ("/short", f"1000 of {len(CONTENT)} bytes|IncompleteRead"),
        ("/missing", "Not Found"),
        ("/silent", "timed out"),
    ],
)
def test_a_download_that_fails_says_what_to_put_where_and_keeps_nothing(server, cache, path, words):
    file = WeightsFile(name="net.pt", url=server.url + path, sha256=DIGEST)
    with pytest.raises(BadDescriptor, match=words) as caught:
        obtain(file, timeout_s=1)
    message = str(caught.value)
    assert f"download {server.url}{path} and put it at {cache / 'net.pt'}" in message
    assert "--weights FILE" in message
    assert "\n" not in message
    assert list(cache.iterdir()) == []


def test_without_a_network_the_message_is_the_same(cache):
    file = WeightsFile(name="net.pt", url="http://127.0.0.1:9/net.pt", sha256=DIGEST)
    with pytest.raises(BadDescriptor, match="refused") as caught:
        obtain(file, timeout_s=1)
    assert f"put it at {cache / 'net.pt'}" in str(caught.value)


def test_absent_weights_are_not_downloaded_if_that_is_forbidden(server):
    file = WeightsFile(name="net.pt", url=f"{server.url}/whole")
    with pytest.raises(BadDescriptor, match="not in the cache"):
        obtain(file, download=False)
    assert server.asked == []


def test_addresses_other_than_of_the_web_are_refused(tmp_path):
    (tmp_path / "net.pt").write_bytes(CONTENT)
    with pytest.raises(BadDescriptor, match="not a web address"):
        obtain(WeightsFile(name="net.pt", url=f"file://{tmp_path}/net.pt", sha256=DIGEST))


def test_a_file_put_into_the_cache_is_used_if_its_hash_is_right(cache):
    cache.mkdir(parents=True)
    (cache / "net.pt").write_bytes(CONTENT)
    file = WeightsFile(name="net.pt", url="http://127.0.0.1:9/net.pt", sha256=DIGEST)
    assert obtain(file).path == cache / "net.pt"
    (cache / "net.pt").write_bytes(CONTENT + b"x")
    with pytest.raises(BadDescriptor, match=f"expected SHA-256 {DIGEST}, found"):
        obtain(file)


def test_the_cache_is_in_the_home_folder_unless_told(monkeypatch):
    monkeypatch.delenv("REGIMES_CACHE")
    assert cache_folder().parts[-2:] == (".cache", "regimes")


def test_a_missing_file_of_the_users_is_named(tmp_path):
    with pytest.raises(BadDescriptor, match=r"absent\.pt: cannot be read"):
        read_weights(tmp_path / "absent.pt")


def test_another_program_under_the_name_of_a_published_one_is_refused(tmp_path):
    path = tmp_path / "other.pt"
    path.write_bytes(CONTENT)
    options = DescriptorOptions(descriptor="sscd-disc-mixup", weights=str(path))
    with pytest.raises(BadDescriptor, match="a TorchScript file is a program") as caught:
        find_network(options)
    assert f"torchscript:{path}" in str(caught.value)


def test_a_program_whose_hash_is_not_known_is_refused_as_weights(tmp_path):
    path = tmp_path / "any.pt"
    path.write_bytes(CONTENT)
    options = DescriptorOptions(descriptor="sscd-disc-large", weights=str(path))
    with pytest.raises(BadDescriptor, match="whose SHA-256 is not known") as caught:
        find_network(options)
    assert f"--descriptor torchscript:{path}" in str(caught.value)
    with pytest.raises(BadDescriptor, match="or pass --descriptor torchscript:FILE"):
        find_network(DescriptorOptions(descriptor="sscd-disc-large", download=False))


def test_a_program_whose_hash_is_not_known_is_not_downloaded_but_may_be_put_into_the_cache(
    server, cache
):
    file = WeightsFile(name="net.pt", url=f"{server.url}/whole", is_program=True)
    with pytest.raises(BadDescriptor, match="a program of which no hash is known; download http"):
        obtain(file)
    assert server.asked == []
    cache.mkdir(parents=True)
    (cache / "net.pt").write_bytes(CONTENT)
    assert obtain(file).sha256 == DIGEST


def test_a_download_that_leads_away_from_encryption_is_refused(server, cache, monkeypatch):
    """The server is a plain one: what an https address would have led to."""
    found = urllib.request.urlopen(f"{server.url}/short")
    monkeypatch.setattr("urllib.request.urlopen", lambda url, timeout: found)
    with pytest.raises(BadDescriptor, match="which is not encrypted"):
        obtain(WeightsFile(name="net.pt", url="https://example.org/net.pt", sha256=DIGEST))
    assert list(cache.iterdir()) == []


def test_known_hashes_are_whole_or_eight_digits():
    prefixes = {name: entry.weights.prefix for name, entry in ENTRIES.items()}
    assert len(prefixes["sscd-disc-mixup"]) == 64
    assert prefixes["sscd-disc-large"] is None
    assert prefixes["squeezenet"] == "b8a52dc0"
    assert prefixes["inception-fid"] == "6726825d"
    assert {len(p) for p in prefixes.values() if p} == {8, 64}


def test_torchvisions_files_are_those_that_torchvision_names():
    import torchvision

    for entry in ENTRIES.values():
        if entry.family == "torchvision":
            published = torchvision.models.get_model_weights(entry.model).IMAGENET1K_V1
            assert entry.weights.url == published.url
            usual = published.transforms()
            assert list(entry.preprocessing.mean) == usual.mean
            assert list(entry.preprocessing.std) == usual.std
            assert [entry.preprocessing.size] == usual.crop_size
            assert entry.preprocessing.filter == usual.interpolation.value
