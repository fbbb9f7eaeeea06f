"""modules.py SOURCE TARGET MODULE...: copies kernel modules, unpacked, with everything they depend on."""
import lzma, os, shutil, subprocess, sys

source, target, *todo = sys.argv[1:]
norm = lambda name: name.replace("-", "_")
index = {norm(f.split(".ko")[0]): os.path.join(d, f) for d, _, files in os.walk(source) for f in files if ".ko" in f}
done = set()
while todo:
    name = norm(todo.pop())
    if name in done or name not in index:  # not there: built into this kernel, or not known to it
        continue
    done.add(name)
    path = index[name]
    out = os.path.join(target, os.path.relpath(path, source)).removesuffix(".xz")
    os.makedirs(os.path.dirname(out), exist_ok=True)
    with (lzma.open if path.endswith(".xz") else open)(path, "rb") as r, open(out, "wb") as w:
        shutil.copyfileobj(r, w)
    depends = subprocess.run(["modinfo", "-F", "depends", out], capture_output=True, text=True, check=True).stdout.strip()
    todo += [d for d in depends.split(",") if d]
