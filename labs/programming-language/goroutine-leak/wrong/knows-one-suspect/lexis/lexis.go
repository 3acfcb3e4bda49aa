// Package lexis is a vendor's library, version 2.4. It comes as it is: the next version would undo a change.
package lexis

import (
	"encoding/json"
	"errors"
	"net/netip"
	"net/url"
	"strings"
	"syscall"
)

// Answer is what an index server found.
type Answer struct {
	Documents  []string `json:"documents"`
	Dictionary string   `json:"dictionary"`
}

// Decode reads the body of an index server's answer, and loads the dictionary that it needs.
func Decode(body []byte) (Answer, error) {
	var answer Answer
	if err := json.Unmarshal(body, &answer); err != nil {
		return answer, err
	}
	if load, ok := dictionaries[answer.Dictionary]; ok {
		load()
	}
	return answer, nil
}

// Spell asks the speller at base for the right spelling of a word. It is made as clients in C are: the call blocks its thread until the
// answer is there, and nothing calls it back.
func Spell(base, word string) (string, error) {
	where, err := url.Parse(base)
	if err != nil {
		return "", err
	}
	to, err := netip.ParseAddrPort(where.Host)
	if err != nil {
		return "", err
	}
	socket, err := syscall.Socket(syscall.AF_INET, syscall.SOCK_STREAM, 0)
	if err != nil {
		return "", err
	}
	defer syscall.Close(socket)
	if err := syscall.Connect(socket, &syscall.SockaddrInet4{Port: int(to.Port()), Addr: to.Addr().As4()}); err != nil {
		return "", err
	}
	if _, err := syscall.Write(socket, []byte("GET "+where.Path+"/words/"+url.PathEscape(word)+" HTTP/1.0\r\n\r\n")); err != nil {
		return "", err
	}
	var reply strings.Builder
	for buffer := make([]byte, 4096); ; {
		n, err := syscall.Read(socket, buffer)
		if err == syscall.EINTR {
			continue
		}
		if err != nil {
			return "", err
		}
		if n == 0 {
			break
		}
		reply.Write(buffer[:n])
	}
	head, body, _ := strings.Cut(reply.String(), "\r\n\r\n")
	if !strings.Contains(head, " 200 ") {
		return "", errors.New("lexis: the speller refused")
	}
	var answer struct {
		Spelling string `json:"spelling"`
	}
	err = json.Unmarshal([]byte(body), &answer)
	return answer.Spelling, err
}
