// Product prices: a Redis cache in front of a catalog that takes 200 ms to answer. One filler per key in the whole fleet.
package main

import (
	"crypto/rand"
	"encoding/hex"
	"errors"
	"io"
	"log"
	"net/http"
	"os"
	"time"
)

const (
	fresh   = 1000 * time.Millisecond
	grace   = 250 * time.Millisecond  // so long after that the last price will do while somebody loads the next one
	stale   = 60 * time.Second        // so long it is kept, for the case that the catalog fails
	lock    = 2000 * time.Millisecond // ten loads: a filler that died holds its key no longer
	poll    = 20 * time.Millisecond
	release = "if redis.call('GET', KEYS[1]) == ARGV[1] then return redis.call('DEL', KEYS[1]) end"
)

var errCatalog = errors.New("the catalog does not answer")

type service struct {
	cache   *redis
	catalog string
	client  *http.Client
}

func (s *service) load(id string) ([]byte, error) {
	answer, err := s.client.Get(s.catalog + "/products/" + id)
	if err != nil {
		return nil, errCatalog
	}
	defer answer.Body.Close()
	body, err := io.ReadAll(answer.Body)
	if err != nil || answer.StatusCode != http.StatusOK {
		return nil, errCatalog
	}
	return body, nil
}

// The cached product, and for how long it is fresh: by what Redis says is left of its life, so no replica's clock takes part.
func (s *service) lookUp(id string) ([]byte, time.Duration, error) {
	replies, err := s.cache.do([]string{"GET", "product:" + id}, []string{"PTTL", "product:" + id})
	if err != nil {
		return nil, 0, err
	}
	product, _ := replies[0].([]byte)
	left, _ := replies[1].(int64)
	return product, time.Duration(left)*time.Millisecond - stale, nil
}

func (s *service) keep(id string, product []byte) error {
	_, err := s.cache.do([]string{"SET", "product:" + id, string(product), "PX", millis(fresh + stale)})
	return err
}

func (s *service) read(id string) ([]byte, error) {
	for {
		product, left, err := s.lookUp(id)
		if err != nil || left > 0 {
			return product, err
		}
		token := newToken()
		replies, err := s.cache.do([]string{"SET", "lock:" + id, token, "NX", "PX", millis(lock)})
		if err != nil {
			return nil, err
		}
		if replies[0] != nil {
			return s.fill(id, token)
		}
		if product != nil && left > -grace {
			return product, nil // somebody is loading: the last price is good enough meanwhile
		}
		time.Sleep(poll)
	}
}

// Load as the only filler of this key in the fleet.
func (s *service) fill(id, token string) ([]byte, error) {
	defer s.cache.do([]string{"EVAL", release, "1", "lock:" + id, token}) // only if it is still ours
	old, left, err := s.lookUp(id)
	if err != nil || left > 0 {
		return old, err // somebody has loaded it since we looked
	}
	product, err := s.load(id)
	if err != nil {
		if old == nil {
			return nil, err
		}
		product = old // ask again when it has been shown for a while, not at once
	}
	return product, s.keep(id, product)
}

func (s *service) readProduct(w http.ResponseWriter, r *http.Request) {
	product, err := s.read(r.PathValue("id"))
	if err != nil {
		http.Error(w, err.Error(), http.StatusServiceUnavailable)
		return
	}
	w.Header().Set("Content-Type", "application/json")
	w.Write(product)
}

func newToken() string {
	random := make([]byte, 16)
	rand.Read(random)
	return hex.EncodeToString(random)
}

func main() {
	cache, err := newRedis(os.Getenv("REDIS_URL"))
	if err != nil {
		log.Fatal(err)
	}
	s := &service{cache, os.Getenv("CATALOG_URL"), &http.Client{Timeout: 5 * time.Second}}
	http.HandleFunc("GET /products/{id}", s.readProduct)
	http.HandleFunc("GET /healthz", func(w http.ResponseWriter, _ *http.Request) { io.WriteString(w, `{"ok": true}`) })
	log.Fatal(http.ListenAndServe("127.0.0.1:"+os.Getenv("PORT"), nil))
}
