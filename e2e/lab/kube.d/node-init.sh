#!/bin/bash
# node-init.sh N [hide-disk|no-disk]: the first process of a node. It has its own mount, process, host name and network namespaces,
# so every node uses the usual paths; what must last is bound to $RUN/nodes/N.
. "$(dirname "$0")/../env.sh"; . "$HERE/kube.d/cluster.sh"
n=$1 fault=$2 D=$RUN/nodes/$1
hostname "$n"
mount --make-rshared /
mount -t proc proc /proc
mount -t tmpfs tmpfs /run; mkdir -p /run/lock /run/netns
for d in /var/lib/containerd /var/lib/kubelet /var/lib/cni /var/log /etc/cni/net.d /etc/kubernetes; do
  mkdir -p "$d" "$D$d"; mount --bind "$D$d" "$d"; mount --make-shared "$d"
done
# the data disk, where Talos mounts a user volume
mkdir -p /var/mnt "$D/var-mnt"; mount --bind "$D/var-mnt" /var/mnt; mkdir -p /var/mnt/openebs
[ "$fault" = no-disk ] || mount -o loop "$D/disk.img" /var/mnt/openebs
cat > "$D/os-release" <<O
ID=talos
NAME="Talos"
VERSION_ID=$TALOS
PRETTY_NAME="Talos ($TALOS)"
O
mount --bind "$D/os-release" /etc/os-release
printf 'lab-%s' "$n" | md5sum | cut -c1-32 > "$D/machine-id"; mount --bind "$D/machine-id" /etc/machine-id
# The kubelet insists on these kernel-wide settings. It is shown files that hold what it wants: the machine keeps its own.
show() { echo "$2" > "$D/sysctl.${1//\//.}"; mount --bind "$D/sysctl.${1//\//.}" "/proc/sys/$1"; }
show vm/overcommit_memory 1; show vm/panic_on_oom 0; show kernel/panic 10; show kernel/panic_on_oops 1
show kernel/keys/root_maxkeys 1000000; show kernel/keys/root_maxbytes 25000000

for f in cni.conflist containerd.toml kubelet.yaml proxy.yaml hosts.toml; do
  mkdir -p "$D/certs.d/_default"
  sed -e "s#@NODE@#$n#g; s#@IP@#$(node_ip "$n")#g; s#@PODS@#$(pod_cidr "$n")#g; s#@DIR@#$D#g; s#@PKI@#$PKI#g; s#@KC@#$KC#g; s#@CP@#$CPIP#g" \
    "$HERE/kube.d/$f" > "$D/$f"
done
mv "$D/cni.conflist" /etc/cni/net.d/10-lab.conflist; mv "$D/hosts.toml" "$D/certs.d/_default/"

containerd -c "$D/containerd.toml" > /var/log/containerd.log 2>&1 &
until [ -S /run/containerd/containerd.sock ]; do sleep .1; done
hide=
if [ "$fault" = hide-disk ]; then # containerd goes on seeing it
  hide='mount --make-private /var/mnt; mount --make-private /var/mnt/openebs; umount /var/mnt/openebs;'
fi
unshare -m --propagation unchanged sh -c "$hide"' exec kubelet "$@"' kubelet --config="$D/kubelet.yaml" --kubeconfig="$KC/kubelet-$n" \
  --hostname-override="$n" --node-ip="$(node_ip "$n")" --root-dir=/var/lib/kubelet > /var/log/kubelet.log 2>&1 &
kube-proxy --config="$D/proxy.yaml" > /var/log/kube-proxy.log 2>&1 &
# reap whatever ends up here, until a part of the node itself is gone
while wait -n || true; do
  jobs -rp | wc -l | grep -qx 3 || { echo "a part of the node has ended"; exit 1; }
  sleep 1
done
