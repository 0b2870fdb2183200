"""Downloads the files of a published folder from an http(s) address.

A file is written to NAME.part, with its validators from the server in NAME.json, and
renamed once its length is right. An interrupted transfer resumes (Range with If-Range)
if the server supports that and still has the same file; otherwise it starts over. A
complete file is requested again only conditionally (by ETag, date or length), so an
unchanged one costs one request, after its bytes are checked against the stored hash.
File names never come from the server.
"""

import contextlib
import fcntl
import hashlib
import http.client
import json
import re
import time
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Iterator, Mapping, Sequence
from email.message import Message
from pathlib import Path

from jdissect.base.atomic_files import write_whole
from jdissect.base.errors import UserError
from jdissect.base.progress import counting

ATTEMPTS = 5  # transfers per file before giving up
WAIT = 1.0  # seconds before the second attempt; doubles with each further one
TIMEOUT = 30.0  # seconds without a byte
LARGEST = 4 << 30  # bytes per file; the published ones have 0.2 GB
_CHUNK = 1 << 20
_VALIDATORS = ("ETag", "Last-Modified")


def fetch(address: str, names: Sequence[str], cache: Path) -> Path:
    """Downloads files of a folder, unless the cache has the current ones.

    Args:
      address: address of the folder, http or https.
      names: names of its files.
      cache: cache folder for any addresses.

    Returns:
      The folder with the files.

    Raises:
      UserError: the address is invalid, the server does not provide a file, the
        connection fails repeatedly, or a file cannot be written.
    """
    if not re.fullmatch(r"https?://[!-~]+", address, re.IGNORECASE):
        raise UserError(
            f"address {address!r} must begin with http(s):// and use plain characters"
        )
    if "@" in address.split("/")[2] or "?" in address or "#" in address:
        raise UserError("an address with a user, '?' or '#' is not supported")
    try:
        parts = urllib.parse.urlsplit(address)
        good = parts.hostname and parts.port != 0
    except ValueError:  # an invalid port or bracket
        good = False
    if not good:
        raise UserError(f"address {address} is malformed")
    address = address.rstrip("/")
    last = re.sub(r"[^\w.-]", "_", address.rpartition("/")[2])[-80:].lstrip(".")
    digest = hashlib.sha256(address.encode()).hexdigest()[:16]
    folder = cache / f"{last or 'files'}-{digest}"
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with _lock(folder):
            for name in names:
                _File(f"{address}/{name}", folder / name).fetch()
    except OSError as error:
        where = error.filename or folder
        raise UserError(f"cannot write {where}: {error.strerror}") from error
    return folder


@contextlib.contextmanager
def _lock(folder: Path) -> Iterator[None]:
    """Locks a folder: two programs appending to one file would corrupt it."""
    with (folder / ".lock").open("wb") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise UserError(
                f"another program is downloading to {folder}; wait for it"
            ) from error
        yield


class _CutOffError(Exception):
    """The connection failed, but another attempt may succeed."""


