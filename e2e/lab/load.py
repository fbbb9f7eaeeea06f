"""load.py ARCHIVE REGISTRY: adds the images of an OCI archive to the lab's registry and prints their names.

`docker save` (since 25), `skopeo copy docker://NAME oci-archive:FILE:NAME` and `crane pull --format=oci` write such archives.
"""
import hashlib, json, os, re, sys, tarfile

archive, registry = sys.argv[1:]
with tarfile.open(archive) as tar:
    for member in tar:
        m = re.fullmatch(r"(?:\./)?blobs/sha256/([0-9a-f]{64})", member.name)
        if m and member.isfile():
            data = tar.extractfile(member).read()
            if hashlib.sha256(data).hexdigest() != m[1]:
                sys.exit(f"{archive}: {member.name} is not what its name says")
            with open(f"{registry}/blobs/sha256/{m[1]}", "wb") as f:
                f.write(data)
    names = [name for name in tar.getnames() if name.removeprefix("./") == "index.json"]
    if not names:
        sys.exit(f"{archive}: no index.json: not an OCI archive (an old `docker save`?)")
    images = json.load(tar.extractfile(names[0]))["manifests"]
for image in images:
    notes = image.get("annotations", {})
    name = notes.get("io.containerd.image.name") or notes.get("org.opencontainers.image.ref.name", "")
    m = re.fullmatch(r"(?:docker\.io/)?([a-z0-9._/-]+/[a-z0-9._/-]+):([\w.-]+)", name)
    if not m:
        sys.exit(f"{archive}: an image is called {name!r}: wanted is a whole name such as docker.io/openebs/provisioner-localpv:4.2.0")
    with open(f"{registry}/tags/{m[1].replace('/', '%')}@{m[2]}", "w") as f:
        f.write(image["digest"])
    print(f"docker.io/{m[1]}:{m[2]}")
