"""A local model hub with one model: it answers only the requests of `huggingface_hub`.

python tests/hub_standin.py FOLDER NAME PORT      # HF_ENDPOINT=http://127.0.0.1:PORT then leads to it
"""

from __future__ import annotations

import hashlib
import json
import re
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

COMMIT = hashlib.sha1(b"the one commit").hexdigest()


class HubServer(ThreadingHTTPServer):
    """Serve FOLDER as the model NAME, at one commit, which is also `main`; record the requests."""

    def __init__(self, folder: Path, name: str, port: int = 0) -> None:
        super().__init__(("127.0.0.1", port), _Handler)
        self.folder = folder
        self.name = name
        self.asked: list[str] = []

    @property
    def endpoint(self) -> str:
        return f"http://127.0.0.1:{self.server_port}"


class _Handler(BaseHTTPRequestHandler):
    server: HubServer

    def do_HEAD(self) -> None:
        self._answer(body=False)

    def do_GET(self) -> None:
        self._answer(body=True)

    def _answer(self, body: bool) -> None:
        self.server.asked.append(f"{self.command} {self.path}")
        name = re.escape(self.server.name)
        if found := re.fullmatch(rf"/{name}/resolve/(main|{COMMIT})/([\w.-]+)", self.path):
            file = self.server.folder / found[2]
            if file.is_file():
                self._send(200, file.read_bytes(), body)
            else:
                self._send(404, b"", body, error="EntryNotFound")
        elif re.match(rf"/api/models/{name}/tree/", self.path):
            self._send(200, json.dumps([]).encode(), body)
        elif re.match(rf"/api/models/{name}", self.path):
            files = [{"rfilename": path.name} for path in sorted(self.server.folder.iterdir())]
            answer = {"id": self.server.name, "sha": COMMIT, "siblings": files, "tags": []}
            self._send(200, json.dumps(answer).encode(), body)
        else:
            self._send(404, b"", body, error="RepoNotFound")

    def _send(self, status: int, content: bytes, body: bool, error: str = "") -> None:
        self.send_response(status)
        self.send_header("Content-Length", str(len(content)))
        self.send_header("X-Repo-Commit", COMMIT)
        self.send_header("ETag", f'"{hashlib.sha1(content).hexdigest()}"')
        if error:
            self.send_header("X-Error-Code", error)
        self.end_headers()
        if body:
            self.wfile.write(content)

    def log_message(self, *args: object) -> None:
        pass


@contextmanager
def serving(folder: Path, name: str) -> Iterator[HubServer]:
    server = HubServer(folder, name)
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield server
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


if __name__ == "__main__":
    HubServer(Path(sys.argv[1]), sys.argv[2], int(sys.argv[3])).serve_forever()
