// openebs-standin keeps the contract of the OpenEBS LocalPV hostpath provisioner (openebs.io/local, 4.0) where the real image
// cannot be had: the same StorageClass annotation, helper pods, PersistentVolumes, refusals and error texts. It is a test double,
// and its image is called so (nodeprep/openebs-standin) in order that nobody takes it for the real one.
package main

import (
	"context"
	"fmt"
	"os"
	"strconv"

	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/rest"
	"k8s.io/client-go/tools/clientcmd"
	"sigs.k8s.io/sig-storage-lib-external-provisioner/v13/controller"
)

const provisionerName = "openebs.io/local"

func main() {
	if err := run(context.Background()); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}

func run(ctx context.Context) error {
	namespace := os.Getenv("OPENEBS_NAMESPACE")
	if namespace == "" {
		return fmt.Errorf("OPENEBS_NAMESPACE is not set")
	}
	leaderElection, err := strconv.ParseBool(env("LEADER_ELECTION_ENABLED", "true"))
	if err != nil {
		return fmt.Errorf("LEADER_ELECTION_ENABLED: %w", err)
	}
	config, err := clientConfig()
	if err != nil {
		return err
	}
	client, err := kubernetes.NewForConfig(config)
	if err != nil {
		return err
	}
	p := &provisioner{
		pods:     client.CoreV1().Pods(namespace),
		nodes:    client.CoreV1().Nodes(),
		account:  os.Getenv("OPENEBS_SERVICE_ACCOUNT"),
		image:    env("OPENEBS_IO_HELPER_IMAGE", "docker.io/openebs/linux-utils:4.0.0"),
		basePath: env("OPENEBS_IO_BASE_PATH", "/var/openebs/local"),
	}
	// With several replicas, or as a DaemonSet, the lease openebs.io-local lets only one act.
	controller.NewProvisionController(ctx, client, provisionerName, p,
		controller.LeaderElection(leaderElection), controller.LeaderElectionNamespace(namespace)).Run(ctx)
	return nil
}

// clientConfig is the pod's own unless OPENEBS_IO_KUBE_CONFIG or OPENEBS_IO_K8S_MASTER say otherwise.
func clientConfig() (*rest.Config, error) {
	file, master := os.Getenv("OPENEBS_IO_KUBE_CONFIG"), os.Getenv("OPENEBS_IO_K8S_MASTER")
	if file == "" && master == "" {
		return rest.InClusterConfig()
	}
	return clientcmd.BuildConfigFromFlags(master, file)
}

func env(name, otherwise string) string {
	if v := os.Getenv(name); v != "" {
		return v
	}
	return otherwise
}
