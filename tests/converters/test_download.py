"""Fetching published files from servers of every temper."""

import contextlib
import hashlib
import http.server
import re
import threading
import urllib.request

import pytest

from jdissect.base.errors import UserError
from jdissect.converters import download, published

ENCODER = "encoder_epoch_7.pth"
NAMES = (ENCODER, "decoder_epoch_7.pth", "labels.json")
DATE = "Wed, 02 Sep 2020 01:02:03 GMT"


class Server:
    """A folder over HTTP, which can be told to misbehave.

    Attributes:
      files: name -> content.
      folders: the paths at which they are.
      etags, dates, ranges, heeds_if_range: what the server can do.
      answers: name -> the next answers (status, headers, body) in place of the file.
      cuts: how many bytes of the next bodies are sent.
      pauses: what the next answers wait for, functions.
      requests: (name, headers) of each request.
      bodies: how many files were sent.
    """

    def __init__(self):
        self.files, self.answers = {}, {}
        self.folders = ["/models/a-net"]
        self.etags, self.dates, self.ranges, self.heeds_if_range = (
            True,
            False,
            True,
            True,
        )
        self.requests, self.cuts, self.pauses, self.bodies = [], [], [], 0
        server = self

        class Handler(http.server.BaseHTTPRequestHandler):
            def do_GET(self):
                server.answer(self)

            def log_message(self, *_):
                pass

        self._http = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.root = f"http://127.0.0.1:{self._http.server_port}"
        self.address = f"{self.root}/models/a-net"
        threading.Thread(
            target=self._http.serve_forever, args=(0.01,), daemon=True
        ).start()

    def stop(self):
        self._http.shutdown()
        self._http.server_close()

    def asked(self, key):
        """A header of each request, in order."""
        return [headers.get(key) for _, headers in self.requests]

    def answer(self, request):
        folder, name = request.path.rsplit("/", 1)
        self.requests.append((name, dict(request.headers)))
        if self.pauses:
            self.pauses.pop(0)()
        if self.answers.get(name):
            status, headers, body = self.answers[name].pop(0)
        elif folder in self.folders and name in self.files:
            status, headers, body = self._file(name, request.headers)
        else:
            status, headers, body = 404, {}, b"<html>Not found</html>"
        request.send_response(status)
        for key, value in {"Content-Length": str(len(body)), **headers}.items():
            if value is not None:
                request.send_header(key, value)
        request.end_headers()
        if status in (200, 206):
            self.bodies += 1
            body = body[: self.cuts.pop(0)] if self.cuts else body
        with contextlib.suppress(OSError):  # the client may have left
            request.wfile.write(body)

    def _file(self, name, asked):
        content, headers = self.files[name], {}
        if self.etags:
            headers["ETag"] = f'"{hashlib.sha256(content).hexdigest()}"'
        if self.dates:
            headers["Last-Modified"] = DATE
        if self.etags and asked.get("If-None-Match") == headers["ETag"]:
            return 304, headers, b""
        span = re.fullmatch(r"bytes=(\d+)-", asked.get("Range", ""))
        same = asked.get("If-Range") in headers.values() or not self.heeds_if_range
        if not (span and same and self.ranges):
            return 200, headers, content
        start, size = int(span[1]), len(content)
        if start >= size:
            return 416, {**headers, "Content-Range": f"bytes */{size}"}, b""
        headers["Content-Range"] = f"bytes {start}-{size - 1}/{size}"
        return 206, headers, content[start:]


@pytest.fixture
def server(monkeypatch):
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    monkeypatch.setattr(download, "WAIT", 0.0)
    started = Server()
    started.files = {
        ENCODER: bytes(range(256)) * 40,
        "decoder_epoch_7.pth": b"decoder" * 1000,
        "labels.json": b"{}",
    }
    yield started
    started.stop()


