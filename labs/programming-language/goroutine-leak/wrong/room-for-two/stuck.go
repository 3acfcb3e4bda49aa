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

// The innermost function of a stack that is not the runtime's.
func innermost(stack []uintptr) string {
	frames := runtime.CallersFrames(stack)
	for {
		frame, more := frames.Next()
		if !more || !strings.HasPrefix(frame.Function, "runtime.") {
			return frame.Function
		}
	}
}
