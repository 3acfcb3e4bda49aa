// Search: three index servers are asked at once, and the first that can answer does.
package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log"
	"net/http"
	"net/url"
	"os"

	"search/lexis"
)

const (
	servers = 3
	threads = 16 // words that are being spelled at once; each holds a thread of the operating system
)

type service struct {
	index, speller string
	slots          chan struct{}
}

type result struct {
	answer lexis.Answer
	err    error
}

// Ask one index server.
func (s *service) ask(ctx context.Context, server int, word string) (lexis.Answer, error) {
	where := fmt.Sprintf("%s/%d/search?word=%s", s.index, server, url.QueryEscape(word))
	request, err := http.NewRequestWithContext(ctx, http.MethodGet, where, nil)
	if err != nil {
		return lexis.Answer{}, err
	}
	response, err := http.DefaultClient.Do(request)
	if err != nil {
		return lexis.Answer{}, err
	}
	defer response.Body.Close()
	body, err := io.ReadAll(response.Body)
	if err != nil {
		return lexis.Answer{}, err
	}
	if response.StatusCode != http.StatusOK {
		return lexis.Answer{}, errors.New(response.Status)
	}
	return lexis.Decode(body)
}

func (s *service) search(w http.ResponseWriter, r *http.Request) {
	word := r.URL.Query().Get("word")
	ctx, cancel := context.WithCancel(r.Context()) // which ends when the client leaves
	defer cancel()                                 // who has lost ends here
	results := make(chan result, servers)          // room for all: who comes late waits for nobody
	for server := 1; server <= servers; server++ {
		go func() {
			answer, err := s.ask(ctx, server, word)
			results <- result{answer, err}
		}()
	}
	for range servers {
		select {
		case got := <-results:
			if got.err == nil {
				reply(w, map[string]any{"word": word, "documents": got.answer.Documents})
				return
			}
		case <-ctx.Done():
			return
		}
	}
	http.Error(w, "no index server can answer", http.StatusBadGateway)
}

func (s *service) spell(w http.ResponseWriter, r *http.Request) {
	word := r.URL.Query().Get("word")
	select {
	case s.slots <- struct{}{}:
		defer func() { <-s.slots }()
	case <-r.Context().Done(): // nobody waits for it any more
		return
	}
	spelling, err := lexis.Spell(s.speller, word)
	if err != nil {
		http.Error(w, err.Error(), http.StatusBadGateway)
		return
	}
	reply(w, map[string]any{"word": word, "spelling": spelling})
}

func reply(w http.ResponseWriter, what any) {
	w.Header().Set("Content-Type", "application/json")
	json.NewEncoder(w).Encode(what)
}

func main() {
	s := &service{os.Getenv("INDEX_URL"), os.Getenv("SPELLER_URL"), make(chan struct{}, threads)}
	http.HandleFunc("GET /search", s.search)
	http.HandleFunc("GET /spell", s.spell)
	http.HandleFunc("GET /stuck", func(w http.ResponseWriter, _ *http.Request) { reply(w, stuck()) })
	http.HandleFunc("GET /healthz", func(w http.ResponseWriter, _ *http.Request) { reply(w, map[string]bool{"ok": true}) })
	log.Fatal(http.ListenAndServe("127.0.0.1:"+os.Getenv("PORT"), nil))
}
