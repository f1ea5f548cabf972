package control

import (
	"runtime"
	"runtime/debug"
	"sync"
	"time"
)

// A server that was busy, as when ten thousand clients have come back at once,
// holds much memory that it does not need any more: buffers in pools, stacks that
// have grown (each collection halves them), and heap that the runtime gives back
// to the system over hours. Connections that are idle are to cost little, so it is
// given back when things have become quiet. That costs the time of three
// collections, once after each busy time. Nobody looks while no client comes or
// goes, and no session falls silent: a server with nothing to do is not woken.
const (
	restEvery = 5 * time.Second  // how often to look
	restLeast = 30 * time.Second // from one giving back to the next
	restQuiet = 8 << 20          // octets allocated from look to look: less is quiet
	restWorth = 4 << 20          // octets allocated since the last giving back: less is not worth it
)

// rest gives memory back in quiet times after stir was called, until stop is. stir
// may be called by any goroutine, does not block, and wakes nobody while a look is due.
func rest() (stir, stop func()) {
	done, stirred := make(chan struct{}), make(chan struct{}, 1)
	var ended sync.WaitGroup
	ended.Go(func() {
		before, last, when := uint64(0), uint64(0), time.Time{}
		for busy := false; ; {
			if !busy {
				select {
				case <-done:
					return
				case <-stirred:
				}
			}
			select {
			case <-done:
				return
			case <-time.After(restEvery):
			}
			select {
			case <-stirred: // this look sees what it was for
			default:
			}
			now := allocated()
			if now-before < restQuiet && now-last > restWorth && time.Since(when) > restLeast {
				runtime.GC()
				runtime.GC()
				debug.FreeOSMemory()
				now = allocated()
				last, when = now, time.Now()
			}
			busy = now-before >= restQuiet || now-last > restWorth
			before = now
		}
	})
	stir = func() {
		select {
		case stirred <- struct{}{}:
		default: // it is known already
		}
	}
	return stir, func() {
		close(done)
		ended.Wait()
	}
}

// allocated returns how many octets the process has allocated in all its life.
// Package runtime/metrics could say it without a pause, but costs every start of
// every process more than all these pauses.
func allocated() uint64 {
	var s runtime.MemStats
	runtime.ReadMemStats(&s)
	return s.TotalAlloc
}
