"""A web server for tests that can break a connection, and that serves ranges of bytes."""

import contextlib
import http.server
import re
import threading


class Handler(http.server.BaseHTTPRequestHandler):
    """Serve ``files``.

    fails: bytes after which the connection breaks, once. ranges: whether it serves them. sizes: headers that state
    them. stated_length: what one of them states instead.
    """

    files: dict = {}  # noqa: RUF012
    url: str
    requested: list = []  # noqa: RUF012
    fails: int | None = None
    ranges = True
    sizes: tuple[str, ...] = ("Content-Length",)
    status = 200
    stated_length: str | None = None

    def do_GET(self):
        requested, content = self.headers["Range"], self.files[self.path[1:]]
        self.requested.append(requested)
        start = 0
        if requested and self.ranges:
            wanted = re.fullmatch(r"bytes=(\d+)-", requested)
            assert wanted, requested
            start = int(wanted[1])
        if self.status != 200 or (start and start >= len(content)):
            self.send_response(self.status if self.status != 200 else 416)
            self.send_header("Content-Length", "0")
            self.end_headers()
            return
        self.send_response(206 if requested and self.ranges else 200)
        whole = len(content)
        headers = {
            "Content-Length": self.stated_length or str(whole - start),
            "Content-Range": f"bytes {start}-{whole - 1}/{whole}",
        }
        for name in self.sizes:
            self.send_header(name, headers[name])
        self.end_headers()
        until, type(self).fails = self.fails, None
        with contextlib.suppress(ConnectionError):
            self.wfile.write(content[start:until])

    def log_message(self, *_):
        pass


@contextlib.contextmanager
def running(handler):
    """Run a server of a handler; yield its address."""
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.01,))
        thread.start()
        try:
            yield f"http://127.0.0.1:{server.server_port}"
        finally:
            server.shutdown()
            thread.join()


@contextlib.contextmanager
def serving(files):
    """Run a server of ``{name: bytes}``; yield its handler, with its ``url``."""
    handler: type[Handler] = type("Handler", (Handler,), {"requested": [], "files": files})
    with running(handler) as handler.url:
        yield handler
