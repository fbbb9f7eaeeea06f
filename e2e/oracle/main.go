// oracle answers what Talos' own configuration code answers. It is built once per minor version of Talos (see record).
//
//	oracle load CONFIG                 the documents, as JSON
//	oracle validate MODE CONFIG        MODE is metal or container
//	oracle patch CONFIG PATCH...       the documents after the patches
//	oracle cases DIR                   patch for every folder below DIR that has config.yaml and patch.yaml
//	oracle lines                       JSON lines {config, patches, result} from stdin, answered line by line
//	oracle cel CASES DISKS             disk selectors: accepted, and which disks they match
//	oracle fields KIND...              how each field of a document kind is merged
//	oracle kinds KIND...               those of the kinds that this Talos registers
//	oracle generate DIR VERSION KUBERNETES ENDPOINT   what talosctl gen config writes
//	oracle sizes TEXTS                 what each text is as minSize and as maxSize of a volume
package main

import (
	"encoding/json"
	"fmt"
	"os"
)

func main() {
	answer, err := run(os.Args[1:])
	if err != nil {
		fmt.Fprintln(os.Stderr, "oracle:", err)
		os.Exit(1)
	}
	if answer == nil {
		return
	}
	out := json.NewEncoder(os.Stdout)
	out.SetEscapeHTML(false)
	out.SetIndent("", " ")
	if err := out.Encode(answer); err != nil {
		fmt.Fprintln(os.Stderr, "oracle:", err)
		os.Exit(1)
	}
}

func run(args []string) (any, error) {
	if len(args) == 0 {
		return nil, fmt.Errorf("usage: oracle load|validate|patch|cases|lines|cel|sizes|fields|kinds|generate ARGUMENT...")
	}
	verb, args := args[0], args[1:]
	switch {
	case verb == "load" && len(args) == 1:
		return withFiles(args, func(texts []string) any { return load(texts[0]) })
	case verb == "validate" && len(args) == 2:
		return withFiles(args[1:], func(texts []string) any { return validate(args[0], texts[0]) })
	case verb == "patch" && len(args) > 1:
		return withFiles(args, func(texts []string) any { return patch(texts[0], texts[1:]) })
	case verb == "cases" && len(args) == 1:
		return cases(args[0])
	case verb == "lines" && len(args) == 0:
		return nil, lines(os.Stdin, os.Stdout)
	case verb == "cel" && len(args) == 2:
		return selectors(args[0], args[1])
	case verb == "sizes" && len(args) == 1:
		return sizes(args[0])
	case verb == "fields":
		return fields(args), nil
	case verb == "kinds":
		return registered(args), nil
	case verb == "generate" && len(args) == 4:
		return nil, generated(args[0], args[1], args[2], args[3])
	}
	return nil, fmt.Errorf("unknown verb or wrong number of arguments: %s", verb)
}

func withFiles(paths []string, answer func([]string) any) (any, error) {
	texts := make([]string, 0, len(paths))
	for _, path := range paths {
		text, err := os.ReadFile(path)
		if err != nil {
			return nil, err
		}
		texts = append(texts, string(text))
	}
	return answer(texts), nil
}
