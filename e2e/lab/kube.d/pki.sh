#!/bin/bash
# pki.sh: one CA and the kubeconfigs. Kubelet certificates carry system:node:NAME, so the node authorizer and NodeRestriction are real.
. "$(dirname "$0")/../env.sh"; . "$HERE/kube.d/cluster.sh"
umask 077
rm -rf "$PKI.new" "$KC"; mkdir -p "$PKI.new" "$KC"; cd "$PKI.new"
key() { openssl ecparam -name prime256v1 -genkey -noout -out "$1.key"; }
ca() { # ca FILE NAME
  key "$1"
  openssl req -x509 -new -key "$1.key" -days 3650 -subj "/CN=$2" -out "$1.crt" \
    -addext basicConstraints=critical,CA:TRUE -addext keyUsage=critical,digitalSignature,keyCertSign,cRLSign
}
crt() { # crt FILE CA SUBJECT [NAMES]
  key "$1"; openssl req -new -key "$1.key" -subj "$3" -out "$1.csr"
  { echo "basicConstraints=CA:FALSE"; echo "keyUsage=critical,digitalSignature,keyEncipherment"; echo "extendedKeyUsage=serverAuth,clientAuth"
    [ -z "${4:-}" ] || echo "subjectAltName=$4"; } > "$1.ext"
  openssl x509 -req -in "$1.csr" -CA "$2.crt" -CAkey "$2.key" -CAcreateserial -days 3650 -extfile "$1.ext" -out "$1.crt" 2>/dev/null
  rm "$1.csr" "$1.ext"
}
kc() { # kc USER SUBJECT [NAMES]
  local set="kubectl config --kubeconfig=$KC/$1"
  crt "$1" ca "$2" "${3:-}"
  { $set set-cluster lab --server=https://$CPIP:6443 --certificate-authority=ca.crt --embed-certs
    $set set-credentials "$1" --client-certificate="$1.crt" --client-key="$1.key" --embed-certs
    $set set-context lab --cluster=lab --user="$1"; $set use-context lab; } > /dev/null
}
ca ca lab-ca; ca front-ca lab-front-ca
openssl genrsa -out sa.key 2048 2>/dev/null; openssl rsa -in sa.key -pubout -out sa.pub 2>/dev/null
svc=kubernetes.default.svc
crt apiserver ca /CN=kube-apiserver "DNS:kubernetes,DNS:kubernetes.default,DNS:$svc,DNS:$svc.cluster.local,DNS:localhost,IP:127.0.0.1,IP:$CPIP,IP:$KSVC"
crt apiserver-kubelet ca /O=system:masters/CN=apiserver-kubelet
crt front front-ca /CN=front-proxy-client
crt etcd ca /CN=etcd "IP:127.0.0.1,DNS:localhost"
kc admin /O=system:masters/CN=admin
kc kcm /CN=system:kube-controller-manager
kc scheduler /CN=system:kube-scheduler
kc proxy /CN=system:kube-proxy
for n in $ALL; do kc "kubelet-$n" "/O=system:nodes/CN=system:node:$n" "IP:$(node_ip "$n"),DNS:$n"; done
mv "$PKI.new" "$PKI"   # the directory exists only when it is complete
