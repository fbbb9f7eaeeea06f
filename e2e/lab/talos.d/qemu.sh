#!/bin/bash
# qemu.sh: the machine: a virtio system disk and three NVMe disks, on tap1. Runs in the foreground; reads $RUN, $NS and $NVME_ORDER:
# in which order the NVMe disks sit on the bus, and so which is nvme0n1. Image and serial of each stay together.
# One CPU by default: with two, TCG now and then trips over the kernel patching its own code ("Oops: int3"), which panics and reboots.
accel=tcg,thread=multi,tb-size=512 cpu=max,la57=off
if grep -qE '^flags.* (vmx|svm)' /proc/cpuinfo && [ -w /dev/kvm ]; then accel=kvm cpu=host; fi
serials=(NVME-AAA0001 NVME-BBB0001 NVME-CCC0001) nvme=()
for i in ${NVME_ORDER:-0 1 2}; do
  nvme+=(-drive "file=$RUN/disks/nvme$i.img,if=none,id=e$i,format=raw,cache=unsafe,discard=unmap" -device "nvme,drive=e$i,serial=${serials[i]}")
done
# slab_nomerge, pti and init_on_alloc: Talos checks them. panic_on_oops: the kubelet checks it. nvme timeout: a slow host is not a broken disk.
# audit: every system call is slower while somebody listens, and nobody reads what Talos' auditd writes.
# nopti, mitigations, preempt: the kernel's last word, where Talos looks for pti=on alone; an emulated CPU has nothing to guard and pays for it dearly.
exec nsenter "--net=/run/netns/$NS" qemu-system-x86_64 -name talos-1 -machine q35 -accel "$accel" -cpu "$cpu" -smp "${SMP:-1}" -m "${MEM:-4096}" \
  -kernel "$RELEASE/boot/vmlinuz" -initrd "$RELEASE/boot/initramfs.cpio" \
  -append "talos.platform=metal console=ttyS0 slab_nomerge= pti=on init_on_alloc=0 printk.devkmsg=on talos.dashboard.disabled=1 net.ifnames=0 \
consoleblank=0 panic=1 oops=panic nvme_core.io_timeout=4294967295 random.trust_cpu=on nopti mitigations=off preempt=none audit=0 talos.auditd.disabled=1" \
  -display none -monitor none -chardev "file,id=console,path=$RUN/console,append=on" -serial chardev:console \
  -netdev tap,id=n0,ifname=tap1,script=no,downscript=no -device virtio-net-pci,netdev=n0,mac=52:54:00:00:00:01 \
  -object rng-random,filename=/dev/urandom,id=r0 -device virtio-rng-pci,rng=r0 \
  -drive "file=$RUN/disks/sys.img,if=none,id=d0,format=raw,cache=unsafe,discard=unmap" -device virtio-blk-pci,drive=d0,serial=SYS0001 \
  "${nvme[@]}"