@pytest.fixture
def fetch(server, tmp_path):
    """Fetches and compares with what the server has; returns the folder."""

    def run(names=(ENCODER,)):
        folder = download.fetch(server.address, names, run.cache)
        for name in names:
            assert (folder / name).read_bytes() == server.files[name]
            assert not (folder / f"{name}.part").exists()
        return folder

    run.cache = tmp_path / "cache"
    return run


def test_files_are_fetched_and_described(server, fetch, capsys, tmp_path):
    folder = fetch(NAMES)
    assert folder.parent == tmp_path / "cache"
    assert folder.name.startswith("a-net-")
    captured = capsys.readouterr()
    expected = [
        f"{name}: {len(server.files[name]):,} bytes, sha256 "
        f"{hashlib.sha256(server.files[name]).hexdigest()}"
        for name in NAMES
    ]
    assert captured.out.splitlines() == expected
    assert captured.err == ""
    assert [name for name, _ in server.requests] == list(NAMES)


def test_every_address_has_a_folder_of_its_own(server, tmp_path):
    server.folders = ["/models/a-net", "/other/a-net", "/models/a.net%20b"]
    cache = tmp_path / "cache"
    folders = [
        download.fetch(f"{server.root}{folder}{slash}", ["labels.json"], cache)
        for folder in server.folders
        for slash in ("", "/")
    ]
    assert folders[::2] == folders[1::2]
    names = {folder.name for folder in folders}
    assert len(names) == 3
    assert all(re.fullmatch(r"[\w.-]+-[0-9a-f]{16}", name) for name in names)
    server.folders = ["/models/.."]
    folder = download.fetch(f"{server.root}/models/..", ["labels.json"], cache)
    assert folder.resolve().parent == cache.resolve()


@pytest.mark.parametrize("validator", ["etags", "dates"])
def test_a_cut_transfer_goes_on_where_it_ended(validator, server, fetch):
    server.etags, server.dates = validator == "etags", validator == "dates"
    server.cuts = [1000, 2500]
    fetch()
    assert server.asked("Range") == [None, "bytes=1000-", "bytes=3500-"]


def test_giving_up_says_how_to_go_on(server, fetch, monkeypatch):
    monkeypatch.setattr(download, "ATTEMPTS", 3)
    server.cuts = [100, 100, 100]
    with pytest.raises(UserError) as error:
        fetch()
    first, second = str(error.value).splitlines()
    assert first.startswith(f"{server.address}/{ENCODER} was cut off at 300 bytes: ")
    assert "Run the same command again" in second
    fetch()
    assert server.asked("Range")[-1] == "bytes=300-"


def test_attempts_wait_longer_and_longer(server, fetch, monkeypatch):
    waits = []
    monkeypatch.setattr(download, "WAIT", 1.0)
    monkeypatch.setattr(download.time, "sleep", waits.append)
    server.cuts = [0] * download.ATTEMPTS
    with pytest.raises(UserError, match="cut off at 0 bytes"):
        fetch()
    assert waits == [1, 2, 4, 8]


@pytest.fixture
def leave_part(server, fetch, monkeypatch):
    """Ends a transfer after so many bytes; returns the incomplete file."""

    def run(size):
        with monkeypatch.context() as patch:
            patch.setattr(download, "ATTEMPTS", 1)
            server.cuts = [size]
            with pytest.raises(UserError, match=f"cut off at {size:,} bytes"):
                fetch()
        server.requests.clear()
        (part,) = fetch.cache.glob(f"*/{ENCODER}.part")
        assert part.stat().st_size == size
        return part

    return run


def test_a_file_that_changed_meanwhile_begins_anew(server, fetch, leave_part):
    leave_part(4000)
    server.files[ENCODER] = b"new" * 3000
    fetch()
    assert server.asked("Range") == ["bytes=4000-"]


def test_a_changed_file_of_a_server_that_ignores_if_range(server, fetch, leave_part):
    leave_part(4000)
    server.files[ENCODER] = b"new" * 3000
    server.heeds_if_range = False
    fetch()
    assert server.asked("Range") == ["bytes=4000-", None]


