# What the tests on the lab's Kubernetes share: sourced after lib.sh, not run. Brings the lab up, makes the secrets and writes the file.
OWN=${E2E_KUBECONFIG:+$(realpath "$E2E_KUBECONFIG")} OPENEBS_ARCHIVE=${OPENEBS_ARCHIVE:+$(realpath "$OPENEBS_ARCHIVE")}
lab() { if [ -n "$OWN" ]; then KUBECONFIG=$OWN "$@"; else "$E2E/lab/kube" exec "$@"; fi; }
np() { lab "${TESTED[@]}" SOPS_AGE_KEY_FILE="$WORK/age.key" "$NODEPREP" --progress plain "$@"; }
k() { lab kubectl "$@"; }

"$E2E/lab/build" sops || exit 1
cd "$WORK"
images=
if [ -z "$OWN" ]; then
  "$E2E/lab/kube" up || exit 1
  k apply -f "$E2E/lab/local-path.yaml" > /dev/null 2>&1 || exit 1
  provisioner=docker.io/nodeprep/openebs-standin:4.6.0
  if [ -n "$OPENEBS_ARCHIVE" ]; then
    loaded=$(python3 "$E2E/lab/load.py" "$OPENEBS_ARCHIVE" "$LAB/registry") || exit 1
    provisioner=$(grep -m1 provisioner-localpv <<< "$loaded") || { echo "no provisioner-localpv in $OPENEBS_ARCHIVE"; exit 1; }
  fi
  images="images:
  provisioner: $provisioner
  helper: docker.io/openebs/linux-utils:4.6.0
  velero: docker.io/velero/velero:v1.18.3
  veleroPlugin: docker.io/velero/velero-plugin-for-aws:v1.14.3
  shell: docker.io/library/busybox:1.36
  fio: docker.io/nodeprep/fio:3.33"
fi
# Every node is tainted as Talos taints its control planes: all that is installed and tried has to run there all the same.
[ -n "$OWN" ] || ok "the nodes are tainted as control planes" k taint nodes --all node-role.kubernetes.io/control-plane:NoSchedule --overwrite
# which provisioner the verdicts speak of
case $images in *openebs-standin*) real="OpenEBS stand-in" ;; *) real="OpenEBS" ;; esac
S3_URL=${E2E_S3_URL:-http://10.88.0.1:7070} S3_BUCKET=${E2E_S3_BUCKET:-velero}
S3_KEY=${E2E_S3_KEY:-labaccess} S3_SECRET=${E2E_S3_SECRET:-labsecretlabsecret}

# secrets: made by nodeprep, read by the real sops, and the reverse
secret() { # secret ACCESS_KEY SECRET_KEY: the two Secrets in plaintext, on stdout
  printf 'apiVersion: v1\nkind: Secret\nmetadata:\n  name: cloud-credentials\nstringData:\n  cloud: |\n    [default]\n'
  printf '    aws_access_key_id=%s\n    aws_secret_access_key=%s\n' "$1" "$2"
  printf -- '---\napiVersion: v1\nkind: Secret\nmetadata:\n  name: velero-repo-credentials\nstringData:\n  repository-password: e2e-%s\n' "repository"
}
encrypt() { "$NODEPREP" secrets encrypt --age "$(cat age.pub)" --encrypted-regex '^(data|stringData)$' --input-type yaml; }
ok "secrets keygen" "$NODEPREP" secrets keygen -o age.key
grep -oE 'age1[0-9a-z]+' age.key | head -1 > age.pub
ok "the key is for its owner only" test "$(stat -c %a age.key)" = 600
secret "$S3_KEY" "$S3_SECRET" | encrypt > velero.sops.yaml
ok "secrets encrypt" test -s velero.sops.yaml
ok "the real sops reads what nodeprep wrote" env SOPS_AGE_KEY_FILE=age.key "$LAB/bin/sops" decrypt velero.sops.yaml
says "aws_access_key_id=$S3_KEY" "and finds the secret in it"
openebs='openebs: {namespace: openebs, workload: Deployment}'
daemonset='openebs: {namespace: openebs, workload: DaemonSet}'
localpath='external: {name: rancher.io/local-path, namespace: local-path-storage, selector: {app: local-path-provisioner}}'
file() { # file PROVISIONER CLASS [SECRETS]
  cat > nodeprep.yaml <<Y
apiVersion: nodeprep.dev/v1alpha1
kind: Cluster
metadata: {name: e2e}
provisioner:
  $1
classes:
  - name: $2
    basePath: /var/mnt/openebs
$images
backup:
  location: {bucket: $S3_BUCKET, region: us-east-1, url: "$S3_URL", pathStyle: true}
  secrets: [${3:-velero.sops.yaml}]
  schedules:
    - {name: daily-backup, cron: 0 2 * * *, ttl: 720h, namespaces: [database, default, e2e-data]}
validation:
  claimSize: 256Mi
  pendingFor: 10s
  timeout: 90s
  fio: {size: 64MiB, runtime: 5s}
Y
}
