// cron answers what Velero's parser of cron lines answers, for a JSON list of lines on stdin: what is wrong with a line, or
// when it is due next after each of a few moments.
package main

import (
	"encoding/json"
	"fmt"
	"os"
	"time"
	_ "time/tzdata"

	"github.com/robfig/cron/v3"
)

// Around the changes of the clocks in Europe and in America, ends of months and years, a leap day, and an ordinary day.
var moments = []string{
	"2026-01-01T12:30:00Z", "2026-02-28T23:59:59Z", "2026-03-08T06:30:00Z", "2026-03-29T00:30:00Z",
	"2026-10-25T00:15:00Z", "2026-11-01T05:15:00Z", "2027-12-31T23:59:30Z", "2028-02-28T12:00:00Z",
}

type answer struct {
	Line  string   `json:"line"`
	Error string   `json:"error,omitempty"`
	Next  []string `json:"next,omitempty"`
}

func main() {
	time.Local = time.UTC
	var lines []string
	if err := json.NewDecoder(os.Stdin).Decode(&lines); err != nil {
		fmt.Fprintln(os.Stderr, "cron:", err)
		os.Exit(1)
	}
	answers := make([]answer, 0, len(lines))
	for _, line := range lines {
		answers = append(answers, ask(line))
	}
	out := json.NewEncoder(os.Stdout)
	out.SetEscapeHTML(false)
	out.SetIndent("", " ")
	_ = out.Encode(map[string]any{"moments": moments, "answers": answers})
}

func ask(line string) (result answer) {
	result.Line = line
	// Velero recovers, and takes the panic's words.
	defer func() {
		if r := recover(); r != nil {
			result.Error = fmt.Sprint(r)
		}
	}()
	schedule, err := cron.ParseStandard(line)
	if err != nil {
		result.Error = err.Error()
		return result
	}
	for _, moment := range moments {
		at, _ := time.Parse(time.RFC3339, moment)
		if next := schedule.Next(at); next.IsZero() {
			result.Next = append(result.Next, "never")
		} else {
			result.Next = append(result.Next, next.UTC().Format(time.RFC3339))
		}
	}
	return result
}
