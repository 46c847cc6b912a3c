// Command wasm-image pulls images as Istio's proxies do.
//
// Argument: an OCI layout directory. Each image in it is pushed to a registry on loopback, under the name in its annotation, and
// pulled with Istio's own fetcher. Standard output: one JSON object for each, with its name, the digest of its manifest and
// the SHA-256 of the module that the proxy would run.
package main

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"io"
	stdlog "log"
	"net/http/httptest"
	"os"
	"strings"

	"github.com/google/go-containerregistry/pkg/name"
	"github.com/google/go-containerregistry/pkg/registry"
	"github.com/google/go-containerregistry/pkg/v1/layout"
	"github.com/google/go-containerregistry/pkg/v1/remote"
	"istio.io/istio/pkg/log"
	"istio.io/istio/pkg/wasm"
)

const nameAnnotation = "org.opencontainers.image.ref.name"

type pulled struct {
	Name         string `json:"name"`
	Digest       string `json:"digest"`
	ModuleSha256 string `json:"moduleSha256"`
}

func main() {
	// Standard output is for the results alone.
	options := log.DefaultOptions()
	options.OutputPaths = []string{"stderr"}
	if err := log.Configure(options); err != nil {
		log.Fatal(err)
	}
	server := httptest.NewServer(registry.New(registry.Logger(stdlog.New(io.Discard, "", 0))))
	defer server.Close()
	images, err := pull(os.Args[1], strings.TrimPrefix(server.URL, "http://"))
	if err != nil {
		log.Fatal(err)
	}
	for _, image := range images {
		if err := json.NewEncoder(os.Stdout).Encode(image); err != nil {
			log.Fatal(err)
		}
	}
}

func pull(directory, host string) ([]pulled, error) {
	index, err := layout.ImageIndexFromPath(directory)
	if err != nil {
		return nil, err
	}
	manifest, err := index.IndexManifest()
	if err != nil {
		return nil, err
	}
	fetcher := wasm.NewImageFetcher(context.Background(), wasm.ImageFetcherOption{})
	var images []pulled
	for _, descriptor := range manifest.Manifests {
		tag := descriptor.Annotations[nameAnnotation]
		reference, err := name.ParseReference(fmt.Sprintf("%s/spiffe-authz:%s", host, tag))
		if err != nil {
			return nil, err
		}
		image, err := index.Image(descriptor.Digest)
		if err != nil {
			return nil, err
		}
		if err := remote.Write(reference, image); err != nil {
			return nil, fmt.Errorf("pushing %s: %w", tag, err)
		}
		fetch, digest, err := fetcher.PrepareFetch(reference.String())
		if err != nil {
			return nil, fmt.Errorf("%s: %w", tag, err)
		}
		module, err := fetch()
		if err != nil {
			return nil, fmt.Errorf("%s: %w", tag, err)
		}
		sum := sha256.Sum256(module)
		images = append(images, pulled{Name: tag, Digest: digest, ModuleSha256: hex.EncodeToString(sum[:])})
	}
	return images, nil
}
