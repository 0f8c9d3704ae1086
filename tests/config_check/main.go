// Config_check reads configurations with the code of the programs that they are for.
//
//	config_check compose FILE...    the project that Compose makes of the files, as YAML
//	config_check collector FILE...  the configuration that the OpenTelemetry Collector merges, as YAML
package main

import (
	"context"
	"fmt"
	"os"

	"github.com/compose-spec/compose-go/v2/cli"
	"go.opentelemetry.io/collector/confmap"
	"go.yaml.in/yaml/v3"
)

func compose(files []string) ([]byte, error) {
	options, err := cli.NewProjectOptions(files, cli.WithOsEnv, cli.WithName("check"))
	if err != nil {
		return nil, err
	}
	project, err := options.LoadProject(context.Background())
	if err != nil {
		return nil, err
	}
	return project.MarshalYAML()
}

func collector(files []string) ([]byte, error) {
	merged := confmap.New()
	for _, file := range files {
		text, err := os.ReadFile(file)
		if err != nil {
			return nil, err
		}
		layer := map[string]any{}
		if err := yaml.Unmarshal(text, &layer); err != nil {
			return nil, fmt.Errorf("%s: %w", file, err)
		}
		if err := merged.Merge(confmap.NewFromStringMap(layer)); err != nil {
			return nil, fmt.Errorf("%s: %w", file, err)
		}
	}
	return yaml.Marshal(merged.ToStringMap())
}

func main() {
	readers := map[string]func([]string) ([]byte, error){"compose": compose, "collector": collector}
	if len(os.Args) < 3 || readers[os.Args[1]] == nil {
		fmt.Fprintln(os.Stderr, "usage: config_check compose|collector FILE...")
		os.Exit(2)
	}
	text, err := readers[os.Args[1]](os.Args[2:])
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
	os.Stdout.Write(text)
}
