#!/bin/bash
# disks.sh DIR: the node's disks. A system disk that has a META partition counts as installed (as the metal disk image does), so
# no installer image is needed; Talos makes STATE and EPHEMERAL itself.
set -euo pipefail
mkdir -p "$1"; cd "$1"
truncate -s 5G nvme0.img                                     # NVME-AAA0001: blank
truncate -s 5G nvme1.img                                     # NVME-BBB0001: blank
truncate -s 5G nvme2.img; mkfs.xfs -q -L old-data nvme2.img  # NVME-CCC0001: holds somebody's file system
truncate -s 12G sys.tmp
sfdisk -q sys.tmp <<T
label: gpt
name=EFI, size=100MiB, type=C12A7328-F81F-11D2-BA4B-00A0C93EC93B
name=META, size=1MiB, type=0FC63DAF-8483-4772-8E79-3D69D8477DE4
T
mv sys.tmp sys.img
