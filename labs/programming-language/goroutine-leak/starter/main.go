// Search: three index servers are asked at once, and the first that can answer does.
package main

import (
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

const servers = 3

type service struct {
	index, speller string
}

type result struct {
	answer lexis.Answer
	err    error
}

// Ask one index server.
func (s *service) ask(server int, word string) (lexis.Answer, error) {
	where := fmt.Sprintf("%s/%d/search?word=%s", s.index, server, url.QueryEscape(word))
	response, err := http.Get(where)
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
	results := make(chan result)
	for server := 1; server <= servers; server++ {
		go func() {
			answer, err := s.ask(server, word)
			results <- result{answer, err}
		}()
	}
	for range servers {
		if got := <-results; got.err == nil {
			reply(w, map[string]any{"word": word, "documents": got.answer.Documents})
			return
		}
	}
	http.Error(w, "no index server can answer", http.StatusBadGateway)
}

func (s *service) spell(w http.ResponseWriter, r *http.Request) {
	word := r.URL.Query().Get("word")
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
	s := &service{os.Getenv("INDEX_URL"), os.Getenv("SPELLER_URL")}
	http.HandleFunc("GET /search", s.search)
	http.HandleFunc("GET /spell", s.spell)
	http.HandleFunc("GET /stuck", func(w http.ResponseWriter, _ *http.Request) { reply(w, stuck()) })
	http.HandleFunc("GET /healthz", func(w http.ResponseWriter, _ *http.Request) { reply(w, map[string]bool{"ok": true}) })
	log.Fatal(http.ListenAndServe("127.0.0.1:"+os.Getenv("PORT"), nil))
}
