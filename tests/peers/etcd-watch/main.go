// Command etcd-watch measures etcd's watch fan-out with etcd's own client: many watchers of one key, one change at a
// time, and how long after its acknowledgement the last watcher has heard of each. It prints one line of JSON and
// refuses to report when a watcher misses a change.
package main

import (
	"context"
	"encoding/json"
	"flag"
	"fmt"
	"os"
	"strings"
	"sync"
	"time"

	clientv3 "go.etcd.io/etcd/client/v3"
	"go.uber.org/zap"
)

// How long one step may take.
const patience = 30 * time.Second

const key = "dotmac/bench"

// Milliseconds of every change, in order.
type report struct {
	// From the request to its acknowledgement.
	PutMs []float64 `json:"put_ms"`
	// From the acknowledgement to the last watcher; below zero when all had heard before.
	LastMs []float64 `json:"last_ms"`
	// From the request to the last watcher.
	WholeMs []float64 `json:"whole_ms"`
}

type heard struct {
	revision int64
	at       time.Time
}

func main() {
	endpoints := flag.String("endpoints", "", "addresses of the members, separated by commas")
	watchers := flag.Int("watchers", 1000, "watchers of the key")
	changes := flag.Int("changes", 50, "changes to make, one after the other")
	bytes := flag.Int("bytes", 1024, "bytes of each value")
	shared := flag.Bool("shared", false, "all watchers share one connection a member instead of one each")
	flag.Parse()
	found, err := measure(strings.Split(*endpoints, ","), *watchers, *changes, *bytes, *shared)
	if err == nil {
		err = json.NewEncoder(os.Stdout).Encode(found)
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, "etcd-watch:", err)
		os.Exit(1)
	}
}

func connect(endpoint string) (*clientv3.Client, error) {
	return clientv3.New(clientv3.Config{Endpoints: []string{endpoint}, DialTimeout: patience, Logger: zap.NewNop()})
}

func measure(endpoints []string, watchers, changes, bytes int, shared bool) (*report, error) {
	ctx, cancel := context.WithCancel(context.Background())
	defer cancel()
	arrivals := make(chan heard, watchers)
	clients := map[string]*clientv3.Client{}
	var ready sync.WaitGroup
	for number := range watchers {
		endpoint := endpoints[number%len(endpoints)]
		client := clients[endpoint]
		if client == nil || !shared {
			opened, err := connect(endpoint)
			if err != nil {
				return nil, err
			}
			defer opened.Close()
			clients[endpoint], client = opened, opened
		}
		ready.Add(1)
		events := client.Watch(ctx, key, clientv3.WithCreatedNotify())
		go watch(events, &ready, arrivals)
	}
	if err := within(ready.Wait); err != nil {
		return nil, fmt.Errorf("the watchers are not ready: %w", err)
	}
	writer, err := connect(endpoints[0])
	if err != nil {
		return nil, err
	}
	defer writer.Close()
	var found report
	for range changes {
		if err := found.change(ctx, writer, watchers, bytes, arrivals); err != nil {
			return nil, err
		}
	}
	return &found, nil
}

func watch(events clientv3.WatchChan, ready *sync.WaitGroup, arrivals chan<- heard) {
	for answer := range events {
		at := time.Now()
		if answer.Created {
			ready.Done()
		}
		for _, event := range answer.Events {
			arrivals <- heard{event.Kv.ModRevision, at}
		}
	}
}

func within(wait func()) error {
	done := make(chan struct{})
	go func() { wait(); close(done) }()
	select {
	case <-done:
		return nil
	case <-time.After(patience):
		return fmt.Errorf("not within %s", patience)
	}
}

// Makes one change and waits until every watcher has heard of it.
func (found *report) change(ctx context.Context, writer *clientv3.Client, watchers, bytes int, arrivals <-chan heard) error {
	value := strings.Repeat("x", bytes)
	asked := time.Now()
	answer, err := writer.Put(ctx, key, value)
	acknowledged := time.Now()
	if err != nil {
		return err
	}
	last := asked
	late := time.After(patience)
	for count := 0; count < watchers; {
		select {
		case one := <-arrivals:
			if one.revision != answer.Header.Revision {
				return fmt.Errorf("a watcher heard of revision %d, not %d", one.revision, answer.Header.Revision)
			}
			if one.at.After(last) {
				last = one.at
			}
			count++
		case <-late:
			return fmt.Errorf("%d of %d watchers heard within %s", count, watchers, patience)
		}
	}
	found.PutMs = append(found.PutMs, milliseconds(acknowledged.Sub(asked)))
	found.LastMs = append(found.LastMs, milliseconds(last.Sub(acknowledged)))
	found.WholeMs = append(found.WholeMs, milliseconds(last.Sub(asked)))
	return nil
}

func milliseconds(duration time.Duration) float64 { return float64(duration.Microseconds()) / 1000 }
