# Sourced by the scripts of the Kubernetes lab, after env.sh: its addresses, its processes and its control groups.
# shellcheck shell=bash
# `up` starts NODES; the others of ALL are there to be started by hand
RUN=$LAB/kube PKI=$LAB/kube/pki KC=$LAB/kube/kubeconfig
NODES="n1 n2 n3" ALL="n1 n2 n3 n4" CPIP=10.88.0.1 SVC_CIDR=10.96.0.0/16 KSVC=10.96.0.1
S3_KEY=labaccess S3_SECRET=labsecretlabsecret   # the S3 server is reachable from the namespaces of the lab only
SERVICES="registry s3 etcd kube-apiserver kube-controller-manager kube-scheduler"
node_ip() { echo "10.88.0.1${1#n}"; }
pod_cidr() { echo "10.244.${1#n}.0/24"; }

# A group per node, below which its kubelet keeps its pods. In version 1 that is one in every hierarchy.
cgroup_v2() { [ -e /sys/fs/cgroup/cgroup.controllers ]; }
cgroup_up() {
  local g
  if cgroup_v2; then
    sed 's/[a-z0-9]*/+&/g' /sys/fs/cgroup/cgroup.controllers > /sys/fs/cgroup/cgroup.subtree_control
    mkdir -p "/sys/fs/cgroup/lab-$1"
    sed 's/[a-z0-9]*/+&/g' "/sys/fs/cgroup/lab-$1/cgroup.controllers" > "/sys/fs/cgroup/lab-$1/cgroup.subtree_control"
    return
  fi
  for g in cpu cpuacct cpuset memory devices freezer blkio pids systemd; do
    mkdir -p "/sys/fs/cgroup/$g/lab-$1"
  done
  # a new cpuset is empty and takes no process until it is told its cpus and memory
  g=/sys/fs/cgroup/cpuset
  cat $g/cpuset.cpus > "$g/lab-$1/cpuset.cpus"; cat $g/cpuset.mems > "$g/lab-$1/cpuset.mems"; echo 1 > "$g/lab-$1/cgroup.clone_children"
}
cgroup_down() {
  local g
  for g in "/sys/fs/cgroup/lab-$1" /sys/fs/cgroup/*/"lab-$1"; do
    if [ -d "$g" ]; then find "$g" -depth -type d -exec rmdir {} \; 2>/dev/null || true; fi
  done
}
