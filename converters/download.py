"""Files of a published folder at an http(s) address.

A file is written to NAME.part, with what identifies it on the server beside it in
NAME.json, and renamed when its length is right. A transfer that was cut off goes on
where it ended (Range with If-Range), if the server can do that and still has the same
file; else it begins anew. A complete file is asked for again only conditionally (by
ETag, date or length), so an unchanged one costs a request, after its bytes were
compared with the hash they had when they arrived. Names of files never come from the
server.
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
from pathlib import Path

from jdissect.base.atomic_files import write_whole
from jdissect.base.errors import UserError
from jdissect.base.progress import counting

ATTEMPTS = 5  # transfers of a file before giving up
WAIT = 1.0  # seconds before the second attempt, doubled for each further one
TIMEOUT = 30.0  # seconds without a byte
LARGEST = 4 << 30  # bytes of a file; the published ones have 0.2 GB
_CHUNK = 1 << 20
_VALIDATORS = ("ETag", "Last-Modified")


def fetch(address: str, names: Sequence[str], cache: Path) -> Path:
    """Downloads files of a folder, those that are not in the cache as they are there.

    Args:
      address: of the folder, http or https.
      names: of its files.
      cache: a folder for this and other addresses.

    Returns:
      The folder with the files.

    Raises:
      UserError: the address is not of that form, the server does not give a file, the
        connection fails repeatedly, or a file cannot be written.
    """
    if not re.fullmatch(r"https?://[!-~]+", address, re.IGNORECASE):
        raise UserError(
            f"address {address!r} is not of http:// or https:// and plain characters"
        )
    if "@" in address.split("/")[2] or "?" in address or "#" in address:
        raise UserError("an address with a user, '?' or '#' is not supported")
    try:
        parts = urllib.parse.urlsplit(address)
        good = parts.hostname and parts.port != 0
    except ValueError:  # a port that is no number, an odd bracket
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
    """Two programs that append to one file would mix it up."""
    with (folder / ".lock").open("wb") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise UserError(
                f"another program is downloading to {folder}; wait for it"
            ) from error
        yield


class _CutOffError(Exception):
    """The connection failed in a way that another attempt may mend."""


class _File:
    """A file to fetch, and what is known of it.

    Attributes:
      url: its address.
      path: where it is to be.
      notes: the validators that the server gave, and once it is complete its sha256.
    """

    def __init__(self, url: str, path: Path):
        self.url, self.path = url, path
        self._part = path.with_name(f"{path.name}.part")
        self._notes_path = path.with_name(f"{path.name}.json")
        self._opener = urllib.request.build_opener(_Redirects)
        self.notes = self._read_notes()

    def fetch(self) -> None:
        """Makes `path` the server's file and says so in a line."""
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
        """Whether the file from before is still the server's: a remark if it is used.

        It is, too, where the server cannot say.
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
                "The same command again goes on from there."
            )
        self._write_notes({**self.notes, "sha256": _sha256(self._part)})
        self._part.replace(self.path)

    def _transfer(self) -> None:
        """One attempt: leaves the whole file in `_part`."""
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
            # The server has no byte from there on: all are here, or it has others.
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
            hint = "\nFiles of another epoch are asked for with --epoch=N."
        reason = _line(f"{error.code} {error.reason}")
        return UserError(f"{self.url} was refused: {reason}{hint}")

    def _receive(self, response, start: int) -> None:
        """Writes what the server sends: all from `start` on, or from the beginning."""
        headers = response.headers
        if headers.get("Content-Encoding", "identity") != "identity":
            raise UserError(f"{self.url} comes compressed, which was not asked for")
        total = headers.get("Content-Length", "")
        if response.status == 206:
            span, _, total = headers.get("Content-Range", "").rpartition("/")
            if not span.startswith(f"bytes {start}-") or not self._is_same(headers):
                self._part.unlink(missing_ok=True)
                raise _CutOffError("the server's file has changed")
        elif response.status != 200 or not (total.isdecimal() or response.chunked):
            raise UserError(
                f"{self.url}: the answer is no file of a known length "
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

    def _is_same(self, headers: Mapping[str, str]) -> bool:
        """Whether nothing that the server says now contradicts what it said before."""
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


def _validators(headers: Mapping[str, str]) -> dict[str, str]:
    """What tells a file from its other versions; a weak ETag does not."""
    found = {v: headers.get(v) or "" for v in _VALIDATORS}
    return {k: v for k, v in found.items() if re.fullmatch(r"(?!W/)[ -~]+", v)}


class _Redirects(urllib.request.HTTPRedirectHandler):
    """Follows redirections to http(s), but from https not to http."""

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
    """An error's text, as a line."""
    text = getattr(error, "strerror", None) or str(error) or type(error).__name__
    return " ".join(str(text).split())[:200]
