"""Facts about the OpenTelemetry Demo that its simulated services share: releases, topology, data, spans."""
