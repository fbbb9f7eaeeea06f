package main

import (
	"bufio"
	"crypto/sha256"
	"encoding/json"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"reflect"

	"github.com/siderolabs/talos/pkg/machinery/config"
	"github.com/siderolabs/talos/pkg/machinery/config/configloader"
	"github.com/siderolabs/talos/pkg/machinery/config/configpatcher"
	"github.com/siderolabs/talos/pkg/machinery/config/encoder"
	yaml "gopkg.in/yaml.v3"

	docs "github.com/siderolabs/talos/pkg/machinery/config/config"
)

// answer is what Talos says of a config: its documents by apiVersion/kind/name, or why it refuses.
type answer struct {
	Documents map[string]any `json:"documents,omitempty"`
	Warnings  []string       `json:"warnings,omitempty"`
	Error     string         `json:"error,omitempty"`
	// Same is the SHA-256 of the given result, if Talos reads that as the same documents.
	Same string `json:"same,omitempty"`
}

// refused is an answer; Talos panics on some inputs, which is a refusal too.
func refused(out *answer) {
	if panicked := recover(); panicked != nil {
		*out = answer{Error: fmt.Sprintf("panic: %v", panicked)}
	}
}

func load(text string) (out answer) {
	defer refused(&out)
	cfg, err := configloader.NewFromBytes([]byte(text))
	if err != nil {
		return answer{Error: err.Error()}
	}
	return documents(cfg)
}

func patch(text string, patches []string) (out answer) {
	defer refused(&out)
	cfg, err := configloader.NewFromBytes([]byte(text))
	if err != nil {
		return answer{Error: "config: " + err.Error()}
	}
	var parsed []configpatcher.Patch
	for _, text := range patches {
		one, err := configpatcher.LoadPatch([]byte(text))
		if err != nil {
			return answer{Error: "patch: " + err.Error()}
		}
		if _, strategic := one.(configpatcher.StrategicMergePatch); !strategic {
			return answer{Error: "patch: read as a JSON patch"}
		}
		parsed = append(parsed, one)
	}
	patched, err := configpatcher.Apply(configpatcher.WithConfig(cfg), parsed)
	if err != nil {
		return answer{Error: err.Error()}
	}
	result, err := patched.Config()
	if err != nil {
		return answer{Error: err.Error()}
	}
	return documents(result)
}

func documents(cfg config.Provider) answer {
	out := map[string]any{}
	for _, document := range cfg.Documents() {
		if _, deletion := document.(configloader.Selector); deletion {
			continue // Talos before 1.14 keeps a deletion that found no document as one more
		}
		text, err := encoder.NewEncoder(document, encoder.WithComments(encoder.CommentsDisabled)).Encode()
		if err != nil {
			return answer{Error: "encode: " + err.Error()}
		}
		var value any
		if err := yaml.Unmarshal(text, &value); err != nil {
			return answer{Error: "encode: " + err.Error()}
		}
		out[id(document)] = value
	}
	return answer{Documents: out}
}

func id(document docs.Document) string {
	id := document.APIVersion() + "/" + document.Kind()
	if named, ok := document.(docs.NamedDocument); ok {
		id += "/" + named.Name()
	}
	return id
}

// sameAs loads the result and compares it with what Talos made itself.
func (a answer) sameAs(result string) answer {
	if a.Error == "" && reflect.DeepEqual(load(result).Documents, a.Documents) {
		a.Same = fmt.Sprintf("%x", sha256.Sum256([]byte(result)))
	}
	return a
}

func cases(dir string) (any, error) {
	folders, err := os.ReadDir(dir)
	if err != nil {
		return nil, err
	}
	out := map[string]answer{}
	for _, folder := range folders {
		read := func(name string) string {
			text, _ := os.ReadFile(filepath.Join(dir, folder.Name(), name))
			return string(text)
		}
		if _, err := os.Stat(filepath.Join(dir, folder.Name(), "patch.yaml")); err != nil {
			continue
		}
		one := patch(read("config.yaml"), []string{read("patch.yaml")})
		if result := read("result.yaml"); result != "" {
			one = one.sameAs(result)
		}
		out[folder.Name()] = one
	}
	return out, nil
}

func lines(in io.Reader, out io.Writer) error {
	scanner := bufio.NewScanner(in)
	scanner.Buffer(nil, 16<<20)
	encode := json.NewEncoder(out)
	for scanner.Scan() {
		var line struct {
			Config  string
			Patches []string
			Result  *string
		}
		if err := json.Unmarshal(scanner.Bytes(), &line); err != nil {
			return err
		}
		one := patch(line.Config, line.Patches)
		if line.Result != nil {
			one = one.sameAs(*line.Result)
		}
		if err := encode.Encode(one); err != nil {
			return err
		}
	}
	return scanner.Err()
}

// mode is what a config is validated for.
type mode string

func (m mode) String() string        { return string(m) }
func (m mode) RequiresInstall() bool { return m == "metal" }
func (m mode) InContainer() bool     { return m == "container" }

func validate(name, text string) (out answer) {
	defer refused(&out)
	cfg, err := configloader.NewFromBytes([]byte(text))
	if err != nil {
		return answer{Error: err.Error()}
	}
	warnings, err := cfg.Validate(mode(name))
	out.Warnings = warnings
	if err != nil {
		out.Error = err.Error()
	}
	return out
}
