// Command etcd-benchmark is etcd's own benchmark client: `go install` refuses its replaces.
package main

import (
	"fmt"
	"os"

	"go.etcd.io/etcd/v3/tools/benchmark/cmd"
)

func main() {
	if err := cmd.RootCmd.Execute(); err != nil {
		fmt.Fprintln(os.Stderr, "etcd-benchmark:", err)
		os.Exit(1)
	}
}
