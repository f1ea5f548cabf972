package uidlist

import (
	"bytes"
	"context"
	"fmt"
	"log/slog"
	"os"
	"strings"
	"testing"
	"testing/synctest"
	"time"
)

// TestWaitTold holds that the log says once who holds a lock for which somebody waits
// for long, or waited in vain, and that who waits is told how long he will.
func TestWaitTold(t *testing.T) {
	dir, path := folder(t)
	var out bytes.Buffer
	locks := Locks{Log: slog.New(slog.NewTextHandler(&out, nil))}
	synctest.Test(t, func(t *testing.T) {
		write(t, path+"/"+LockName, "4711:old host")
		then := time.Now().Add(-30 * time.Second)
		if err := os.Chtimes(path+"/"+LockName, then, then); err != nil {
			t.Fatal(err)
		}
		var left []time.Duration
		told := OnWait(t.Context(), func(d time.Duration) { left = append(left, d.Round(time.Second)) })
		wait := func(limit time.Duration) {
			ctx, cancel := context.WithTimeout(told, limit)
			defer cancel()
			if _, err := locks.Acquire(ctx, dir, LockName); err == nil {
				t.Fatal("the lock was had")
			}
		}
		lines := func(want int, message string) {
			t.Helper()
			got := out.String()
			if strings.Count(got, "\n") != want || want > 0 && !strings.Contains(got, message+`" lock=`+path+"/"+LockName+` holder="4711:old host" age=`) {
				t.Errorf("logged:\n%s", got)
			}
		}
		wait(100 * time.Millisecond)
		lines(0, "")
		wait(time.Second)
		lines(1, "a lock is not given back, what needed it is not done")
		wait(time.Second) // of the same lock nothing more is said
		lines(1, "")
		if left != nil {
			t.Errorf("a short wait is told: %v", left)
		}
		out.Reset()
		time.Sleep(toldFor)
		wait(70 * time.Second)
		lines(1, "waiting for a lock")
		if got := fmt.Sprint(left); got != "[1m5s 35s 5s]" {
			t.Errorf("told %s", got)
		}
	})
}

// TestWaitBehind holds that those who wait behind another of this process are told
// as well, and nobody whose context says so not.
func TestWaitBehind(t *testing.T) {
	dir, _ := folder(t)
	synctest.Test(t, func(t *testing.T) {
		var locks Locks
		l, err := locks.Acquire(t.Context(), dir, LockName)
		if err != nil {
			t.Fatal(err)
		}
		told := 0
		ctx, cancel := context.WithTimeout(OnWait(t.Context(), func(time.Duration) { told++ }), 40*time.Second)
		defer cancel()
		if _, err := locks.Acquire(ctx, dir, LockName); err == nil || told != 2 {
			t.Errorf("told %d times, %v", told, err)
		}
		ctx, cancel = context.WithTimeout(OnWait(ctx, nil), 0)
		defer cancel()
		locks.Acquire(ctx, dir, LockName)
		if err := l.Unlock(); err != nil {
			t.Error(err)
		}
	})
}

// TestTakenAwayLogged holds that the log says whose lock was taken away.
func TestTakenAwayLogged(t *testing.T) {
	t.Parallel()
	dir, path := folder(t)
	var out bytes.Buffer
	locks := Locks{Log: slog.New(slog.NewTextHandler(&out, nil))}
	content := fmt.Sprintf("%d:%s", deadPid(t), hostname())
	lock(t, path, content, time.Hour)
	l, err := locks.Try(dir, LockName)
	if err != nil {
		t.Fatal(err)
	}
	defer l.Unlock()
	if got := out.String(); strings.Count(got, "\n") != 1 || !strings.Contains(got, `its owner is gone" lock=`+path+"/"+LockName+" holder="+content+" age=") {
		t.Errorf("logged:\n%s", got)
	}
}
