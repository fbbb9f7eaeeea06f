package main

import (
	"github.com/siderolabs/talos/pkg/machinery/config/types/block"
	yaml "gopkg.in/yaml.v3"
)

// size is what Talos makes of a text as minSize, or as maxSize. Bytes is missing where it is a part of something.
type size struct {
	Error    string  `json:"error,omitempty"`
	Bytes    *uint64 `json:"bytes,omitempty"`
	Percent  *uint64 `json:"percent,omitempty"`
	Negative bool    `json:"negative,omitempty"`
}

// sizes asks for every text of a list, in both places.
func sizes(path string) (any, error) {
	var texts []string
	if err := readJSON(path, &texts); err != nil {
		return nil, err
	}
	out := map[string]map[string]size{}
	for _, text := range texts {
		out[text] = map[string]size{"minSize": sizeAs("minSize", text), "maxSize": sizeAs("maxSize", text)}
	}
	return out, nil
}

func sizeAs(key, text string) size {
	document, err := yaml.Marshal(map[string]string{key: text})
	if err != nil {
		return size{Error: err.Error()}
	}
	var spec block.ProvisioningSpec
	if err := yaml.Unmarshal(document, &spec); err != nil {
		return size{Error: err.Error()}
	}
	var value any = spec.ProvisioningMinSize
	if key == "maxSize" {
		value = spec.ProvisioningMaxSize
	}
	var out size
	if signed, ok := value.(interface{ IsNegative() bool }); ok {
		out.Negative = signed.IsNegative()
	}
	if relative, ok := value.(interface{ RelativeValue() (uint64, bool) }); ok {
		if percent, ok := relative.RelativeValue(); ok {
			out.Percent = &percent
			return out
		}
	}
	bytes := value.(interface{ Value() uint64 }).Value()
	out.Bytes = &bytes
	return out
}
