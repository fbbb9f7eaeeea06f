package main

import (
	"encoding/json"
	"os"
	"path/filepath"

	"google.golang.org/protobuf/encoding/protojson"

	"github.com/siderolabs/talos/pkg/machinery/api/resource/definitions/block"
	"github.com/siderolabs/talos/pkg/machinery/cel"
	"github.com/siderolabs/talos/pkg/machinery/cel/celenv"
)

type verdict struct {
	Accepted bool   `json:"accepted"`
	Error    string `json:"error"`
	// Matches are the ids of the disks for which the selector is true.
	Matches []string `json:"matches"`
	// Failed are the disks on which evaluating it fails, with the error.
	Failed map[string]string `json:"failed,omitempty"`
}

type disk struct {
	id     string
	spec   *block.DiskSpec
	system *bool
}

// selectors checks every expression in the environment of a disk selector, and evaluates it over the disks.
func selectors(casesPath, disksPath string) (any, error) {
	var cases []struct{ Name, Expression string }
	if err := readJSON(casesPath, &cases); err != nil {
		return nil, err
	}
	disks, err := readDisks(disksPath)
	if err != nil {
		return nil, err
	}
	out := map[string]verdict{}
	for _, one := range cases {
		out[one.Name] = selector(one.Expression, disks)
	}
	return out, nil
}

func selector(text string, disks []disk) verdict {
	out := verdict{Matches: []string{}}
	expression, err := cel.ParseBooleanExpression(text, celenv.DiskLocator())
	if err != nil {
		out.Error = err.Error()
		return out
	}
	out.Accepted = true
	for _, one := range disks {
		context := map[string]any{"disk": one.spec}
		if one.system != nil {
			context["system_disk"] = *one.system
		}
		matches, err := expression.EvalBool(celenv.DiskLocator(), context)
		switch {
		case err != nil:
			if out.Failed == nil {
				out.Failed = map[string]string{}
			}
			out.Failed[one.id] = err.Error()
		case matches:
			out.Matches = append(out.Matches, one.id)
		}
	}
	return out
}

// readDisks takes a list of disks: Talos' DiskSpec fields, and beside them `id` (else the base of dev_path) and `system_disk`.
func readDisks(path string) ([]disk, error) {
	var raw []map[string]json.RawMessage
	if err := readJSON(path, &raw); err != nil {
		return nil, err
	}
	disks := make([]disk, 0, len(raw))
	for _, fields := range raw {
		var one disk
		for key, into := range map[string]any{"id": &one.id, "system_disk": &one.system} {
			if value, ok := fields[key]; ok {
				if err := json.Unmarshal(value, into); err != nil {
					return nil, err
				}
				delete(fields, key)
			}
		}
		if spec, ok := fields["spec"]; ok {
			fields = nil
			if err := json.Unmarshal(spec, &fields); err != nil {
				return nil, err
			}
		}
		text, err := json.Marshal(fields)
		if err != nil {
			return nil, err
		}
		one.spec = &block.DiskSpec{}
		// A field that this version of Talos has not got is no disk's fault.
		if err := (protojson.UnmarshalOptions{DiscardUnknown: true}).Unmarshal(text, one.spec); err != nil {
			return nil, err
		}
		if one.id == "" {
			one.id = filepath.Base(one.spec.GetDevPath())
		}
		disks = append(disks, one)
	}
	return disks, nil
}

func readJSON(path string, into any) error {
	text, err := os.ReadFile(path)
	if err != nil {
		return err
	}
	return json.Unmarshal(text, into)
}