class _File:
    """A file to download, and what is known about it.

    Attributes:
      url: address of the file.
      path: where to store it.
      notes: the server's validators, and once it is complete its sha256.
    """

    def __init__(self, url: str, path: Path):
        self.url, self.path = url, path
        self._part = path.with_name(f"{path.name}.part")
        self._notes_path = path.with_name(f"{path.name}.json")
        self._opener = urllib.request.build_opener(_Redirects)
        self.notes = self._read_notes()

    def fetch(self) -> None:
        """Makes `path` the server's file and prints one line."""
        complete = (
            "sha256" in self.notes
            and self.path.is_file()
            and _sha256(self.path) == self.notes["sha256"]
        )
        remark = self._ask() if complete else None
        if remark is None:
            self._download()
            remark = ""
        size = self.path.stat().st_size
        print(
            f"{self.path.name}: {size:,} bytes, sha256 {self.notes['sha256']}{remark}"
        )

    def _ask(self) -> str | None:
        """Checks an earlier download; returns a remark if it is used, or None.

        It is also used if the server cannot be asked.
        """
        conditions = {"ETag": "If-None-Match", "Last-Modified": "If-Modified-Since"}
        headers = {conditions[k]: self.notes[k] for k in conditions if k in self.notes}
        try:
            with self._open(headers) as response:
                if any(k in self.notes for k in conditions):
                    same = self._is_same(response.headers)
                else:
                    size = str(self.path.stat().st_size)
                    same = response.headers.get("Content-Length") == size
                return ", unchanged" if same else None
        except urllib.error.HTTPError as error:
            error.close()
            if error.code == 304:
                return ", unchanged"
            reason = f"{error.code} {error.reason}"
        except (_CutOffError, UserError) as error:
            reason = str(error)
        return f", from an earlier download ({_line(reason)})"

    def _download(self) -> None:
        for attempt in range(ATTEMPTS):
            if attempt:
                time.sleep(WAIT * 2 ** (attempt - 1))
            try:
                self._transfer()
                break
            except _CutOffError as error:
                last = error
        else:
            raise UserError(
                f"{self.url} was cut off at {self._have():,} bytes: {last}\n"
                "Run the same command again to resume."
            )
        self._write_notes({**self.notes, "sha256": _sha256(self._part)})
        self._part.replace(self.path)

    def _transfer(self) -> None:
        """Makes one attempt; on success the whole file is in `_part`."""
        start, headers = self._have(), {}
        validator = next((v for v in _VALIDATORS if v in self.notes), None)
        if start and validator:
            headers = {"Range": f"bytes={start}-", "If-Range": self.notes[validator]}
        try:
            response = self._open(headers)
        except urllib.error.HTTPError as error:
            error.close()
            if error.code != 416 or not headers:
                raise self._refusal(error) from error
            # The server has no bytes from there on: the file is complete, or differs.
            total = error.headers.get("Content-Range", "").rpartition("/")[2]
            if total == str(start) and self._is_same(error.headers):
                return
            self._part.unlink()
            raise _CutOffError("the server's file has changed") from error
        with response:
            self._receive(response, start)

    def _open(self, headers: dict[str, str]):
        request = urllib.request.Request(self.url, headers=headers)
        try:
            return self._opener.open(request, timeout=TIMEOUT)
        except urllib.error.HTTPError as error:
            if error.code in (408, 429) or error.code >= 500:
                error.close()
                raise _CutOffError(_line(f"{error.code} {error.reason}")) from error
            raise
        except urllib.error.URLError as error:
            reason = error.reason
            if isinstance(reason, TimeoutError | ConnectionResetError):
                raise _CutOffError(_line(reason)) from error
            raise UserError(f"{self.url} cannot be reached: {_line(reason)}") from error
        except (OSError, http.client.HTTPException) as error:
            raise _CutOffError(_line(error)) from error

    def _refusal(self, error: urllib.error.HTTPError) -> UserError:
        hint = ""
        if error.code == 404 and "_epoch_" in self.path.name:
            hint = "\nSelect files of another epoch with --epoch=N."
        reason = _line(f"{error.code} {error.reason}")
        return UserError(f"{self.url} was refused: {reason}{hint}")

    def _receive(self, response, start: int) -> None:
        """Writes what the server sends: from `start` on, or from the beginning."""
        headers = response.headers
        if headers.get("Content-Encoding", "identity") != "identity":
            raise UserError(f"{self.url} comes compressed, which was not requested")
        total = headers.get("Content-Length", "")
        if response.status == 206:
            span, _, total = headers.get("Content-Range", "").rpartition("/")
            if not span.startswith(f"bytes {start}-") or not self._is_same(headers):
                self._part.unlink(missing_ok=True)
                raise _CutOffError("the server's file has changed")
        elif response.status != 200 or not (total.isdecimal() or response.chunked):
            raise UserError(
                f"{self.url}: the response is not a file of known length "
                f"(status {response.status})"
            )
        else:
            start = 0
            self._part.unlink(missing_ok=True)
            self._write_notes(_validators(headers))
        total = int(total) if total.isdecimal() else None
        if total is not None and total > LARGEST:
            raise UserError(f"{self.url} has {total:,} bytes, too many to be weights")
        self._copy(response, start, total)
        if total is not None and self._have() != total:
            raise _CutOffError(f"the connection ended before {total:,} bytes")

    def _copy(self, response, start: int, total: int | None) -> None:
        bar = counting(self.path.name, total, "B", start)
        with self._part.open("ab") as file, bar as task:
            while True:
                try:
                    chunk = response.read1(_CHUNK)
                except (OSError, http.client.HTTPException) as error:
                    raise _CutOffError(_line(error)) from error
                if not chunk:
                    return
                file.write(chunk)
                task.advance(len(chunk))
                if file.tell() > LARGEST:
                    raise UserError(f"{self.url} has too many bytes to be weights")

    def _is_same(self, headers: Mapping[str, str] | Message) -> bool:
        """Returns whether the server's validators are consistent with earlier ones."""
        found = _validators(headers)
        return all(self.notes.get(name) == value for name, value in found.items())

    def _have(self) -> int:
        return self._part.stat().st_size if self._part.exists() else 0

    def _read_notes(self) -> dict[str, str]:
        try:
            notes = json.loads(self._notes_path.read_bytes())
            return {k: str(notes[k]) for k in (*_VALIDATORS, "sha256") if k in notes}
        except (OSError, ValueError, TypeError):
            return {}

    def _write_notes(self, notes: dict[str, str]) -> None:
        self.notes = notes
        write_whole(self._notes_path, json.dumps(notes).encode())


def _validators(headers: Mapping[str, str] | Message) -> dict[str, str]:
    """Returns validators that identify a file version; a weak ETag does not."""
    found = {v: headers.get(v) or "" for v in _VALIDATORS}
    return {k: v for k, v in found.items() if re.fullmatch(r"(?!W/)[ -~]+", v)}


class _Redirects(urllib.request.HTTPRedirectHandler):
    """Follows redirects to http(s), but not from https to http."""

    def redirect_request(self, req, fp, code, msg, headers, newurl):
        allowed = ("https",) if req.type == "https" else ("http", "https")
        if urllib.parse.urlsplit(newurl).scheme.lower() not in allowed:
            raise UserError(
                f"{req.full_url} redirects to {newurl[:200]!r}, "
                f"which is not {' or '.join(allowed)}"
            )
        return super().redirect_request(req, fp, code, msg, headers, newurl)


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _line(error: object) -> str:
    """Returns an error's text on one line."""
    text = getattr(error, "strerror", None) or str(error) or type(error).__name__
    return " ".join(str(text).split())[:200]
