// bug: looks for the library's functions alone, and says nothing of the rest

package main

import (
	"runtime"
	"sort"
	"strings"
)

type place struct {
	Function string `json:"function"`
	Count    int    `json:"count"`
}

// Where the goroutines stand, the most crowded function first.
func stuck() []place {
	records := make([]runtime.StackRecord, runtime.NumGoroutine()+100)
	n, _ := runtime.GoroutineProfile(records)
	counts := map[string]int{}
	for _, record := range records[:n] {
		counts[innermost(record.Stack())]++
	}
	places := []place{}
	for function, count := range counts {
		places = append(places, place{function, count})
	}
	sort.Slice(places, func(i, j int) bool { return places[i].Count > places[j].Count })
	return places
}

// The library's function in which a goroutine stands.
func innermost(stack []uintptr) string {
	frames := runtime.CallersFrames(stack)
	for {
		frame, more := frames.Next()
		if strings.HasPrefix(frame.Function, "search/lexis.") {
			return frame.Function
		}
		if !more {
			return "elsewhere"
		}
	}
}