def test_another_range_than_was_asked_for(server, fetch, leave_part):
    leave_part(4000)
    body = server.files[ENCODER][4001:]
    headers = {"Content-Range": "bytes 4001-10239/10240"}
    server.answers[ENCODER] = [(206, headers, body)]
    fetch()
    assert server.asked("Range") == ["bytes=4000-", None]


def test_a_range_may_come_in_pieces(server, fetch, leave_part):
    leave_part(4000)
    body = server.files[ENCODER][4000:5000]
    headers = {"Content-Range": "bytes 4000-4999/10240"}
    server.answers[ENCODER] = [(206, headers, body)]
    fetch()
    assert server.asked("Range") == ["bytes=4000-", "bytes=5000-"]


def test_a_whole_part_needs_no_more_bytes(server, fetch, leave_part):
    """The program ended between the last byte and the renaming."""
    part = leave_part(4000)
    part.write_bytes(server.files[ENCODER])
    fetch()
    assert server.asked("Range") == ["bytes=10240-"]


def test_a_part_that_is_too_long_is_dropped(server, fetch, leave_part):
    part = leave_part(4000)
    part.write_bytes(bytes(20_000))
    fetch()
    assert server.asked("Range") == ["bytes=20000-", None]


def test_without_ranges_it_begins_anew(server, fetch, leave_part):
    leave_part(4000)
    server.ranges = False
    fetch()
    assert server.asked("Range") == ["bytes=4000-"]


@pytest.mark.parametrize("etag", [None, 'W/"weak"'])
def test_without_a_validator_it_begins_anew(etag, server, fetch):
    content = server.files[ENCODER]
    server.answers[ENCODER] = [(200, {"ETag": etag}, content)] * 2
    server.cuts = [4000]
    fetch()
    assert server.asked("Range") == [None, None]


@pytest.mark.parametrize("notes", ["", "[]", "{}", '{"ETag": 3}', "\x00"])
def test_damaged_notes_do_no_harm(notes, fetch, leave_part):
    part = leave_part(4000)
    part.with_name(f"{ENCODER}.json").write_text(notes)
    fetch()


def test_a_complete_file_is_not_fetched_again(server, fetch, capsys):
    fetch()
    assert "unchanged" not in capsys.readouterr().out
    fetch()
    etag = f'"{hashlib.sha256(server.files[ENCODER]).hexdigest()}"'
    assert server.asked("If-None-Match") == [None, etag]
    assert server.bodies == 1
    assert capsys.readouterr().out.endswith(", unchanged\n")


def test_a_complete_file_of_a_server_without_conditions(server, fetch, capsys):
    server.etags = False
    for server.dates in (False, True):
        fetch()
        fetch()
        assert capsys.readouterr().out.endswith(", unchanged\n")
        server.files[ENCODER] += b"longer"


def test_a_changed_complete_file_is_fetched_again(server, fetch):
    fetch()
    server.files[ENCODER] = server.files[ENCODER][::-1]
    fetch()
    assert len(server.requests) == 3  # first, whether it changed, and for good


def test_a_damaged_complete_file_is_fetched_again(server, fetch):
    path = fetch() / ENCODER
    path.write_bytes(path.read_bytes()[::-1])
    fetch()
    path.unlink()
    fetch()
    assert server.bodies == 3


def test_a_complete_file_serves_while_the_server_does_not(server, fetch, capsys):
    fetch()
    server.answers[ENCODER] = [(503, {}, b""), (404, {}, b"")]
    for words in ("503 Service Unavailable", "404 Not Found"):
        capsys.readouterr()
        fetch()
        assert capsys.readouterr().out.endswith(
            f", from an earlier download ({words})\n"
        )
    server.stop()
    fetch()
    assert "cannot be reached: Connection refused)" in capsys.readouterr().out


def refusal(fetch):
    with pytest.raises(UserError) as error:
        fetch()
    assert len(str(error.value).splitlines()) <= 2
    assert not list(fetch.cache.glob(f"*/{ENCODER}"))
    return str(error.value)


