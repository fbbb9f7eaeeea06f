# What the tests on a real Talos share: sourced after lib.sh, not run.
NODE=10.5.0.11
lab() { "$E2E/lab/talos" exec "$@"; }
np() { lab "${TESTED[@]}" "$NODEPREP" --progress plain "$@"; }
up() { "$E2E/lab/talos" up || exit 1; }
power_cut() { "$E2E/lab/talos" stop; up; }

# The disk's name of this boot, as talosctl tells it.
name() { lab talosctl get disks -o json | jq -r --arg s "$1" 'select(.spec.serial == $s).metadata.id'; }
# eventually SECONDS COMMAND...: repeats the command until it succeeds; the lab's patience counts here too
eventually() {
  local end=$((SECONDS + $1 * ${NODEPREP_LAB_PATIENCE:-1})); shift
  until "$@"; do [ $SECONDS -lt $end ] || return 1; sleep 2; done
}
# shell: runs the script on stdin on the node, by the lab's extension service; its output is in the service's log
shell() {
  { printf '%s\n' 'apiVersion: v1alpha1' 'kind: ExtensionServiceConfig' 'name: shell' 'configFiles:' '  - mountPath: /script' '    content: |'
    sed 's/^/      /'; } > "$WORK/shell.yaml"
  lab talosctl patch machineconfig --mode no-reboot --patch "@$WORK/shell.yaml"
}
shell_log() {
  lab talosctl logs ext-shell > "$WORK/log" && cat "$WORK/log"
  grep -q 'the script ends' "$WORK/log" && return
  # before 1.14 a service that has ended is not always begun again by its document
  lab talosctl service ext-shell | grep -q 'STATE *Finished' && lab talosctl service ext-shell restart
  return 1
}
# ready NAME: the volume with this id is ready; its status is in the file `volume`
ready() { lab talosctl get volumestatus "$1" -o json > "$WORK/volume" && jq -e '.spec.phase == "ready"' "$WORK/volume"; }
