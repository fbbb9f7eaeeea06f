# Sourced by the lab's scripts (env.sh) and by the tests (../lib.sh): where the lab is, and which release of Talos it runs.
# shellcheck shell=bash
LAB=${NODEPREP_LAB:-$HOME/.cache/nodeprep-lab}   # every file the lab makes is below this directory
TALOS=${NODEPREP_LAB_TALOS:-v1.14.1}             # a release that has a go/talos/*.mod
BEFORE=${NODEPREP_LAB_BEFORE:-v1.13.9}           # the one that upgrade-test comes from
MINOR=${TALOS#v1.} MINOR=${MINOR%%.*}
# What is made for this release. Disks and configuration are not: a machine that was stopped under one release comes up under another, upgraded.
RELEASE=$LAB/talos-$TALOS
