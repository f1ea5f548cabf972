package control

import (
	"errors"
	"io/fs"
	"log/slog"
	"path/filepath"
	"slices"
	"strings"
	"syscall"

	"imapd/control/privsep"
)

// A link in somebody's mail may lead to where landlock lets this process not go.
// All that is heard of it then is that permission is denied, and the modes of the
// files, which an administrator looks at, say otherwise. So the log says why.

// confine takes everything but r from this process, and has log know of it.
func confine(r privsep.Rights, log *slog.Logger) error {
	if err := privsep.Confine(r); err != nil {
		return err
	}
	if h, ok := log.Handler().(*handler); ok {
		h.page.mu.Lock()
		defer h.page.mu.Unlock()
		h.page.within = r.Write
	}
	return nil
}

// beyond tells whether a record is about a file that links have led to, out of
// the directories dirs.
func beyond(r slog.Record, dirs []string) (found bool) {
	if dirs == nil {
		return false
	}
	r.Attrs(func(a slog.Attr) bool {
		err, ok := a.Value.Any().(error)
		var path *fs.PathError
		found = ok && errors.Is(err, syscall.EACCES) && errors.As(err, &path) && leadsOut(path.Path, dirs)
		return !found
	})
	return found
}

// leadsOut tells whether path, its links followed, is in none of dirs. A file that
// is not there is where its directory is.
func leadsOut(path string, dirs []string) bool {
	real, err := filepath.EvalSymlinks(path) // for which landlock has no rights
	if err != nil {
		if real, err = filepath.EvalSymlinks(filepath.Dir(path)); err != nil {
			return false
		}
	}
	return !slices.ContainsFunc(dirs, func(dir string) bool {
		dir, err := filepath.EvalSymlinks(dir)
		return err != nil || real == dir || strings.HasPrefix(real, dir+"/")
	})
}
