// Reads Compose files as Docker does, by the library of the Compose specification, and says what is wrong with them.
package main

import (
	"context"
	"fmt"
	"os"

	"github.com/compose-spec/compose-go/v2/cli"
)

func main() {
	options, err := cli.NewProjectOptions(os.Args[1:], cli.WithOsEnv, cli.WithName("check"), cli.WithProfiles([]string{"*"}))
	if err == nil {
		project, problem := options.LoadProject(context.Background())
		if err = problem; err == nil {
			fmt.Println(project.ServiceNames())
			return
		}
	}
	fmt.Fprintln(os.Stderr, err)
	os.Exit(1)
}
