"""images.py REGISTRY BIN: the labs' container images, written by hand as OCI blobs for registry.py (no Docker, no registry client).

They are called what manifests call them, so that no manifest has to be changed for the lab. What is not the real thing has a
name of its own (nodeprep/...). Programs come from BIN (built from Go modules) and from this machine's Debian packages.
"""
import hashlib, io, json, os, re, shutil, subprocess, sys, tarfile

REGISTRY, BIN = sys.argv[1:]
NEW = REGISTRY + ".new"
KUBE, ETCD = os.environ["KUBE"], os.environ["ETCD"]
OCI = "application/vnd.oci.image."
ENV = ["PATH=/usr/local/bin:/usr/bin:/bin:/usr/sbin:/sbin"]


def digest(data):
    return hashlib.sha256(data).hexdigest()


def blob(data, media_type):
    path = f"{NEW}/blobs/sha256/{digest(data)}"
    if not os.path.exists(path):
        with open(path, "wb") as f:
            f.write(data)
    return {"mediaType": media_type, "digest": "sha256:" + digest(data), "size": len(data)}


def read(path):
    with open(path, "rb") as f:
        return f.read()


def program(name):
    return read(f"{BIN}/{name}")


def layer(files, owner=(0, 0)):
    """A tar of {path: content}: bytes are a program, text is a file, "-> x" a symbolic link, None a directory. What is named
    belongs to the owner, what is above it to root."""
    out, made = io.BytesIO(), set()
    with tarfile.open(fileobj=out, mode="w", format=tarfile.PAX_FORMAT) as tar:
        def directory(path):
            if path and path not in made:
                directory(os.path.dirname(path))
                made.add(path)
                info = tarfile.TarInfo(path)
                info.type, info.mode = tarfile.DIRTYPE, 0o1777 if path == "tmp" else 0o755
                if path in files:
                    info.uid, info.gid = owner
                tar.addfile(info)

        for path, content in sorted(files.items()):
            if content is None:
                directory(path)
                continue
            directory(os.path.dirname(path))
            info = tarfile.TarInfo(path)
            info.uid, info.gid = owner
            if isinstance(content, str) and content.startswith("-> "):
                info.type, info.linkname, content = tarfile.SYMTYPE, content[3:], b""
            elif isinstance(content, str):
                info.mode, content = 0o644, content.encode()
            else:
                info.mode = 0o755
            info.size = len(content)
            tar.addfile(info, io.BytesIO(content))
    return out.getvalue()


def with_libraries(target, source):
    """A dynamic program of this machine and every library ldd names, at the same paths."""
    files = {target: read(source)}
    for line in subprocess.run(["ldd", source], capture_output=True, text=True, check=True).stdout.splitlines():
        m = re.search(r"(/\S+) \(0x", line)
        if m:
            files[m[1].lstrip("/")] = read(m[1])
    return layer(files)


def image(names, layers, **config):
    rootfs = {"type": "layers", "diff_ids": ["sha256:" + digest(one) for one in layers]}
    body = {"architecture": "amd64", "os": "linux", "config": {"Env": ENV, **config}, "rootfs": rootfs}
    manifest = {"schemaVersion": 2, "mediaType": OCI + "manifest.v1+json",
                "config": blob(json.dumps(body).encode(), OCI + "config.v1+json"),
                "layers": [blob(one, OCI + "layer.v1.tar") for one in layers]}
    top = blob(json.dumps(manifest).encode(), manifest["mediaType"])["digest"]
    for name in names:
        repository, tag = name.rsplit(":", 1)
        with open(f"{NEW}/tags/{repository.replace('/', '%')}@{tag}", "w") as f:
            f.write(top)


shutil.rmtree(NEW, ignore_errors=True)
os.makedirs(NEW + "/blobs/sha256")
os.makedirs(NEW + "/tags")

people = {"etc/passwd": "root:x:0:0:root:/root:/bin/sh\ncnb:x:1002:1000::/home/cnb:/bin/sh\nnobody:x:65534:65534::/:/bin/sh\n",
          "etc/group": "root:x:0:\ncnb:x:1000:\nnogroup:x:65534:\n", "etc/nsswitch.conf": "hosts: files dns\n", "tmp": None}
applets = subprocess.run(["/bin/busybox", "--list"], capture_output=True, text=True, check=True).stdout.split()
base = layer({**people, "root": None, "home/cnb": None, "sbin": "-> bin", "usr/bin": "-> ../bin", "usr/sbin": "-> ../bin",
              "bin/busybox": read("/bin/busybox"), **{"bin/" + a: "-> busybox" for a in applets if a != "busybox"}})
parts = ["kube-apiserver", "kube-controller-manager", "kube-scheduler", "kubelet", "etcd"]
kubelab = layer({**people, "usr/local/bin/kubelab": program("kubelab"), **{"usr/local/bin/" + p: "-> kubelab" for p in parts}})
# Talos' kubelet container gets the host's /run on /var/run, and calls mount and umount
node_tools = layer({"bin": "-> usr/bin", "sbin": "-> usr/bin", "run": "-> var/run", "usr/bin/busybox": read("/bin/busybox"),
                    **{d: None for d in ("var/run", "var/lib", "dev", "proc", "sys")},
                    **{"usr/bin/" + a: "-> busybox" for a in "sh mount umount ls cat cp mv rm mkdir sleep nsenter stat df du ip".split()}})

image(["pause:3.10", "pause:3.10.1"], [layer({"pause": program("pause")})], Entrypoint=["/pause"])
image([f"etcd:{ETCD}"], [kubelab], Entrypoint=["/usr/local/bin/etcd"])
for part in parts[:3]:
    image([f"{part}:{KUBE}"], [kubelab], Entrypoint=["/usr/local/bin/" + part])
image([f"siderolabs/kubelet:{KUBE}"], [kubelab, node_tools], Entrypoint=["/usr/local/bin/kubelet"])
image(["library/busybox:1.36", "library/busybox:1"], [base], Cmd=["sh"])
image(["nodeprep/fio:3.33"], [base, with_libraries("usr/local/bin/fio", "/usr/bin/fio")], Cmd=["fio"])
image(["openebs/linux-utils:4.6.0"], [base, with_libraries("usr/local/bin/xfs_quota", "/usr/sbin/xfs_quota")], Cmd=["sh"])
image(["nodeprep/openebs-standin:4.6.0"], [base, layer({"usr/local/bin/openebs-standin": program("openebs-standin")})],
      Entrypoint=["/usr/local/bin/openebs-standin"])
image(["rancher/local-path-provisioner:v0.0.30"], [base, layer({"usr/bin/local-path-provisioner": program("local-path-provisioner")})],
      Entrypoint=["/usr/bin/local-path-provisioner"])
velero = {name: program(name) for name in ("velero", "velero-helper", "velero-restore-helper")}
# the server keeps its repositories' connections in its home, which is its own in the real image
home = layer({"home/cnb": None}, owner=(1002, 1000))
image(["velero/velero:v1.18.3"], [base, home, layer(velero)], User="1002:1000", Entrypoint=["/velero"], Env=[*ENV, "HOME=/home/cnb"])
plugin = "velero-plugin-for-aws"
image([f"velero/{plugin}:v1.14.3"], [base, layer({f"plugins/{plugin}": program(plugin)})], User="1002:1000",
      Entrypoint=["/bin/cp", f"/plugins/{plugin}", f"/target/{plugin}"])

shutil.rmtree(REGISTRY, ignore_errors=True)
os.rename(NEW, REGISTRY)
