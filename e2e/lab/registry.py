"""registry.py ADDRESS PORT DIR: a read-only image registry over what images.py wrote.

DIR/blobs/sha256/HEX are the blobs, DIR/tags/REPOSITORY(with / as %)@TAG holds a manifest's digest. Range is served
because containerd resumes pulls with it.
"""
import http.server, json, os, re, sys

ADDRESS, PORT, DIR = sys.argv[1], int(sys.argv[2]), sys.argv[3]


def content_type(kind, file):
    """A manifest names its own type."""
    if kind == "blobs":
        return "application/octet-stream"
    with open(file, "rb") as f:
        return json.load(f).get("mediaType", "application/vnd.oci.image.manifest.v1+json")


class Handler(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def answer(self, code, body=b""):
        self.send_response(code)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        if self.command == "GET":
            self.wfile.write(body)

    def do_GET(self):
        path = self.path.split("?")[0]
        if path.rstrip("/") == "/v2":
            return self.answer(200, b"{}")
        m = re.fullmatch(r"/v2/([a-z0-9._/-]+)/(manifests|blobs)/([A-Za-z0-9:._-]+)", path)
        if not m:
            return self.answer(404)
        repository, kind, ref = m.groups()
        digest = ref
        if not ref.startswith("sha256:"):
            try:
                with open(f"{DIR}/tags/{repository.replace('/', '%')}@{ref}") as f:
                    digest = f.read().strip()
            except OSError:
                return self.answer(404, b'{"errors":[{"code":"MANIFEST_UNKNOWN","message":"manifest unknown"}]}')
        file = f"{DIR}/blobs/{digest.replace(':', '/')}"
        if not re.fullmatch("sha256:[0-9a-f]{64}", digest) or not os.path.exists(file):
            return self.answer(404, b'{"errors":[{"code":"BLOB_UNKNOWN","message":"blob unknown"}]}')
        self.send_file(file, digest, content_type(kind, file))

    do_HEAD = do_GET

    def send_file(self, file, digest, content_type):
        size = os.path.getsize(file)
        first, last = 0, size - 1
        wanted = re.fullmatch(r"bytes=(\d+)-(\d*)", self.headers.get("Range", ""))
        if wanted:
            first, last = int(wanted[1]), min(int(wanted[2] or last), last)
        self.send_response(206 if wanted else 200)
        self.send_header("Content-Type", content_type)
        self.send_header("Docker-Content-Digest", digest)
        self.send_header("Accept-Ranges", "bytes")
        self.send_header("Content-Length", str(last - first + 1))
        if wanted:
            self.send_header("Content-Range", f"bytes {first}-{last}/{size}")
        self.end_headers()
        if self.command != "GET":
            return
        with open(file, "rb") as f:
            f.seek(first)
            left = last - first + 1
            while left > 0 and (chunk := f.read(min(left, 1 << 20))):
                left -= len(chunk)
                self.wfile.write(chunk)


http.server.ThreadingHTTPServer((ADDRESS, PORT), Handler).serve_forever()
