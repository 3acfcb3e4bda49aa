// As much of a Redis client as this service needs: commands in, replies out, over a few connections.
package main

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"net"
	"net/url"
	"strconv"
	"strings"
	"time"
)

const (
	connections = 16
	patience    = 2 * time.Second
)

type redis struct {
	address, user, password string
	idle                    chan *connection // a nil is the right to open one
}

type connection struct {
	net.Conn
	reader *bufio.Reader
}

func newRedis(address string) (*redis, error) {
	parsed, err := url.Parse(address)
	if err != nil {
		return nil, err
	}
	password, _ := parsed.User.Password()
	r := &redis{parsed.Host, parsed.User.Username(), password, make(chan *connection, connections)}
	for range connections {
		r.idle <- nil
	}
	return r, nil
}

// The replies to commands sent together: []byte, int64, string, or nil for none. A reply that is an error is the error of all.
func (r *redis) do(commands ...[]string) (replies []any, err error) {
	c := <-r.idle
	defer func() {
		if err != nil && c != nil {
			c.Close() // what is still to come on it belongs to nobody
			c = nil
		}
		r.idle <- c
	}()
	if c == nil {
		if c, err = r.open(); err != nil {
			return nil, err
		}
	}
	return c.exchange(commands)
}

func (r *redis) open() (*connection, error) {
	raw, err := net.DialTimeout("tcp", r.address, patience)
	if err != nil {
		return nil, err
	}
	c := &connection{raw, bufio.NewReader(raw)}
	if _, err := c.exchange([][]string{{"AUTH", r.user, r.password}}); err != nil {
		c.Close()
		return nil, err
	}
	return c, nil
}

func (c *connection) exchange(commands [][]string) ([]any, error) {
	c.SetDeadline(time.Now().Add(patience))
	var request strings.Builder
	for _, words := range commands {
		fmt.Fprintf(&request, "*%d\r\n", len(words))
		for _, word := range words {
			fmt.Fprintf(&request, "$%d\r\n%s\r\n", len(word), word)
		}
	}
	if _, err := io.WriteString(c, request.String()); err != nil {
		return nil, err
	}
	replies := make([]any, 0, len(commands))
	for range commands {
		reply, err := c.reply()
		if err != nil {
			return nil, err
		}
		replies = append(replies, reply)
	}
	return replies, nil
}

// One reply. Source: Redis serialization protocol specification, RESP2.
func (c *connection) reply() (any, error) {
	line, err := c.reader.ReadString('\n')
	if err != nil {
		return nil, err
	}
	kind, text := line[0], strings.TrimSuffix(line[1:], "\r\n")
	switch kind {
	case '+':
		return text, nil
	case '-':
		return nil, errors.New("redis: " + text)
	case ':':
		return strconv.ParseInt(text, 10, 64)
	case '$':
		size, err := strconv.Atoi(text)
		if err != nil || size < 0 {
			return nil, err
		}
		data := make([]byte, size+2)
		_, err = io.ReadFull(c.reader, data)
		return data[:size], err
	}
	return nil, fmt.Errorf("redis: an unexpected reply %q", line)
}

func millis(d time.Duration) string {
	return strconv.FormatInt(d.Milliseconds(), 10)
}
