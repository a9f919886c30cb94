package main

import (
	"context"

	"penne/internal/conf"
	"penne/internal/netns"
)

// capabilities is what --print-capabilities prints.
const capabilities = "{\n  \"type\": \"net\"\n}\n"

// serve is the engine: it composes the data path and runs it until ctx ends.
func serve(ctx context.Context, _ *conf.Config, h *netns.Handles) error {
	if err := h.Ready(); err != nil {
		return err
	}
	<-ctx.Done()
	return nil
}

// bindLow binds the ports that only the caller of the launcher may bind.
func bindLow(*conf.Config) ([]netns.LowPort, error) { return nil, nil }
