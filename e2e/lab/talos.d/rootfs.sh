#!/bin/bash
# rootfs.sh: Debian's kernel and packages + $BIN + $RELEASE/bin -> $RELEASE/boot/{vmlinuz,initramfs.cpio}.
# The initramfs holds a Talos-shaped root (usr-merged, read-only squashfs) that Talos' own init unpacks and mounts.
. "$(dirname "$0")/../env.sh"
D=$RELEASE/debs S=$D/stage R=$RELEASE/rootfs I=$RELEASE/initrd K=$RELEASE/kernel B=$RELEASE/boot
PACKAGES="bash busybox-static ca-certificates containernetworking-plugins dosfstools e2fsprogs iptables kmod libacl1 libaio1 libattr1 libblkid1
 libbsd0 libc6 libcap2 libcom-err2 libdevmapper-event1.02.1 libdevmapper1.02.1 libedit2 libext2fs2 libgcc-s1 libgcrypt20 libgmp10 libgpg-error0
 libinih1 libip4tc2 libip6tc2 libjansson4 libkmod2 liblz4-1 liblzma5 libmd0 libmnl0 libmount1 libnetfilter-conntrack3 libnfnetlink0 libnftables1
 libnftnl11 libpcre2-8-0 libreadline8 libseccomp2 libselinux1 libss2 libssl3 libstdc++6 libsystemd0 libtinfo6 libudev1 liburcu8 libuuid1
 libxtables12 libzstd1 lvm2 nftables runc udev xfsprogs zlib1g"
# Of the next Debian. The kernel: Talos 1.12 and later mount what Linux 6.12 cannot; 6.18 is the series of their own kernels.
# The programs: 1.14 formats with options that mkfs.xfs has since 6.13, and it has xfs_scrub; the newer libc serves all the others.
KERNEL='linux-image-6\.12\.[0-9]+\+deb12-cloud-amd64-unsigned' NEWER=
if [ "$MINOR" -ge 12 ]; then KERNEL='linux-image-6\.18\.[0-9]+\+deb13-cloud-amd64'; fi
if [ "$MINOR" -ge 14 ]; then
  PACKAGES="$PACKAGES mdadm"
  NEWER="xfsprogs libblkid1 libbsd0 libc6 libdevmapper1.02.1 libedit2 libgcc-s1 libicu76 libinih1 libmd0 libstdc++6 libtinfo6 liburcu8t64 libuuid1"
fi

# next_debian APT-COMMAND...: apt as a machine with the next release and its backports would see them. The mirror is this machine's own;
# lists and cache lie with the packages, so that nothing of it is ever offered to this machine.
next_debian() {
  local apt=$D/apt keys=/usr/share/keyrings/debian-archive-keyring.gpg command=$1; shift
  mkdir -p "$apt"/{lists,archives}/partial
  [ -e "$apt/sources.list" ] || apt-get indextargets --format '$(REPO_URI)' 'Created-By: Packages' 'Codename: bookworm' | head -1 |
    sed "s|.*|deb [signed-by=$keys] & trixie main\ndeb [signed-by=$keys] & trixie-backports main|" > "$apt/sources.list"
  "$command" -qq -o APT::Sandbox::User=root -o "Dir::Etc::sourcelist=$apt/sources.list" -o Dir::Etc::sourceparts=/dev/null \
    -o "Dir::State::lists=$apt/lists" -o "Dir::Cache=$apt" "$@"
}
# this_debian likewise, of the machine's own release
this_debian() { local command=$1; shift; "$command" -qq -o APT::Sandbox::User=root "$@"; }

# Packages are kept once they are here: the newest kernel of today must not undo the cache of yesterday.
download() {
  local kernel p older= from=this_debian
  rm -rf "$D"; mkdir -p "$D/pkgs"; cd "$D/pkgs"
  [ -n "$(apt-cache pkgnames linux-image-6.12)" ] || apt-get -qq update
  if [ "$MINOR" -ge 12 ]; then from=next_debian; next_debian apt-get update; fi
  kernel=$($from apt-cache pkgnames linux-image-6 | grep -xE "$KERNEL" | sort -V | tail -1)
  for p in $PACKAGES; do case " $NEWER " in *" $p "* | *" ${p}t64 "*) ;; *) older="$older $p" ;; esac; done
  # shellcheck disable=SC2086
  this_debian apt-get download $older
  # shellcheck disable=SC2086
  $from apt-get download "${kernel:?none like $KERNEL is offered}" ${NEWER:+$(printf '%s/trixie ' $NEWER)}
  rm -rf "$D/apt"
}

