package main

import (
	"os"
	"path/filepath"
	"time"

	talos "github.com/siderolabs/talos/pkg/machinery/config"
	"github.com/siderolabs/talos/pkg/machinery/config/encoder"
	"github.com/siderolabs/talos/pkg/machinery/config/generate"
	"github.com/siderolabs/talos/pkg/machinery/config/generate/secrets"
	"github.com/siderolabs/talos/pkg/machinery/config/machine"
)

// generated writes what `talosctl gen config --with-examples=false` writes: controlplane.yaml, worker.yaml and talosconfig of a
// cluster whose secrets are made for it.
func generated(dir, version, kubernetes, endpoint string) error {
	contract, err := talos.ParseContractFromVersion(version)
	if err != nil {
		return err
	}
	bundle, err := secrets.NewBundle(secrets.NewFixedClock(time.Now()), contract)
	if err != nil {
		return err
	}
	input, err := generate.NewInput("home", endpoint, kubernetes,
		generate.WithVersionContract(contract),
		generate.WithSecretsBundle(bundle),
		generate.WithInstallDisk("/dev/sda"),
		generate.WithInstallImage("factory.talos.dev/metal-installer/376567988ad370138ad8b2698212367b8edcb69b5fd68c80be1f2ec7d603b4ba:"+version),
	)
	if err != nil {
		return err
	}
	for name, kind := range map[string]machine.Type{"controlplane.yaml": machine.TypeControlPlane, "worker.yaml": machine.TypeWorker} {
		config, err := input.Config(kind)
		if err != nil {
			return err
		}
		text, err := config.EncodeBytes(encoder.WithComments(encoder.CommentsDocs))
		if err != nil {
			return err
		}
		if err := os.WriteFile(filepath.Join(dir, name), text, 0o644); err != nil {
			return err
		}
	}
	config, err := input.Talosconfig()
	if err != nil {
		return err
	}
	return config.Save(filepath.Join(dir, "talosconfig"))
}
