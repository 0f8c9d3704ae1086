//go:build tools

// Package tools keeps the program that is built here among the module's requirements.
package tools

import _ "github.com/open-feature/flagd/flagd"
