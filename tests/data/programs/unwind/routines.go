// Goroutines that hash, sort with a comparison, fill maps and recover from panics.
package main

import (
	"crypto/sha256"
	"sort"
	"strings"
	"sync"
)

//go:noinline
func hash(text string) byte {
	sum := sha256.Sum256([]byte(strings.ToUpper(text)))
	return sum[0]
}

//go:noinline
func order(seed int) int {
	values := make([]int, 1500)
	for at := range values {
		values[at] = at * seed % 7919
	}
	sort.Slice(values, func(left, right int) bool { return values[left] < values[right] })
	return values[7]
}

//go:noinline
func count(seed int) int {
	counts := map[int]int{}
	for at := 0; at < 500; at++ {
		counts[at*seed%97] += at
	}
	return len(counts)
}

//go:noinline
func refuse(depth int) int {
	if depth == 0 {
		panic("no deeper")
	}
	return refuse(depth-1) + 1
}

//go:noinline
func attempt(depth int) (result int) {
	defer func() {
		if recover() != nil {
			result = 1
		}
	}()
	return refuse(depth)
}

//go:noinline
func work(text string, turns <-chan int, done *sync.WaitGroup) {
	state := uint32(1)
	for number := range turns {
		state = state*1103515245 + 12345 // no turn is as long as the one before
		for turn := 0; turn < 24+int(state>>27); turn++ {
			hash(text)
		}
		order(number)
		count(number)
		attempt(number % 8)
	}
	done.Done()
}

func main() {
	var done sync.WaitGroup
	turns := make(chan int, 16)
	text := strings.Repeat("flame ", 300)
	for worker := 0; worker < 2; worker++ {
		done.Add(1)
		go work(text, turns, &done)
	}
	for number := 1; ; number++ {
		turns <- number
	}
}
