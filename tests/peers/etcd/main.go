// Command etcd is etcd itself: its server has no command of its own that `go install` would take.
package main

import (
	"os"

	"go.etcd.io/etcd/server/v3/etcdmain"
)

func main() { etcdmain.Main(os.Args) }
