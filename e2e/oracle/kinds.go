package main

import (
	"strings"

	"github.com/siderolabs/talos/pkg/machinery/config/configloader"
)

// registered are those of the kinds that this Talos has a document for.
func registered(kinds []string) []string {
	found := []string{}
	for _, kind := range kinds {
		_, err := configloader.NewFromBytes([]byte("apiVersion: v1alpha1\nkind: " + kind + "\n"))
		if err == nil || !strings.Contains(err.Error(), "not registered") {
			found = append(found, kind)
		}
	}
	return found
}
