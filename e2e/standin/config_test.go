package main

import (
	"net/http/httptest"
	"sync/atomic"
	"testing"

	corev1 "k8s.io/api/core/v1"
	storagev1 "k8s.io/api/storage/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

func annotated(config string) metav1.ObjectMeta {
	return metav1.ObjectMeta{Annotations: map[string]string{configAnnotation: config}}
}

func TestTheClassDecidesWhereVolumesGo(t *testing.T) {
	for name, c := range map[string]struct{ class, claim, want string }{
		"no annotation: the provisioner's own":   {"", "", "/var/openebs/local"},
		"the class names a base path":            {"- {name: BasePath, value: /var/mnt/openebs}", "", "/var/mnt/openebs"},
		"a claim cannot move it":                 {"", "- {name: BasePath, value: /etc/kubernetes}", "/var/openebs/local"},
		"a base directly below / is refused":     {"- {name: BasePath, value: /openebs}", "", ""},
		"a path with dots is looked at resolved": {"- {name: BasePath, value: /var/../openebs}", "", ""},
		"a relative path is refused":             {"- {name: BasePath, value: openebs/x}", "", ""},
	} {
		class := &storagev1.StorageClass{ObjectMeta: annotated(c.class)}
		claim := &corev1.PersistentVolumeClaim{ObjectMeta: annotated(c.claim)}
		config, err := newVolumeConfig(class, claim, "/var/openebs/local")
		if err != nil {
			t.Fatalf("%s: %v", name, err)
		}
		if got, err := config.directory(); got != c.want || (err == nil) != (c.want != "") {
			t.Errorf("%s: got %q, %v", name, got, err)
		}
	}
}

func TestAnUnreadableAnnotationIsAnError(t *testing.T) {
	class := &storagev1.StorageClass{ObjectMeta: annotated("{")}
	if _, err := newVolumeConfig(class, &corev1.PersistentVolumeClaim{}, "/x/y"); err == nil {
		t.Error("accepted")
	}
}

func TestWhatAHostpathVolumeCannotBeIsRefusedInTheOriginalsWords(t *testing.T) {
	for want, spec := range map[string]corev1.PersistentVolumeClaimSpec{
		"Only support ReadWriteOnce access mode":             {AccessModes: []corev1.PersistentVolumeAccessMode{corev1.ReadWriteOnce, corev1.ReadWriteMany}},
		"claim.Spec.Selector is not supported":               {Selector: &metav1.LabelSelector{}},
		"snapshot feature not supported by this provisioner": {DataSource: &corev1.TypedLocalObjectReference{Kind: "VolumeSnapshot", Name: "s"}},
		"clone feature not supported by this provisioner":    {DataSource: &corev1.TypedLocalObjectReference{Kind: "PersistentVolumeClaim", Name: "c"}},
		"datasource `VolumeSnapshot` of group `snapshot.storage.k8s.io` is not handled by the provisioner": {
			DataSource: &corev1.TypedLocalObjectReference{APIGroup: ptr("snapshot.storage.k8s.io"), Kind: "VolumeSnapshot", Name: "s"}},
	} {
		if err := refuse(&corev1.PersistentVolumeClaim{Spec: spec}); err == nil || err.Error() != want {
			t.Errorf("wanted %q, got %v", want, err)
		}
	}
	if err := refuse(&corev1.PersistentVolumeClaim{Spec: corev1.PersistentVolumeClaimSpec{AccessModes: []corev1.PersistentVolumeAccessMode{corev1.ReadWriteOnce}}}); err != nil {
		t.Error(err)
	}
}

func ptr(text string) *string { return &text }

func TestReadyIsSaidOnceTheClaimsAreKnown(t *testing.T) {
	var synced atomic.Bool
	handler := health(synced.Load)
	said := func(path string) int {
		answer := httptest.NewRecorder()
		handler.ServeHTTP(answer, httptest.NewRequest("GET", path, nil))
		return answer.Code
	}
	if live, ready := said("/healthz"), said("/readyz"); live != 200 || ready != 503 {
		t.Errorf("before: %d, %d", live, ready)
	}
	synced.Store(true)
	if ready := said("/readyz"); ready != 200 {
		t.Errorf("after: %d", ready)
	}
}
