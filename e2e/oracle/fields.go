package main

import (
	"encoding"
	"fmt"
	"reflect"
	"strings"
	"time"

	"github.com/siderolabs/talos/pkg/machinery/config/configloader"

	docs "github.com/siderolabs/talos/pkg/machinery/config/config"
)

// table says how every field of the asked kinds is merged; crates/core/src/config_doc/fields.rs explains the notation.
type table struct {
	Kinds map[string]string            `json:"kinds"`
	Named []string                     `json:"named"`
	Types map[string]map[string]string `json:"types"`
}

var (
	mergerType   = reflect.TypeFor[interface{ Merge(any) error }]()
	textType     = reflect.TypeFor[encoding.TextUnmarshaler]()
	durationType = reflect.TypeFor[time.Duration]()
)

// byName are the types whose own code reads or merges them; what a name stands for is in fields.rs.
var byName = map[string]string{
	"v1alpha1.NetworkDeviceList":         "[interface|deviceSelector]*v1alpha1.Device",
	"v1alpha1.AdmissionPluginConfigList": "[name]*v1alpha1.AdmissionPluginConfig",
	"v1alpha1.VlanList":                  "[vlanId]*v1alpha1.Vlan",
	"extensions.ConfigFileList":          "[mountPath]extensions.ConfigFile",
	"security.ImageVerificationRules":    "[image=]security.ImageVerificationRuleV1Alpha1",
	"v1alpha1.Args":                      "args",
	"meta.Args":                          "args",
	"v1alpha1.Unstructured":              "{}any",
	"meta.Unstructured":                  "{}any",
	"meta.Addr":                          "text:",
	"meta.AddrPort":                      "text:",
	"meta.Prefix":                        "text:",
	"v1alpha1.Endpoint":                  "url",
	"meta.URL":                           "url",
	"v1alpha1.InstallDiskSizeMatcher":    "closed",
	"v1alpha1.DiskSize":                  "number",
	"v1alpha1.FileMode":                  "number",
	"v1alpha1.ClusterInlineManifests":    "[]v1alpha1.ClusterInlineManifest",
	"cel.Expression":                     "over",
	"block.ByteSize":                     "over",
	"block.PercentageSize":               "over",
	"block.Size":                         "size",
	"network.PortRange":                  "closed",
	"yamlutils.StringBytes":              "string",
	"x509.PEMEncodedCertificateAndKey":   "x509.CertificateAndKey",
	"x509.PEMEncodedCertificate":         "x509.Certificate",
	"x509.PEMEncodedKey":                 "x509.Key",
}

func fields(kinds []string) table {
	out := table{Kinds: map[string]string{}, Types: map[string]map[string]string{
		"x509.CertificateAndKey": {"crt": "over", "key": "over"},
		"x509.Certificate":       {"crt": "over"},
		"x509.Key":               {"key": "over"},
	}}
	for _, kind := range kinds {
		text := "apiVersion: v1alpha1\nkind: " + kind + "\n"
		if kind == "v1alpha1" {
			text = "version: v1alpha1\nmachine: {}\n"
		}
		cfg, err := configloader.NewFromBytes([]byte(text))
		if err != nil || len(cfg.Documents()) != 1 {
			continue // this version has no such kind
		}
		document := cfg.Documents()[0]
		if _, named := document.(docs.NamedDocument); named {
			out.Named = append(out.Named, kind)
		}
		out.Kinds[kind] = out.rule(reflect.TypeOf(document).Elem())
	}
	return out
}

func (t table) rule(of reflect.Type) string {
	name := of.String()
	if rule, ok := byName[name]; ok {
		t.below(rule, of)
		return rule
	}
	if reflect.PointerTo(of).Implements(mergerType) {
		panic("no rule is known for " + name + ", which merges itself")
	}
	if of == durationType {
		return "number"
	}
	if reflect.PointerTo(of).Implements(textType) && of.Kind() != reflect.Pointer {
		return t.text(of)
	}
	switch of.Kind() {
	case reflect.String:
		return "string"
	case reflect.Bool:
		return "bool"
	case reflect.Interface:
		return "any"
	case reflect.Pointer:
		return "*" + t.rule(of.Elem())
	case reflect.Map:
		return "{}" + t.rule(of.Elem())
	case reflect.Slice:
		if of.Elem().Kind() == reflect.Uint8 {
			return "string"
		}
		return "[]" + t.rule(of.Elem())
	case reflect.Struct:
		if _, custom := reflect.PointerTo(of).MethodByName("UnmarshalYAML"); custom {
			panic("no rule is known for " + name + ", which reads itself")
		}
		t.structure(name, of)
		return name
	case reflect.Array, reflect.Chan, reflect.Func, reflect.UnsafePointer, reflect.Complex64, reflect.Complex128, reflect.Invalid:
		panic("no rule is known for " + name)
	}
	return "number"
}

// text is a scalar with texts of its own; the text of its zero value changes nothing when it is merged.
func (t table) text(of reflect.Type) string {
	if of.Kind() == reflect.Struct {
		return "closed" // fields that reflection can't set: Talos fails
	}
	if marshaler, ok := reflect.New(of).Interface().(encoding.TextMarshaler); ok {
		if zero, err := marshaler.MarshalText(); err == nil && !strings.Contains(string(zero), "(") {
			return "text:" + string(zero)
		}
	}
	return "text:"
}

// below fills in the types that a rule by name refers to.
func (t table) below(rule string, of reflect.Type) {
	if of.Kind() == reflect.Slice && strings.HasPrefix(rule, "[") {
		elem := of.Elem()
		if elem.Kind() == reflect.Pointer {
			elem = elem.Elem()
		}
		t.rule(elem)
	}
}

func (t table) structure(name string, of reflect.Type) {
	if _, done := t.Types[name]; done {
		return
	}
	t.Types[name] = map[string]string{}
	for i := range of.NumField() {
		field := of.Field(i)
		tag := strings.Split(field.Tag.Get("yaml"), ",")
		switch {
		case tag[0] == "-":
		case len(tag) > 1 && tag[1] == "inline":
			t.inline(name, field.Type)
		case tag[0] == "":
			panic(fmt.Sprintf("field %s.%s has no name", name, field.Name))
		default:
			rule := t.rule(field.Type)
			if strings.Contains(field.Tag.Get("merge"), "replace") {
				rule = "=" + rule
			}
			t.Types[name][tag[0]] = rule
		}
	}
}

func (t table) inline(name string, of reflect.Type) {
	if of.Kind() == reflect.Pointer {
		of = of.Elem()
	}
	t.structure(of.String(), of)
	for field, rule := range t.Types[of.String()] {
		t.Types[name][field] = rule
	}
}
