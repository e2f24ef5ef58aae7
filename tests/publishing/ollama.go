// Renders the template of a Modelfile as Ollama does: Go's own text/template over messages and tools.
//
//	go run ollama.go TEMPLATE TALKS
//
// TALKS is a JSON list of {"Messages": [...], "Tools": [...]}; the answer is a JSON list of texts.
package main

import (
	"bytes"
	"encoding/json"
	"fmt"
	"os"
	"text/template"
)

type function struct {
	Name       string          `json:"name"`
	Parameters json.RawMessage `json:"parameters"`
}

func (f function) String() string {
	b, _ := json.Marshal(f)
	return string(b)
}

type arguments map[string]any

func (a arguments) String() string {
	b, _ := json.Marshal(a)
	return string(b)
}

type call struct {
	Function struct {
		Name      string
		Arguments arguments
	}
}

type message struct {
	Role, Content, Thinking string
	ToolCalls               []call
}

type tool struct {
	Function function
}

type talk struct {
	Messages []*message
	Tools    []tool
}

func main() {
	text, err := os.ReadFile(os.Args[1])
	check(err)
	raw, err := os.ReadFile(os.Args[2])
	check(err)
	var talks []talk
	check(json.Unmarshal(raw, &talks))
	parsed, err := template.New("").Option("missingkey=zero").Parse(string(text))
	check(err)
	var rendered []string
	for _, t := range talks {
		var out bytes.Buffer
		check(parsed.Execute(&out, map[string]any{"Messages": t.Messages, "Tools": t.Tools, "System": "", "Response": ""}))
		rendered = append(rendered, out.String())
	}
	answer, err := json.Marshal(rendered)
	check(err)
	fmt.Println(string(answer))
}

func check(err error) {
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}
