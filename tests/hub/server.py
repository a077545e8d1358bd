#!/usr/bin/env python3
"""A hub for tests: the answers of a model hub, on loopback, with faults on request. Standard library only.

    server.py FOLDER        prints "PORT CDN_PORT" and serves FOLDER/<org>/<name>/<file>; large files (.gguf, .safetensors) are "LFS":
                            resolve/ answers 302 to the CDN port with X-Linked-Etag (SHA-256) and X-Linked-Size
    FOLDER/fault            one line "KIND [N]", read at every request: the first N (default: all) that it concerns go wrong

Every request is appended to FOLDER/log as "METHOD PORT PATH token=yes|no range=… if-range=…".
"""
import hashlib
import json
import os
import sys
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import unquote

ROOT = sys.argv[1]
COMMIT = "0123456789abcdef0123456789abcdef01234567"
LOCK = threading.Lock()
USED = {}


def fault(kind):
    """True while the fault file names this kind and its count is not used up."""
    try:
        words = open(os.path.join(ROOT, "fault")).read().split()
    except OSError:
        return False
    if not words or words[0] != kind:
        return False
    with LOCK:
        left = int(words[1]) if len(words) > 1 else 1 << 30
        n = USED.get((kind, " ".join(words)), 0)
        USED[(kind, " ".join(words))] = n + 1
        return n < left


def is_large(name):
    return name.endswith((".gguf", ".safetensors"))


class Hub(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def log_message(self, *args):
        pass

    def note(self):
        h = self.headers
        with LOCK, open(os.path.join(ROOT, "log"), "a") as f:
            f.write(f"{self.command} {self.server.role} {self.path} token={'yes' if h.get('Authorization') else 'no'} "
                    f"range={h.get('Range', '-')} if-range={h.get('If-Range', '-')}\n")

    def answer(self, status, body=b"", **headers):
        self.send_response(status)
        for k, v in headers.items():
            self.send_header(k.replace("_", "-"), v)
        if "Content_Length" not in headers:
            self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)

    def do_HEAD(self):
        self.do_GET()

    def do_GET(self):
        self.note()
        for status in (401, 403, 404, 429, 500, 503):
            if fault(f"http{status}"):
                return self.answer(status, b"no")
        if self.server.role == "cdn":
            return self.cdn()
        parts = unquote(self.path).strip("/").split("/")
        if parts[:3] == ["api", "models", "old-org"]:   # a renamed repository: relative redirects inside the hub
            return self.answer(307, Location="/api/models/org/" + "/".join(parts[3:]))
        if parts[:2] == ["api", "models"]:
            return self.listing("/".join(parts[2:4]), "/".join(parts[5:]))
        if parts[0] == "old-org":
            return self.answer(307, Location="/org/" + "/".join(parts[1:]))
        if len(parts) > 3 and parts[2] == "resolve":
            return self.resolve("/".join(parts[:2]), parts[3], "/".join(parts[4:]))
        self.answer(404, b"no such page")

    def listing(self, repo, revision):
        folder = os.path.join(ROOT, repo)
        if repo == "org/secret" and self.headers.get("Authorization") != "Bearer hf_good":
            return self.answer(401, b"no")
        if not os.path.isdir(folder) or revision not in ("main", "v1", "feature/x", COMMIT):
            return self.answer(404, b"no")
        names = sorted(os.path.relpath(os.path.join(d, f), folder) for d, _, fs in os.walk(folder) for f in fs)
        doc = {"id": repo, "sha": COMMIT, "siblings": [{"rfilename": n} for n in names]}
        if fault("escape"):
            doc["siblings"].append({"rfilename": "../../../escaped.gguf"})
        if fault("commit"):
            doc["sha"] = "../../etc"
        body = json.dumps(doc).encode()
        if fault("deep"):
            body = b"[" * 100000
        if fault("huge"):
            body = b'{"siblings":[' + b'"x",' * (5 << 20) + b"]}"
        if fault("notjson"):
            body = b"<html>hello</html>"
        if fault("shape"):
            body = b'{"sha": 1, "siblings": {"a": 1}}'
        if fault("slow"):
            time.sleep(30)
        self.answer(200, body, Content_Type="application/json")

    def resolve(self, repo, revision, name):
        path = os.path.join(ROOT, repo, name)
        if repo == "org/secret" and self.headers.get("Authorization") != "Bearer hf_good":
            return self.answer(401, b"no")
        if not os.path.isfile(path):
            return self.answer(404, b"no")
        data = open(path, "rb").read()
        commit = "f" * 40 if fault("wrongcommit") else COMMIT
        if not is_large(name):
            return self.answer(200, data, ETag=f'"{hashlib.sha1(data).hexdigest()}"', X_Repo_Commit=commit)
        etag = hashlib.sha256(data).hexdigest()
        if fault("wronghash"):
            etag = "0" * 64
        if fault("badetag"):
            etag = "../../../../etc/passwd"
        where = f"http://127.0.0.1:{self.server.cdn_port}/{repo}/{name}"
        if fault("loop"):
            where = self.path
        if fault("scheme"):
            where = "file:///etc/passwd"
        self.answer(302, b"", Location=where, X_Linked_Etag=f'"{etag}"', X_Linked_Size=str(len(data)), X_Repo_Commit=commit, ETag='"pointer"')

    def cdn(self):
        data = open(os.path.join(ROOT, unquote(self.path).strip("/")), "rb").read()
        etag = '"cdn-' + hashlib.md5(data).hexdigest() + '"'
        start, status, headers = 0, 200, {"ETag": etag, "Accept_Ranges": "bytes"}
        asked = self.headers.get("Range")
        if asked and not fault("norange") and self.headers.get("If-Range", etag) == etag:
            start = int(asked.split("=")[1].split("-")[0])
            if start >= len(data):
                return self.answer(416, b"", Content_Range=f"bytes */{len(data)}")
            status = 206
            headers["Content_Range"] = f"bytes {start}-{len(data) - 1}/{len(data)}"
            if fault("wrongrange"):
                headers["Content_Range"] = f"bytes 0-{len(data) - 1}/{len(data)}"
        body = data[start:]
        if fault("flip"):
            body = body[:-1] + bytes([body[-1] ^ 1])
        if fault("long"):
            body += b"more"
        if self.command != "HEAD" and fault("cut"):
            self.answer(status, body[: max(1, len(body) // 3)], Content_Length=str(len(body)), **headers)
            self.close_connection = True
            return None
        if self.command != "HEAD" and fault("stall"):
            self.answer(status, body[: len(body) // 2], Content_Length=str(len(body)), **headers)
            self.wfile.flush()
            time.sleep(20)
            self.close_connection = True
            return None
        if self.command != "HEAD" and fault("trickle"):
            self.answer(status, b"", Content_Length=str(len(body)), **headers)
            for i in range(0, len(body), 8192):
                self.wfile.write(body[i:i + 8192])
                time.sleep(0.05)
            return None
        return self.answer(status, body, **headers)


class Server(ThreadingHTTPServer):
    def handle_error(self, request, address):           # clients that were killed or hung up are part of the tests
        pass


def serve(role):
    server = Server(("127.0.0.1", 0), Hub)
    server.daemon_threads = True
    server.role = role
    threading.Thread(target=server.serve_forever, daemon=True).start()
    return server


cdn, hub = serve("cdn"), serve("hub")
hub.cdn_port = cdn.server_address[1]
print(hub.server_address[1], hub.cdn_port, flush=True)
sys.stdin.read()                                        # ends with the test
