"""A store of objects in memory, which answers to gs:// without a network.

It has the semantics that matter: an object is written whole when its file is closed,
folders are there as far as objects are in them, nothing is renamed, and there are
neither permissions nor inodes. It is reached in the two ways in which the program
reaches Google's:

- through `etils.epath`, whose fsspec backend finds `FakeFileSystem` in the place of
  gcsfs;
- through TensorStore, which writes Orbax's arrays by the JSON API over HTTP: `serve`
  speaks as much of it as TensorStore does.
"""

import contextlib
import datetime
import http.server
import importlib
import io
import itertools
import json
import re
import threading
import urllib.parse

from etils.epath import backend, gpath
from fsspec.spec import AbstractFileSystem

WHEN = datetime.datetime(2020, 2, 2, tzinfo=datetime.UTC)


class Objects:
    """{'bucket/name': (content, generation)}, and what is asked of it."""

    def __init__(self):
        self._there, self._lock = {}, threading.RLock()
        self._generations = itertools.count(1)
        self.refuse = None  # a function of method and name, which raises for some

    def names(self, prefix=""):
        with self._lock:
            return sorted(name for name in self._there if name.startswith(prefix))

    def get(self, name):
        if self.refuse:
            self.refuse("get", name)
        return self._there.get(name, (None, 0))

    def put(self, name, content, generation=None):
        """Whether it was written: not if another generation than that is there."""
        if self.refuse:
            self.refuse("put", name)
        with self._lock:
            if generation not in (None, self.get(name)[1]):
                return False
            self._there[name] = (bytes(content), next(self._generations))
        return True

    def delete(self, name):
        with self._lock:
            return self._there.pop(name, None) is not None

    def upload(self, folder, place):
        """Copies a local folder; `place` is BUCKET/NAME."""
        for path in sorted(folder.rglob("*")):
            if path.is_file():
                name = path.relative_to(folder).as_posix()
                self.put(f"{place}/{name}", path.read_bytes())


class FakeFileSystem(AbstractFileSystem):
    """What fsspec asks of a file system, of the bucket that a test uses."""

    protocol = ("gs", "gcs")
    cachable = False
    objects = None

    def info(self, path, **kwargs):
        name = self._strip_protocol(path)
        content, generation = self.objects.get(name)
        if content is not None:
            return _file(name, content, generation)
        if "/" not in name or self.objects.names(f"{name}/"):
            return {"name": name, "size": 0, "type": "directory"}
        raise FileNotFoundError(name)

    def ls(self, path, detail=True, **kwargs):
        name = self._strip_protocol(path)
        found, prefix = {}, f"{name}/"
        for there in self.objects.names(prefix):
            first, slash, _ = there.removeprefix(prefix).partition("/")
            entry = {"name": prefix + first, "size": 0, "type": "directory"}
            if not slash:
                entry = _file(there, *self.objects.get(there))
            found[prefix + first] = entry
        if not found:
            found = {name: self.info(path)}
            if found[name]["type"] == "directory":  # a bucket
                found = {}
        return list(found.values()) if detail else list(found)

    def open(self, path, mode="rb", **kwargs):
        name = self._strip_protocol(path)
        if mode in ("r", "w"):
            return io.TextIOWrapper(self.open(path, f"{mode}b"), encoding="utf-8")
        if mode == "wb":
            return _Upload(self.objects, name)
        content, _ = self.objects.get(name)
        if mode != "rb" or content is None:
            raise FileNotFoundError(name)
        return io.BytesIO(content)

    def rm_file(self, path):
        if not self.objects.delete(self._strip_protocol(path)):
            raise FileNotFoundError(path)

    def rm(self, path, recursive=False, maxdepth=None):
        name = self._strip_protocol(path)
        inside = self.objects.names(f"{name}/") if recursive else []
        if not inside:
            self.rm_file(path)
        for there in inside:
            self.objects.delete(there)

    def mkdir(self, path, create_parents=True, **kwargs):
        """There is nothing to make."""

    def makedirs(self, path, exist_ok=False):
        """There is nothing to make."""

    def mv(self, path1, path2, **kwargs):
        raise NotImplementedError("an object store renames nothing")

    rename = cp_file = mv


