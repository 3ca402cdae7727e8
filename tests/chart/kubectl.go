// kubectl, as a program that Go can build from modules. scripts/tools builds it
// where there is none.
package main

import (
	"k8s.io/component-base/cli"
	"k8s.io/kubectl/pkg/cmd"
	"k8s.io/kubectl/pkg/cmd/util"
)

func main() {
	if err := cli.RunNoErrOutput(cmd.NewDefaultKubectlCommand()); err != nil {
		// Prints it and ends the process.
		util.CheckErr(err)
	}
}