unpack() {
  local d x
  rm -rf "$R" "$S" "$I"; mkdir -p "$S" "$R"/usr/{bin,lib,lib64,libexec,share,local} "$B"
  for d in "$D"/pkgs/*.deb; do dpkg-deb -x "$d" "$S"; done
  ln -s usr/bin "$R/bin"; ln -s usr/bin "$R/sbin"; ln -s bin "$R/usr/sbin"; ln -s usr/lib "$R/lib"; ln -s usr/lib64 "$R/lib64"
  for x in usr/bin bin sbin usr/sbin; do if [ -d "$S/$x" ]; then cp -a --remove-destination "$S/$x/." "$R/usr/bin/"; fi; done
  rm -rf "$K"; for x in lib usr/lib; do if [ -d "$S/$x/modules" ]; then mv "$S/$x/modules" "$K"; fi; done
  for x in usr/lib lib; do if [ -d "$S/$x" ]; then cp -a "$S/$x/." "$R/usr/lib/"; fi; done
  for x in lib64 usr/lib64; do if [ -d "$S/$x" ]; then cp -a "$S/$x/." "$R/usr/lib64/"; fi; done
  cp -a "$S/usr/share/xfsprogs" "$R/usr/share/"
  rm -rf "$R"/usr/lib/udev/hwdb.* "$R"/usr/lib/x86_64-linux-gnu/gconv "$R"/usr/lib/systemd/{system,network} "$R"/usr/lib/{tmpfiles.d,init,cni}
  rm -f "$R"/usr/bin/{bashbug,perl*}
}

# What Talos expects in its root. Bind-mount targets must exist beforehand: the root is read-only.
shape() {
  local talos machinery x
  talos=$(cd / && go mod download -json "github.com/siderolabs/talos@$TALOS" | jq -r .Dir)
  machinery=$(cd / && go mod download -json "github.com/siderolabs/talos/pkg/machinery@$TALOS" | jq -r .Dir)
  cd "$R"
  mkdir -p boot/EFI etc/{iscsi,nvme,lvm,containerd,cri/conf.d/hosts,kubernetes/manifests,cni/net.d,ssl/certs,selinux/targeted/contexts/files} \
    mnt system .extra dev proc sys run tmp var root home opt/{containerd/bin,containerd/lib,cni/bin} \
    usr/{lib/firmware,etc,local/share,share/zoneinfo/Etc,share/spdx,libexec/kubernetes,local/lib/kubelet/credentialproviders,lib/systemd/network}
  cp "$talos/hack/zoneinfo/Etc/UTC" usr/share/zoneinfo/Etc/UTC
  cp "$talos/hack/nfsmount.conf" etc/
  cp "$talos/hack/containerd.toml" etc/containerd/config.toml
  cp "$talos/hack/cri-containerd.toml" etc/cri/containerd.toml
  cp "$talos/hack/cri-plugin.part" etc/cri/conf.d/00-base.part
  cp "$talos/hack/udevd/99-default.link" usr/lib/systemd/network/
  cp "$talos"/hack/udevd/*.rules usr/lib/udev/rules.d/
  touch usr/lib/udev/hwdb.bin   # 1.14 binds a writable one over it, and ends at once if there is none
  cp "$talos/hack/lvm.conf" etc/lvm/lvm.conf
  cp "$machinery/version/os-release" etc/os-release
  chmod -R u+w .
  ln -s /usr/share/zoneinfo/Etc/UTC etc/localtime
  touch etc/{extensions.yaml,resolv.conf,hosts,machine-id,iscsi/initiatorname.iscsi,nvme/hostid,nvme/hostnqn,ssl/certs/ca-certificates.crt} \
    etc/cri/conf.d/{cri.toml,01-registries.part,20-customization.part,base-spec.json} etc/selinux/targeted/contexts/files/file_contexts
  ln -s ca-certificates.crt etc/ssl/certs/ca-certificates
  for x in etc/pki usr/share/ca-certificates usr/local/share/ca-certificates etc/ca-certificates; do rm -rf "$x"; ln -s /etc/ssl "$x"; done
  echo 'root:x:0:0:root:/root:/bin/sh' > etc/passwd
  printf '%s\n' root:x:0: tty:x:5: lp:x:7: disk:x:6: kmem:x:15: dialout:x:20: cdrom:x:24: tape:x:26: audio:x:29: kvm:x:36: video:x:44: \
    input:x:104: render:x:105: sgx:x:106: > etc/group
  # Talos formats with -c options=.../lts_6.12.conf, or 6.18; Debian's mkfs.xfs has no such file, and refuses some keys of newer ones
  for x in 6.12 6.18; do
    printf '%s\n' '[metadata]' bigtime=1 crc=1 finobt=1 inobtcount=1 reflink=1 rmapbt=0 '[inode]' sparse=1 nrext64=0 > usr/share/xfsprogs/mkfs/lts_$x.conf
  done
  install -m755 "$RELEASE/bin/machined" usr/bin/init
  for x in poweroff shutdown reboot dashboard sandboxd; do ln -sf init usr/bin/$x; done
  install -m755 "$BIN"/{containerd,containerd-shim-runc-v2} usr/bin/
  ln -sf busybox usr/bin/sh; ln -sf udevadm usr/bin/systemd-udevd; ln -sf kmod usr/bin/modprobe
  # CNI plugins and a bridge network: the node becomes Ready without an image for it
  install -m755 "$S"/usr/lib/cni/{bridge,loopback,host-local,portmap} opt/cni/bin/
  mkdir usr/share/cni   # for 1.14, which mounts an empty /etc/cni
  for x in etc/cni/net.d usr/share/cni; do cp "$HERE/talos.d/cni.conflist" $x/10-lab.conflist; done
}

# Talos has no shell. This one is a system extension's service, as Talos runs them: it ends at once unless an ExtensionServiceConfig
# named `shell` brings a /script; that runs with the root's programs, devices and user volumes, and again after 5 s until it ends well.
extension() {
  local c=usr/local/lib/containers/shell
  cd "$R"; mkdir -p usr/local/etc/containers $c/{dev,etc,proc,run,sys,usr,var/mnt}
  ln -s usr/bin usr/lib usr/lib64 $c/
  # 1.14 takes the document of a service alone that waits for it; on those before, a service that waits keeps the boot from its end.
  local waits=; if [ "$MINOR" -ge 14 ]; then waits=$'\n  - configuration: true'; fi
  cat > usr/local/etc/containers/shell.yaml <<Y
name: shell
depends:
  - path: /var/mnt$waits
restart: untilSuccess
container:
  entrypoint: /bin/sh
  args: [-c, "[ ! -e /script ] || . /script"]
  mounts:
    - {source: /usr, destination: /usr, type: bind, options: [rbind, ro]}
    - {source: /dev, destination: /dev, type: bind, options: [rbind, rw]}
    - {source: /var/mnt, destination: /var/mnt, type: bind, options: [rbind, rw]}
Y
}

modules() {
  local k own; k=$(ls "$K")
  mkdir -p "$R/usr/lib/modules/$k"; cp -a "$K/$k"/{modules.builtin*,modules.order} "$R/usr/lib/modules/$k/"
  python3 "$HERE/talos.d/modules.py" "$K/$k" "$R/usr/lib/modules/$k" squashfs loop xfs overlay virtio_net virtio_blk vfat fat \
    nls_ascii nls_utf8 nls_cp437 dm-mod dm-crypt dm-thin-pool dm-snapshot br_netfilter bridge veth vxlan nf_tables nft_compat nft_chain_nat nf_nat \
    nf_conntrack nft_ct nft_masq nft_fib nft_fib_inet nft_fib_ipv4 nft_fib_ipv6 nft_reject nft_reject_inet nft_log nft_limit nft_numgen nft_redir \
    nft_nat xt_conntrack xt_MASQUERADE xt_comment xt_mark xt_nat xt_addrtype xt_statistic xt_multiport xt_tcpudp ip_tables iptable_nat \
    iptable_filter ip6_tables ip_set configfs efivarfs tun dummy ip_vs nbd zram iscsi_tcp nvme-tcp nvme-fabrics nvme virtio_rng virtio_console \
    virtio_balloon wireguard
  depmod -b "$R" "$k"
  # 1.14 looks up what is built in where its own kernel would have the list
  own=$(cd / && go mod download -json "github.com/siderolabs/talos/pkg/machinery@$TALOS" | jq -r .Dir)
  ln -s "$k" "$R/usr/lib/modules/$(sed -n 's/.*DefaultKernelVersion = "\(.*\)"/\1/p' "$own/constants/constants.go")"
}

# The Talos kernel has these built in, Debian's has them as modules: a shim loads them, in this order, before Talos' init runs.
initramfs() {
  local m p early=
  mkdir -p "$I"/{bin,m,dev,proc,sys,root,tmp}; cp "$R/usr/bin/busybox" "$I/bin/"; cp "$RELEASE/bin/talos-init" "$I/"
  for m in loop squashfs overlay configfs failover net_failover virtio_net virtio_blk libcrc32c xfs llc stp bridge br_netfilter dm-mod; do
    p=$(find "$R/usr/lib/modules" -name "$m.ko")
    if [ -n "$p" ]; then cp "$p" "$I/m/"; early="$early $m"; fi
  done
  printf '#!/bin/busybox sh\nfor m in%s; do /bin/busybox insmod /m/$m.ko; done\nexec /talos-init\n' "$early" > "$I/init"; chmod +x "$I/init"
  mksquashfs "$R" "$I/rootfs.sqsh" -all-root -noappend -comp lz4 -no-progress -quiet
  (cd "$I" && find . | cpio -o -H newc --quiet) > "$B/initramfs.cpio"
  cp "$S"/boot/vmlinuz-* "$B/vmlinuz"
}

list="$PACKAGES $NEWER $KERNEL"
[ "$(cat "$D/list" 2>/dev/null)" = "$list" ] || { (download); echo "$list" > "$D/list"; }
unpack; (shape); (extension); modules; initramfs
rm -rf "$R" "$I" "$S"