def _file(name, content, generation):
    return {
        "name": name,
        "size": len(content),
        "type": "file",
        "mtime": WHEN + datetime.timedelta(seconds=generation),
    }


class _Upload(io.BytesIO):
    def __init__(self, objects, name):
        super().__init__()
        self._objects, self._name = objects, name

    def close(self):
        if self.closed:
            return
        content = self.getvalue()
        super().close()  # first: what fails is not tried again when this is collected
        self._objects.put(self._name, content)


@contextlib.contextmanager
def serve(objects):
    """The address of a server of the JSON API's part that TensorStore uses."""

    class Handler(http.server.BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def answer(self):
            address = urllib.parse.urlsplit(self.path)
            asked = dict(urllib.parse.parse_qsl(address.query))
            length = int(self.headers.get("content-length", 0))
            code, headers, content = respond(
                objects, self.command, address.path, asked, self.rfile.read(length)
            )
            span = re.fullmatch(r"bytes=(\d+)-(\d*)", self.headers.get("range", ""))
            if code == 200 and span:
                size = len(content)
                first, last = int(span[1]), min(int(span[2] or size), size - 1)
                code, content = 206, content[first : last + 1]
                headers["content-range"] = f"bytes {first}-{last}/{size}"
            self.send_response(code)
            for name, value in headers.items():
                self.send_header(name, value)
            self.send_header("content-length", str(len(content)))
            self.end_headers()
            self.wfile.write(content)

        do_GET = do_POST = do_DELETE = answer

        def log_message(self, *args):
            """Silent."""

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        try:
            yield f"http://127.0.0.1:{server.server_port}"
        finally:
            server.shutdown()


def respond(objects, method, path, asked, body):
    """(code, headers, content) of a request."""
    bucket, _, quoted = re.fullmatch(
        r"(?:/upload)?/storage/v1/b/([^/]+)/o(/(.*))?", path
    ).groups()
    if method == "GET" and not quoted:
        names = [
            name.removeprefix(f"{bucket}/")
            for name in objects.names(f"{bucket}/{asked.get('prefix', '')}")
        ]
        low, high = asked.get("startOffset", ""), asked.get("endOffset")
        items = [
            _metadata(objects, bucket, name)
            for name in names
            if name >= low and (high is None or name < high)
        ]
        return 200, {}, json.dumps({"items": items}).encode()
    name = asked["name"] if method == "POST" else urllib.parse.unquote(quoted)
    content, generation = objects.get(f"{bucket}/{name}")
    if method == "POST":
        wanted = asked.get("ifGenerationMatch")
        wanted = None if wanted is None else int(wanted)
        if not objects.put(f"{bucket}/{name}", body, wanted):
            return 412, {}, b""
        return 200, {}, json.dumps(_metadata(objects, bucket, name)).encode()
    if content is None:
        return 404, {}, b""
    if method == "DELETE":
        objects.delete(f"{bucket}/{name}")
        return 204, {}, b""
    if asked.get("ifGenerationNotMatch") == str(generation):
        return 304, {}, b""
    return 200, {"x-goog-generation": str(generation)}, content


def _metadata(objects, bucket, name):
    content, generation = objects.get(f"{bucket}/{name}")
    return {
        "bucket": bucket,
        "name": name,
        "size": str(len(content)),
        "generation": str(generation),
    }


@contextlib.contextmanager
def installed(patch):
    """The store in the place of Google's, empty.

    Args:
      patch: pytest's MonkeyPatch.
    """
    objects = Objects()
    patch.setattr(FakeFileSystem, "objects", objects)
    # `fsspec.registry` is a mapping in the module of this name.
    registry = importlib.import_module("fsspec.registry")
    patch.setitem(registry._registry, "gcs", FakeFileSystem)
    patch.setattr(gpath, "_is_tf_installed", lambda: False)
    find = backend.fsspec_backend._get_filesystem
    find.cache_clear()
    with serve(objects) as address:
        patch.setenv("TENSORSTORE_GCS_HTTP_URL", address)
        try:
            yield objects
        finally:
            find.cache_clear()
