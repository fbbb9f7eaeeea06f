package main

import (
	"context"
	"errors"
	"fmt"
	"path"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/labels"
	typedcorev1 "k8s.io/client-go/kubernetes/typed/core/v1"
	"k8s.io/klog/v2"
	"sigs.k8s.io/sig-storage-lib-external-provisioner/v13/controller"
)

type provisioner struct {
	pods       typedcorev1.PodInterface
	nodes      typedcorev1.NodeInterface
	namespaces typedcorev1.NamespaceInterface
	account    string // the helper pods' service account
	image      string // the helper pods' image
	basePath   string // for classes that name none
	timeout    time.Duration
}

// name looks up what the original calls the cluster by, for each volume, also when its analytics are off. It goes on without.
func (p *provisioner) name(ctx context.Context) {
	if _, err := p.namespaces.Get(ctx, metav1.NamespaceDefault, metav1.GetOptions{}); err != nil {
		klog.Error(err)
	}
}

// SupportsBlock says yes so that a block claim gets the provisioner's own refusal.
func (p *provisioner) SupportsBlock(context.Context) bool { return true }

func (p *provisioner) Provision(ctx context.Context, o controller.ProvisionOptions) (*corev1.PersistentVolume, controller.ProvisioningState, error) {
	pv, err := p.provision(ctx, o)
	return pv, controller.ProvisioningFinished, err
}

func (p *provisioner) provision(ctx context.Context, o controller.ProvisionOptions) (*corev1.PersistentVolume, error) {
	if err := refuse(o.PVC); err != nil {
		return nil, err
	}
	if o.SelectedNodeName == "" {
		return nil, errors.New("configuration error, no node was specified")
	}
	node, err := p.nodes.Get(ctx, o.SelectedNodeName, metav1.GetOptions{})
	if err != nil {
		return nil, err
	}
	if node.Labels[corev1.LabelHostname] == "" {
		return nil, fmt.Errorf("configuration error, node{%s} hostname is empty", node.Name)
	}
	config, err := newVolumeConfig(o.StorageClass, o.PVC, p.basePath)
	if err != nil {
		return nil, err
	}
	p.name(ctx)
	kind := config["StorageType"].Value
	if mode := o.PVC.Spec.VolumeMode; mode != nil && *mode == corev1.PersistentVolumeBlock {
		return nil, fmt.Errorf("PV with BlockMode is not supported with StorageType %s", kind)
	}
	if kind != "hostpath" {
		return nil, fmt.Errorf("PV with StorageType %s is not supported", kind)
	}
	base, err := config.directory()
	if err != nil {
		return nil, err
	}
	affinity, err := affinityTo(node, config.affinityLabels())
	if err != nil {
		return nil, err
	}
	request := o.PVC.Spec.Resources.Requests[corev1.ResourceStorage]
	h := helper{volume: o.PVName, base: base, affinity: affinity, node: node}
	if err := p.run(ctx, h, "init", "create process", "mkdir", "-m", "0777", "-p", h.directory()); err != nil {
		return nil, err
	}
	if config.quota() {
		if err := p.run(ctx, h, "quota", "create process", "sh", "-c", quotaScript, "quota", h.directory(), fmt.Sprint(request.Value())); err != nil {
			return nil, err
		}
	}
	return volume(o, h, request), nil
}

// refuse names what a hostpath volume cannot be, in the order and the words of the original.
func refuse(claim *corev1.PersistentVolumeClaim) error {
	if s := claim.Spec.DataSource; s != nil {
		group := ""
		if s.APIGroup != nil {
			group = *s.APIGroup
		}
		switch {
		case s.Name == "":
			return fmt.Errorf("dataSource name not found for PVC `%s`", claim.Name)
		case s.Kind == "VolumeSnapshot" && group != "snapshot.storage.k8s.io":
			return errors.New("snapshot feature not supported by this provisioner")
		case s.Kind == "PersistentVolumeClaim":
			return errors.New("clone feature not supported by this provisioner")
		}
		return fmt.Errorf("datasource `%s` of group `%s` is not handled by the provisioner", s.Kind, group)
	}
	if claim.Spec.Selector != nil {
		return errors.New("claim.Spec.Selector is not supported")
	}
	for _, mode := range claim.Spec.AccessModes {
		if mode != corev1.ReadWriteOnce {
			return errors.New("Only support ReadWriteOnce access mode") //nolint:staticcheck // the original's words
		}
	}
	return nil
}