def test_an_absent_file(server, fetch):
    del server.files[ENCODER]
    assert refusal(fetch) == (
        f"{server.address}/{ENCODER} was refused: 404 Not Found\n"
        "Select files of another epoch with --epoch=N."
    )
    assert len(server.requests) == 1


def test_a_refused_connection(server, fetch):
    server.stop()
    words = f"{server.address}/{ENCODER} cannot be reached: Connection refused"
    assert refusal(fetch) == words


def test_a_server_that_is_busy_is_asked_again(server, fetch):
    server.answers[ENCODER] = [(503, {}, b""), (429, {}, b"")]
    fetch()
    server.answers["labels.json"] = [(503, {}, b"")] * download.ATTEMPTS
    with pytest.raises(UserError, match="labels.json was cut off at 0 bytes: 503 Ser"):
        fetch(["labels.json"])


def test_a_server_that_falls_silent(server, fetch, monkeypatch):
    """Only the first answer is late, and only the first is not waited for."""
    timeouts, answered = [1], threading.Event()
    connect = urllib.request.OpenerDirector.open
    monkeypatch.setattr(
        urllib.request.OpenerDirector,
        "open",
        lambda opener, request, timeout: connect(
            opener, request, timeout=timeouts.pop() if timeouts else timeout
        ),
    )
    server.pauses = [lambda: answered.wait(30)]
    fetch()
    answered.set()
    assert len(server.requests) == 2


@pytest.mark.parametrize(
    ("status", "headers", "words"),
    [
        (200, {"Content-Length": "99999"}, "ended before 99,999 bytes"),
        (200, {"Content-Length": str(5 << 30)}, "5,368,709,120 bytes, too many"),
        (200, {"Content-Length": None}, "not a file of known length"),
        (204, {"Content-Length": None}, "not a file of known length"),
        (200, {"Content-Encoding": "gzip"}, "comes compressed"),
    ],
)
def test_odd_answers(status, headers, words, server, fetch):
    server.answers[ENCODER] = [(status, headers, b"body")] * download.ATTEMPTS
    assert words in refusal(fetch)


def test_an_endless_answer(server, fetch, monkeypatch):
    monkeypatch.setattr(download, "LARGEST", 4000)
    headers = {"Content-Length": None, "Transfer-Encoding": "chunked"}
    body = b"1000\r\n" + bytes(4096) + b"\r\n0\r\n\r\n"
    server.answers[ENCODER] = [(200, headers, body)]
    assert "too many bytes" in refusal(fetch)


def test_an_answer_in_chunks(server, fetch):
    headers = {"Content-Length": None, "Transfer-Encoding": "chunked"}
    content = server.files[ENCODER]
    body = b"%x\r\n%b\r\n" % (len(content), content)
    server.answers[ENCODER] = [
        (200, headers, body),
        (200, headers, body + b"0\r\n\r\n"),
    ]
    fetch()
    assert len(server.requests) == 2


def test_redirections(server, fetch):
    server.answers[ENCODER] = [(302, {"Location": "/models/a-net/labels.json"}, b"")]
    folder = download.fetch(server.address, [ENCODER], fetch.cache)
    assert (folder / ENCODER).read_bytes() == server.files["labels.json"]


@pytest.mark.parametrize("to", ["file:///etc/passwd", "ftp://127.0.0.1/x", "data:,x"])
def test_redirections_elsewhere(to, server, fetch):
    server.answers[ENCODER] = [(302, {"Location": to}, b"")]
    message = refusal(fetch)
    assert to in message
    assert re.search("is not http or https|is not allowed", message)


def test_https_is_not_left():
    request = urllib.request.Request("https://example.org/x")
    with pytest.raises(UserError, match="redirects to 'http://.*', which is not https"):
        download._Redirects().redirect_request(
            request, None, 302, "", {}, "http://example.org/x"
        )


