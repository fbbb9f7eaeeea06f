#!/bin/bash
# control-plane.sh: etcd, API server, controller manager and scheduler in the namespace `lab`; those that run are left alone.
. "$(dirname "$0")/../env.sh"; . "$HERE/kube.d/cluster.sh"
mkdir -p "$RUN/etcd"; chmod 700 "$RUN/etcd"
# Pod security as Talos sets it up
cat > "$RUN/admission.yaml" <<Y
apiVersion: apiserver.config.k8s.io/v1
kind: AdmissionConfiguration
plugins:
- name: PodSecurity
  configuration:
    apiVersion: pod-security.admission.config.k8s.io/v1
    kind: PodSecurityConfiguration
    defaults: {enforce: baseline, enforce-version: latest, audit: restricted, audit-version: latest, warn: restricted, warn-version: latest}
    exemptions: {namespaces: [kube-system]}
Y
start() { alive "$1" > /dev/null || spawn "$1" nsenter --net=/run/netns/lab "$BIN/$1" "${@:2}"; }
start etcd --name lab --data-dir "$RUN/etcd" --listen-client-urls https://127.0.0.1:2379 --advertise-client-urls https://127.0.0.1:2379 \
  --listen-peer-urls http://127.0.0.1:2380 --initial-advertise-peer-urls http://127.0.0.1:2380 --initial-cluster lab=http://127.0.0.1:2380 \
  --cert-file "$PKI/etcd.crt" --key-file "$PKI/etcd.key" --trusted-ca-file "$PKI/ca.crt" --client-cert-auth --unsafe-no-fsync --snapshot-count 10000
start kube-apiserver --advertise-address=$CPIP --bind-address=0.0.0.0 --secure-port=6443 --etcd-servers=https://127.0.0.1:2379 \
  --etcd-cafile="$PKI/ca.crt" --etcd-certfile="$PKI/etcd.crt" --etcd-keyfile="$PKI/etcd.key" --client-ca-file="$PKI/ca.crt" \
  --tls-cert-file="$PKI/apiserver.crt" --tls-private-key-file="$PKI/apiserver.key" --kubelet-certificate-authority="$PKI/ca.crt" \
  --kubelet-client-certificate="$PKI/apiserver-kubelet.crt" --kubelet-client-key="$PKI/apiserver-kubelet.key" \
  --kubelet-preferred-address-types=InternalIP --service-cluster-ip-range=$SVC_CIDR \
  --service-account-issuer=https://kubernetes.default.svc --service-account-key-file="$PKI/sa.pub" --service-account-signing-key-file="$PKI/sa.key" \
  --authorization-mode=Node,RBAC --enable-admission-plugins=NodeRestriction --admission-control-config-file="$RUN/admission.yaml" \
  --requestheader-client-ca-file="$PKI/front-ca.crt" --requestheader-allowed-names=front-proxy-client \
  --requestheader-extra-headers-prefix=X-Remote-Extra- --requestheader-group-headers=X-Remote-Group \
  --requestheader-username-headers=X-Remote-User --proxy-client-cert-file="$PKI/front.crt" --proxy-client-key-file="$PKI/front.key" \
  --allow-privileged=true --profiling=false
# the next two end themselves when the API server's own roles are not there yet
until_ok 180 "the API server; its log is $RUN/log/kube-apiserver" in_netns lab kubectl --kubeconfig="$KC/admin" get --raw /readyz
start kube-controller-manager --kubeconfig="$KC/kcm" --authentication-kubeconfig="$KC/kcm" --authorization-kubeconfig="$KC/kcm" \
  --bind-address=127.0.0.1 --client-ca-file="$PKI/ca.crt" --cluster-signing-cert-file="$PKI/ca.crt" --cluster-signing-key-file="$PKI/ca.key" \
  --root-ca-file="$PKI/ca.crt" --service-account-private-key-file="$PKI/sa.key" --use-service-account-credentials=true --leader-elect=false \
  --profiling=false --allocate-node-cidrs=false --service-cluster-ip-range=$SVC_CIDR
start kube-scheduler --kubeconfig="$KC/scheduler" --authentication-kubeconfig="$KC/scheduler" --authorization-kubeconfig="$KC/scheduler" \
  --bind-address=127.0.0.1 --leader-elect=false --profiling=false
