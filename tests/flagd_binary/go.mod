module pytest_otel_diag/flagd_binary

go 1.26.0

require (
	github.com/open-feature/flagd/core v0.15.8
	github.com/open-feature/flagd/flagd v0.16.0
	sigs.k8s.io/controller-runtime v0.24.1
)

replace github.com/open-feature/open-feature-operator/api => ./apistub
