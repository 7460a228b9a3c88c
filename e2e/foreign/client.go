// Fetches every target by a connection of its own, and prints the peer of each.
//
// usage: client CERTIFICATES URL@ADDRESS...
package main

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"fmt"
	"io"
	"log"
	"net"
	"net/http"
	"net/url"
	"os"
	"strings"
	"time"
)

func main() {
	log.SetFlags(0)
	pem, err := os.ReadFile(os.Args[1])
	roots := x509.NewCertPool()
	if err != nil || !roots.AppendCertsFromPEM(pem) {
		log.Fatalf("%s: no certificates: %v", os.Args[1], err)
	}
	for _, target := range os.Args[2:] {
		at := strings.LastIndex(target, "@")
		if err := fetch(target[:at], target[at+1:], roots); err != nil {
			log.Fatalf("%s: %v", target, err)
		}
	}
}

func fetch(where, address string, roots *x509.CertPool) error {
	parsed, err := url.Parse(where)
	if err != nil {
		return err
	}
	client := http.Client{Timeout: 15 * time.Second, Transport: &http.Transport{
		DisableKeepAlives: true,
		TLSClientConfig:   &tls.Config{RootCAs: roots},
		DialContext: func(ctx context.Context, network, _ string) (net.Conn, error) {
			connection, err := new(net.Dialer).DialContext(ctx, network, net.JoinHostPort(address, parsed.Port()))
			if err == nil {
				fmt.Println(connection.RemoteAddr())
			}
			return connection, err
		},
	}}
	answer, err := client.Get(where)
	if err != nil {
		return err
	}
	defer answer.Body.Close()
	body, err := io.ReadAll(answer.Body)
	if err == nil && (answer.StatusCode != 200 || string(body) != strings.Repeat(parsed.Path, 1000)) {
		err = fmt.Errorf("status %d, %d bytes", answer.StatusCode, len(body))
	}
	return err
}
