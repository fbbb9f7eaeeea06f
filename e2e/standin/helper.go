package main

import (
	"context"
	"fmt"
	"time"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

type quantity = resource.Quantity

// quotaScript gives the directory $1 an XFS project of its own with a hard limit of $2 bytes.
const quotaScript = `set -eu
id=$(xfs_quota -x -c 'report -p -N' /data | awk '/^#/ { i = substr($1, 2) + 0; if (i > m) m = i } END { print m + 1 }')
xfs_quota -x -c "project -s -p $1 $id" /data
xfs_quota -x -c "limit -p bsoft=$2 bhard=$2 $id" /data
xfs_quota -x -c 'state -p' /data | grep -q 'Enforcement: ON'`

// helper is the pod that works on a volume's directory from the node itself.
type helper struct {
	volume, base string
	affinity     *corev1.NodeSelector
	node         *corev1.Node
}

func (h helper) directory() string { return "/data/" + h.volume }

// run starts the pod PREFIX-VOLUME and waits until it succeeded. As with the original, a pod that failed is not told from one
// that is still busy: both end in the timeout. The base path is mounted without a type, so a missing directory is made.
func (p *provisioner) run(ctx context.Context, h helper, prefix, what string, command ...string) error {
	privileged, name := true, prefix+"-"+h.volume
	pod := &corev1.Pod{
		ObjectMeta: metav1.ObjectMeta{Name: name},
		Spec: corev1.PodSpec{
			RestartPolicy:      corev1.RestartPolicyNever,
			ServiceAccountName: p.account,
			Affinity:           &corev1.Affinity{NodeAffinity: &corev1.NodeAffinity{RequiredDuringSchedulingIgnoredDuringExecution: h.affinity}},
			Tolerations:        tolerations(h.node),
			Containers: []corev1.Container{{
				Name:            "local-path-" + prefix,
				Image:           p.image,
				ImagePullPolicy: corev1.PullIfNotPresent,
				Command:         command,
				SecurityContext: &corev1.SecurityContext{Privileged: &privileged},
				VolumeMounts:    []corev1.VolumeMount{{Name: "data", MountPath: "/data"}, {Name: "dev", MountPath: "/dev"}},
			}},
			Volumes: []corev1.Volume{hostPath("data", h.base), hostPath("dev", "/dev")},
		},
	}
	if _, err := p.pods.Create(ctx, pod, metav1.CreateOptions{}); err != nil {
		return err
	}
	defer func() { _ = p.pods.Delete(context.WithoutCancel(ctx), name, metav1.DeleteOptions{}) }()
	for end := time.Now().Add(p.timeout); time.Now().Before(end); time.Sleep(time.Second) {
		if pod, err := p.pods.Get(ctx, name, metav1.GetOptions{}); err != nil {
			return err
		} else if pod.Status.Phase == corev1.PodSucceeded {
			return nil
		}
	}
	return fmt.Errorf("%s timeout after %d seconds", what, int(p.timeout.Seconds()))
}

func hostPath(name, path string) corev1.Volume {
	return corev1.Volume{Name: name, VolumeSource: corev1.VolumeSource{HostPath: &corev1.HostPathVolumeSource{Path: path}}}
}

// tolerations let the helper run wherever the consumer was allowed to.
func tolerations(node *corev1.Node) []corev1.Toleration {
	var all []corev1.Toleration
	for _, t := range node.Spec.Taints {
		all = append(all, corev1.Toleration{Key: t.Key, Operator: corev1.TolerationOpEqual, Value: t.Value, Effect: t.Effect})
	}
	return all
}
