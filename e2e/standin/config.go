package main

import (
	"fmt"
	"path"
	"strings"

	corev1 "k8s.io/api/core/v1"
	storagev1 "k8s.io/api/storage/v1"
	"sigs.k8s.io/yaml"
)

const configAnnotation = "cas.openebs.io/config"

// item is one entry of the YAML list in the annotation cas.openebs.io/config.
type item struct {
	Name    string            `json:"name"`
	Value   string            `json:"value"`
	Enabled string            `json:"enabled"`
	List    []string          `json:"list"`
	Data    map[string]string `json:"data"`
}

// volumeConfig is what the class says, and below it what the claim says.
type volumeConfig map[string]item

func newVolumeConfig(class *storagev1.StorageClass, claim *corev1.PersistentVolumeClaim, basePath string) (volumeConfig, error) {
	c := volumeConfig{"StorageType": {Value: "hostpath"}, "BasePath": {Value: basePath}}
	for _, source := range []struct {
		what        string
		annotations map[string]string
		trusted     bool
	}{{"PersistentVolumeClaim", claim.Annotations, false}, {"StorageClass", class.Annotations, true}} {
		var items []item
		if err := yaml.Unmarshal([]byte(source.annotations[configAnnotation]), &items); err != nil {
			return nil, fmt.Errorf("failed to read the annotation %s of the %s: %w", configAnnotation, source.what, err)
		}
		for _, i := range items {
			i.Name, i.Value = strings.TrimSpace(i.Name), strings.TrimSpace(i.Value)
			if i.Name == "BasePath" && !source.trusted {
				continue // a claim does not choose where on the node it writes
			}
			c[i.Name] = i
		}
	}
	return c, nil
}

// directory is where the volume's directory is made. A base directly below / is refused.
func (c volumeConfig) directory() (string, error) {
	base := c["BasePath"].Value
	if !path.IsAbs(base) {
		return "", fmt.Errorf("base path %q is not absolute", base)
	}
	base = path.Clean(base)
	if path.Dir(base) == "/" {
		return "", fmt.Errorf("volume directory {%s} should not be under root directory", base)
	}
	return base, nil
}

// affinityLabels are the node labels that bind the volume to its node.
func (c volumeConfig) affinityLabels() []string {
	if l := c["NodeAffinityLabels"].List; len(l) > 0 {
		return l
	}
	if l := c["NodeAffinityLabel"].Value; l != "" {
		return []string{l}
	}
	return []string{corev1.LabelHostname}
}

// quota says whether the volume's directory gets an XFS project quota of the requested size.
func (c volumeConfig) quota() bool { return strings.EqualFold(c["XFSQuota"].Enabled, "true") }
