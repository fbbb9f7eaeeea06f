# What the e2e tests share: sourced, not run.
set -uo pipefail
E2E=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
ROOT=$(dirname "$E2E")
. "$E2E/lab/release.sh"
NODEPREP=${NODEPREP_BIN:-${CARGO_TARGET_DIR:-$ROOT/target}/release/nodeprep}
WORK=$(mktemp -d "${TMPDIR:-/tmp}/nodeprep-e2e.XXXXXX")
# nodeprep finds nothing of this machine's user: TESTED runs it with a home and a state of its own
TESTED=(env HOME="$WORK/home" NODEPREP_STATE="$WORK/state")
mkdir -p "$WORK/home"
PASSED=0 FAILED=0
# what failed, to be told once more at the end
BROKEN=""

# ok NAME COMMAND...: the command succeeds
ok() {
  local name=$1; shift
  if "$@" > "$WORK/out" 2> "$WORK/err"; then pass "$name"; else fail "$name" "exit $?"; fi
}

# exits CODE NAME COMMAND...: the command exits with this code
exits() {
  local want=$1 name=$2 got=0; shift 2
  "$@" > "$WORK/out" 2> "$WORK/err" || got=$?
  if [ "$got" = "$want" ]; then pass "$name"; else fail "$name" "exit $got, not $want"; fi
}

# says PATTERN NAME: the last command's stdout or stderr matches the extended regular expression
says() {
  if grep -Eq -- "$1" "$WORK/out" "$WORK/err"; then pass "$2"; else fail "$2" "nothing matches: $1"; fi
}

# never PATTERN NAME: the last command printed nothing that matches
never() {
  if grep -Eq -- "$1" "$WORK/out" "$WORK/err"; then fail "$2" "printed: $1"; else pass "$2"; fi
}

# verdict CHECK WORD NAME: the JSON verdicts on stdout give this check this word
verdict() {
  local got; got=$(jq -r --arg id "$1" '[.checks[] | select(.id == $id) | .verdict] | unique | join(",")' < "$WORK/out" 2>/dev/null)
  if [ "$got" = "$2" ]; then pass "$3"; return; fi
  failed "$3" "$1 is '$got', not '$2'"
  say "$(jq -c --arg id "$1" '.checks[] | select(.id == $id)' < "$WORK/out" | sed 's/^/    | /')"
}

pass() { PASSED=$((PASSED + 1)); printf 'ok %4ds  %s\n' "$SECONDS" "$1"; }
failed() { FAILED=$((FAILED + 1)); say "$(printf 'FAILED %4ds  %s (%s)' "$SECONDS" "$1" "$2")"; }
say() { printf '%s\n' "$1"; BROKEN+=$1$'\n'; }
fail() { # fail NAME WHY: with what the last command printed
  failed "$1" "$2"
  say "$(sed 's/^/    | /' "$WORK/out" "$WORK/err" | tail -n 40)"
}

# same FILE FILE NAME
same() { if cmp -s "$1" "$2"; then pass "$3"; else fail "$3" "differs"; diff "$1" "$2" | head -10; fi; }

summary() {
  rm -rf "$WORK"
  printf '%s' "$BROKEN"
  printf '%s passed, %s failed\n' "$PASSED" "$FAILED"
  [ "$FAILED" = 0 ]
}