func affinityTo(node *corev1.Node, keys []string) (*corev1.NodeSelector, error) {
	var terms []corev1.NodeSelectorRequirement
	for _, key := range keys {
		value, ok := node.Labels[key]
		if !ok {
			return nil, fmt.Errorf("configuration error, node{%s} has no label %s", node.Name, key)
		}
		terms = append(terms, corev1.NodeSelectorRequirement{Key: key, Operator: corev1.NodeSelectorOpIn, Values: []string{value}})
	}
	return &corev1.NodeSelector{NodeSelectorTerms: []corev1.NodeSelectorTerm{{MatchExpressions: terms}}}, nil
}

func volume(o controller.ProvisionOptions, h helper, request quantity) *corev1.PersistentVolume {
	mode := corev1.PersistentVolumeFilesystem
	return &corev1.PersistentVolume{
		ObjectMeta: metav1.ObjectMeta{Name: o.PVName, Labels: map[string]string{"openebs.io/cas-type": "local-hostpath"}},
		Spec: corev1.PersistentVolumeSpec{
			Capacity:                      corev1.ResourceList{corev1.ResourceStorage: request},
			AccessModes:                   o.PVC.Spec.AccessModes,
			PersistentVolumeReclaimPolicy: *o.StorageClass.ReclaimPolicy,
			VolumeMode:                    &mode,
			NodeAffinity:                  &corev1.VolumeNodeAffinity{Required: h.affinity},
			PersistentVolumeSource: corev1.PersistentVolumeSource{
				Local: &corev1.LocalVolumeSource{Path: path.Join(h.base, o.PVName)},
			},
		},
	}
}

// Delete removes the volume's directory on the node its labels point to.
func (p *provisioner) Delete(ctx context.Context, pv *corev1.PersistentVolume) error {
	if err := p.remove(ctx, pv); err != nil {
		return fmt.Errorf("failed to delete volume %s: %w", pv.Name, err)
	}
	return nil
}

func (p *provisioner) remove(ctx context.Context, pv *corev1.PersistentVolume) error {
	p.name(ctx)
	if pv.Spec.Local == nil || pv.Spec.NodeAffinity == nil || len(pv.Spec.NodeAffinity.Required.NodeSelectorTerms) == 0 {
		return errors.New("not a local volume with node affinity")
	}
	want := labels.Set{}
	for _, term := range pv.Spec.NodeAffinity.Required.NodeSelectorTerms[0].MatchExpressions {
		if len(term.Values) > 0 {
			want[term.Key] = term.Values[0]
		}
	}
	nodes, err := p.nodes.List(ctx, metav1.ListOptions{LabelSelector: want.String()})
	if err != nil {
		return err
	}
	switch len(nodes.Items) {
	case 0:
		return fmt.Errorf("Unable to get the Node with the Node Labels {%s}", want) //nolint:staticcheck // the original's words
	case 1:
	default:
		return fmt.Errorf("Unable to determine the Node. Found multiple nodes matching the labels {%s}", want) //nolint:staticcheck
	}
	h := helper{volume: pv.Name, base: path.Dir(pv.Spec.Local.Path), affinity: pv.Spec.NodeAffinity.Required, node: &nodes.Items[0]}
	if err := p.run(ctx, h, "cleanup", "clean up process", "rm", "-rf", h.directory()); err != nil {
		return fmt.Errorf("clean up volume %s failed: %w", pv.Name, err)
	}
	return nil
}
