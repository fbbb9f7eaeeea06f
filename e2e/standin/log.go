package main

import (
	"flag"

	"k8s.io/klog/v2"
)

// startLog logs to stderr and, as the original does, to files in the temporary directory, which is /tmp: where that can't be
// written, the first line ends the program.
func startLog() {
	klog.InitFlags(flag.CommandLine)
	_ = flag.Set("logtostderr", "false")
	_ = flag.Set("alsologtostderr", "true")
	flag.Parse()
	klog.Info("Starting Provisioner...")
}
