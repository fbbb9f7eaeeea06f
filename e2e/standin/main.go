// openebs-standin keeps the contract of the OpenEBS LocalPV hostpath provisioner (openebs.io/local, 4.6) where the real image
// cannot be had: the same StorageClass annotation, helper pods, PersistentVolumes, refusals and error texts. It is a test double,
// and its image is called so (nodeprep/openebs-standin) in order that nobody takes it for the real one.
package main

import (
	"context"
	"fmt"
	"os"
	"os/signal"
	"strings"
	"syscall"

	"k8s.io/client-go/informers"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/rest"
	"k8s.io/client-go/tools/clientcmd"
	"k8s.io/klog/v2"
	"sigs.k8s.io/sig-storage-lib-external-provisioner/v13/controller"
)

const provisionerName = "openebs.io/local"

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	startLog()
	if err := run(ctx); err != nil {
		klog.Exit(err)
	}
	klog.Flush()
}

func run(ctx context.Context) error {
	namespace := os.Getenv("OPENEBS_NAMESPACE")
	if namespace == "" {
		return fmt.Errorf("OPENEBS_NAMESPACE is not set")
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
		pods:       client.CoreV1().Pods(namespace),
		nodes:      client.CoreV1().Nodes(),
		namespaces: client.CoreV1().Namespaces(),
		account:    os.Getenv("OPENEBS_SERVICE_ACCOUNT"),
		image:      env("OPENEBS_IO_HELPER_IMAGE", "openebs/linux-utils:latest"),
		basePath:   env("OPENEBS_IO_BASE_PATH", "/var/openebs/local"),
		timeout:    helperTimeout(),
	}
	// Its own informer, so that readiness can tell whether the claims are known, of those that stand by as well.
	factory := informers.NewSharedInformerFactory(client, controller.DefaultResyncPeriod)
	claims := factory.Core().V1().PersistentVolumeClaims().Informer()
	serveHealth(ctx, env("OPENEBS_IO_HEALTH_PROBE_BIND_ADDRESS", ":8081"), claims.HasSynced)
	// With several replicas, or as a DaemonSet, the lease openebs.io-local lets only one act.
	c := controller.NewProvisionController(ctx, client, provisionerName, p,
		controller.LeaderElection(leads()), controller.LeaderElectionNamespace(namespace),
		controller.Threadiness(threads()), controller.ClaimsInformer(claims))
	factory.Start(ctx.Done())
	c.Run(ctx)
	return nil
}

// leads says whether a leader is elected: unless the word is one of these.
func leads() bool {
	switch strings.ToLower(os.Getenv("LEADER_ELECTION_ENABLED")) {
	case "n", "no", "false":
		return false
	}
	return true
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