@pytest.mark.parametrize(
    ("address", "words"),
    [
        ("ftp://example.org/net", "must begin with http"),
        ("file:///tmp", "must begin with http"),
        ("http://", "must begin with http"),
        ("http:///net", "is malformed"),
        ("http://example.org:port/net", "is malformed"),
        ("http://[::1/net", "is malformed"),
        ("http://example.org/a b", "plain characters"),
        ("http://example.org/a\nb", "plain characters"),
        ("http://ex\u00e4mple.org/", "plain characters"),
        ("http://me:secret@example.org:port/net", "a user, '?' or '#'"),
        ("http://me:secret@example.org/net", "a user, '?' or '#' is not supported"),
        ("http://example.org/net?token=secret", "a user, '?' or '#'"),
    ],
)
def test_addresses(address, words, tmp_path):
    with pytest.raises(UserError) as error:
        download.fetch(address, NAMES, tmp_path / "cache")
    assert words in str(error.value)
    assert "secret" not in str(error.value)
    assert len(str(error.value).splitlines()) == 1
    assert not (tmp_path / "cache").exists()


def test_a_cache_that_cannot_be_written(server, tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(UserError, match="cannot write .*file.*: Not a directory"):
        download.fetch(server.address, NAMES, tmp_path / "file" / "cache")


def test_two_programs_do_not_mix(server, fetch):
    folder = fetch(["labels.json"])
    with download._lock(folder), pytest.raises(UserError, match="another program"):
        fetch()
    fetch()


@pytest.fixture
def folder(tmp_path):
    """An empty file of each name."""

    def make(*names):
        for name in names:
            (tmp_path / name).write_text("")
        return str(tmp_path)

    return make


def test_the_last_epoch_of_a_folder(folder):
    encoders = [f"encoder_epoch_{n}.pth" for n in (4, 9, 10, 30)]
    decoders = [f"decoder_epoch_{n}.pth" for n in (4, 9, 10, 40)]
    path = folder("labels.json", "encoder_epoch_x.pth", *encoders, *decoders)
    found = published.locate(path, None, 40)
    assert [p.name for p in found[:3]] == [
        "encoder_epoch_10.pth",
        "decoder_epoch_10.pth",
        "labels.json",
    ]
    assert found.address == ""
    assert published.locate(path, 9, 40).encoder.name == "encoder_epoch_9.pth"
    with pytest.raises(UserError) as error:
        published.locate(path, 40, 40)
    first, second = str(error.value).splitlines()
    assert first.endswith("lacks encoder_epoch_40.pth")
    assert second.startswith("(it holds decoder_epoch_10.pth, decoder_epoch_4.pth, ")
    assert second.endswith("and 2 more)")


@pytest.mark.parametrize(
    ("names", "words"),
    [
        (
            [],
            "lacks encoder_epoch_N.pth, decoder_epoch_N.pth, labels.json\n(it holds n",
        ),
        (["encoder_epoch_1.pth"], "lacks encoder_epoch_N.pth, decoder_epoch_N.pth, la"),
        (
            ["encoder_epoch_1.pth", "decoder_epoch_1.pth"],
            "lacks labels.json\n(it holds decoder_epoch_1.pth, encoder_epoch_1.pth)",
        ),
    ],
)
def test_incomplete_folders(names, words, folder):
    with pytest.raises(UserError) as error:
        published.locate(folder(*names), None, 40)
    assert words in str(error.value)


def test_what_is_no_folder(tmp_path):
    (tmp_path / "file").write_text("")
    for name, words in (("file", "is a file"), ("absent", "is missing")):
        with pytest.raises(UserError, match=f"{name} {words}; give a folder with"):
            published.locate(str(tmp_path / name), None, 40)


def test_an_address_takes_its_default_epoch(server, tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "home"))
    found = published.locate(server.address, None, 7)
    assert found.address == server.address
    assert found.encoder.parents[2] == tmp_path / "home" / "jdissect"
    assert found.encoder.parents[1].name == "downloads"
    assert found.labels.read_bytes() == server.files["labels.json"]
    with pytest.raises(UserError, match="encoder_epoch_8.pth was refused: 404"):
        published.locate(server.address, 8, 7)
