# Sourced by every script of the lab: where things are, which versions, and the few functions all of them share.
# shellcheck shell=bash
set -euo pipefail
HERE=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
. "$HERE/release.sh"
BIN=$LAB/bin IMAGES=$LAB/registry
KUBE=v1.34.4 ETCD=v3.6.4   # the Go modules' versions are in go/kube/go.mod; these must agree with them
export LAB BIN IMAGES TALOS MINOR RELEASE KUBE ETCD PATH=$RELEASE/bin:$BIN:$PATH:/usr/sbin:/sbin
mkdir -p "$BIN" "$RELEASE/bin" "$LAB/stamps"

say() { printf '%s %s\n' "$(date +%T)" "$*" >&2; }
die() { say "$*"; exit 1; }
[ -e "$HERE/go/talos/$TALOS.mod" ] || die "NODEPREP_LAB_TALOS=$TALOS: the lab can make $(cd "$HERE/go/talos" && echo *.mod | sed 's/\.mod//g')"

# timed NAME CMD...: runs CMD and says how many seconds it took
timed() {
  local name=$1 start=$SECONDS; shift
  "$@"; say "$name: $((SECONDS - start)) s"
}

# cached NAME OUTPUT INPUT... -- CMD...: runs CMD unless OUTPUT exists and was made from the same inputs.
# An input is a file (its content counts), or a word. The key of the last good run lies in stamps/NAME.
cached() {
  local name=$1 output=$2 key; shift 2
  local inputs=()
  while [ "$1" != -- ]; do inputs+=("$1"); shift; done; shift
  key=$(for i in "${inputs[@]}"; do if [ -f "$i" ]; then cat "$i"; else echo "$i"; fi; done | sha256sum | cut -d' ' -f1)
  if made; then return 0; fi
  flock 9   # two builds at once would only fight over two cores
  if ! made; then
    rm -f "$LAB/stamps/$name"
    timed "built $name" "$@"
    echo "$key" > "$LAB/stamps/$name"
  fi
  flock -u 9
}
made() { [ -e "$output" ] && [ "$(cat "$LAB/stamps/$name" 2>/dev/null)" = "$key" ]; }

# spawn NAME CMD...: starts CMD in the background and notes its pid and start time in $RUN/pids/NAME, its output in $RUN/log/NAME
spawn() {
  local name=$1 pid; shift
  mkdir -p "$RUN/pids" "$RUN/log"
  setsid "$@" > "$RUN/log/$name" 2>&1 < /dev/null 9>&- & pid=$!
  echo "$pid $(start_time $pid)" > "$RUN/pids/$name"
}

# A pid alone can belong to a stranger after a reboot; with the start time it cannot.
start_time() { sed 's/.*) //' "/proc/$1/stat" 2>/dev/null | cut -d' ' -f20; }

alive() { # alive NAME: prints the pid of what spawn started, fails if it is gone
  local pid start
  read -r pid start 2>/dev/null < "$RUN/pids/$1" && [ "$(start_time "$pid")" = "$start" ] && echo "$pid"
}

reap() { # reap NAME [SIGNAL]: ends what spawn started, waiting up to 10 s before it insists
  local pid
  if pid=$(alive "$1"); then
    kill "-${2:-TERM}" "$pid" 2>/dev/null || true
    for _ in $(seq 100); do alive "$1" > /dev/null || break; sleep .1; done
    alive "$1" > /dev/null && kill -KILL "$pid" 2>/dev/null
  fi
  rm -f "$RUN/pids/$1"
}

# until_ok SECONDS WHAT CMD...: repeats CMD every $POLL seconds until it succeeds. On a crowded machine set NODEPREP_LAB_PATIENCE: all limits are multiplied by it.
PATIENCE=${NODEPREP_LAB_PATIENCE:-1}
until_ok() {
  local end=$((SECONDS + $1 * PATIENCE)) what=$2; shift 2
  until "$@" > /dev/null 2>&1; do
    [ $SECONDS -lt $end ] || die "gave up waiting for $what"
    sleep "${POLL:-.5}"
  done
}

has_netns() { [ -e "/run/netns/$1" ]; }
# Never `ip netns exec`: it mounts a fresh /sys, and the cgroup tree is gone for whatever runs below it.
in_netns() { local ns=$1; shift; nsenter "--net=/run/netns/$ns" "$@"; }
