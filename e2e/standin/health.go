package main

import (
	"context"
	"fmt"
	"net/http"
	"os"
	"strconv"
	"time"

	"k8s.io/klog/v2"
)

// number is a setting that is a number of at least this much; a worse one, or none, is the default.
func number(name string, least, otherwise int) int {
	if n, err := strconv.Atoi(os.Getenv(name)); err == nil && n >= least {
		return n
	}
	return otherwise
}

func threads() int { return number("OPENEBS_IO_WORKER_THREADS", 2, 4) }

// helperTimeout is how long a helper pod may take.
func helperTimeout() time.Duration {
	return time.Duration(number("OPENEBS_IO_HELPER_POD_TIMEOUT_SECS", 1, 120)) * time.Second
}

// serveHealth answers /healthz as long as the program lives, and /readyz once the claims are known. An address that can't be
// had is only said, as with the original.
func serveHealth(ctx context.Context, address string, synced func() bool) {
	server := &http.Server{Addr: address, Handler: health(synced), ReadHeaderTimeout: 5 * time.Second}
	go func() {
		if err := server.ListenAndServe(); err != nil && err != http.ErrServerClosed {
			klog.ErrorS(err, "Health probe server failed", "address", address)
		}
	}()
	go func() { <-ctx.Done(); _ = server.Close() }()
}

func health(synced func() bool) http.Handler {
	answer := func(ok func() bool, why string) http.HandlerFunc {
		return func(w http.ResponseWriter, _ *http.Request) {
			if !ok() {
				http.Error(w, why, http.StatusServiceUnavailable)
				return
			}
			fmt.Fprintln(w, "ok")
		}
	}
	mux := http.NewServeMux()
	mux.Handle("/healthz", answer(func() bool { return true }, ""))
	mux.Handle("/readyz", answer(synced, "informer cache not synced"))
	return mux
}
