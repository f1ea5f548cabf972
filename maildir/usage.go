package maildir

import (
	"context"
	"errors"

	"golang.org/x/sys/unix"

	"imapd/maildir/quota"
	"imapd/maildir/vfs"
)

// The file maildirsize belongs to the user's Maildir as a whole. It is kept in
// step where there is one, after the change and without a lock. That it cannot be
// is no reason to refuse what has been done already: the log has it.

// usageOf returns what the message takes that has the file name in dir, cur/ or new/
// of a folder, which may be the trash, by rule.
func usageOf(rule quota.Rule, trash bool, dir vfs.Dir, name string) quota.Usage {
	if !rule.Counts(trash, parseFlags(name)&Deleted != 0) {
		return quota.Usage{}
	}
	return takenBy(dir, name)
}

// takenBy returns what a message takes. The size is that which its name claims, as
// everybody counts it; without one stat(2) says it.
func takenBy(dir vfs.Dir, name string) quota.Usage {
	size := sizeField([]byte(name[:baseLen(name)]), ",S=")
	if size < 0 {
		var st unix.Stat_t
		if unix.Fstatat(dir.Fd(), name, &st, unix.AT_SYMLINK_NOFOLLOW) != nil {
			return quota.Usage{}
		}
		size = st.Size
	}
	return quota.Usage{Octets: size, Messages: 1}
}

// isTrash reports whether path is that of the folder that Courier does not count.
func (s *Store) isTrash(path string) bool { return path == s.cfg.Root+"/.Trash" }

// countingRule is quotaRule with a slot.
func (s *Store) countingRule() quota.Rule {
	leave, err := s.slot(context.Background())
	if err != nil {
		return quota.None
	}
	defer leave()
	return s.quotaRule()
}

func (m *Mailbox) isTrash() bool { return m.store.isTrash(m.where()) }

// quotaRule returns which messages of the user count in maildirsize.
func (s *Store) quotaRule() quota.Rule {
	if !s.tree.UserHas(quota.Name) {
		return quota.None
	}
	dir, err := s.tree.OpenUser()
	if err != nil {
		return quota.None
	}
	defer dir.Close()
	return quota.RuleOf(dir)
}

// charge notes a change of what the user's folders hold. It may have to count all
// of them: no Mailbox.mu is held, nor the lock of a folder that lives on.
func (s *Store) charge(change quota.Usage) {
	if change != (quota.Usage{}) {
		s.chargeBy(func(quota.Rule) quota.Usage { return change })
	}
}

// chargeBy is charge for a change that depends on the rule.
func (s *Store) chargeBy(change func(quota.Rule) quota.Usage) {
	leave, err := s.slot(context.Background()) // what was changed is changed
	if err != nil {
		return
	}
	defer leave()
	dir, err := s.tree.OpenUser()
	if err == nil {
		defer dir.Close()
		if err = quota.Append(dir, change(quota.RuleOf(dir))); errors.Is(err, quota.ErrRecount) {
			err = s.recount(dir)
		}
	}
	if err != nil {
		s.outOfStep(err)
	}
}

func (s *Store) outOfStep(err error) {
	s.host.opt.Log.Warn("maildirsize is not in step", "root", s.cfg.Root, "err", err)
}

// reflag notes in freed what the message takes that has the file name in cur/, if its
// flags, which were was, make it count by rule, or count no more.
func (m *Mailbox) reflag(rule quota.Rule, name string, was, is Flags) {
	if (was^is)&Deleted == 0 {
		return
	}
	trash := m.isTrash()
	switch counted, counts := rule.Counts(trash, was&Deleted != 0), rule.Counts(trash, is&Deleted != 0); {
	case counted && !counts:
		m.freed = m.freed.Add(takenBy(m.cur, name))
	case counts && !counted:
		m.freed = m.freed.Minus(takenBy(m.cur, name))
	}
}

// chargeFreed notes what messages that are gone, or do not count any more, have taken.
func (m *Mailbox) chargeFreed() {
	m.mu.Lock()
	freed := m.freed
	m.freed = quota.Usage{}
	m.mu.Unlock()
	m.store.charge(quota.Usage{}.Minus(freed))
}

// recounts bounds how often a Maildir is counted that changes meanwhile.
const recounts = 3

// recount counts all messages and writes the file anew. A count during which a
// folder has changed may be wrong, and is not written: the next change counts
// again.
func (s *Store) recount(dir vfs.Dir) error {
	for range recounts {
		before, err := s.folderTimes()
		if err != nil {
			return err
		}
		var sum quota.Usage
		rule := quota.RuleOf(dir)
		for path := range before {
			u, err := s.folderUsage(rule, path)
			if err != nil {
				return err
			}
			sum = sum.Add(u)
		}
		after, err := s.folderTimes()
		if err != nil {
			return err
		}
		if sameTimes(before, after) {
			return quota.Replace(dir, sum)
		}
	}
	return nil
}

// folderTimes returns the modification times of cur/ and new/ of each folder.
func (s *Store) folderTimes() (map[string][2]int64, error) {
	folders, err := s.tree.List()
	if err != nil {
		return nil, err
	}
	times := make(map[string][2]int64, len(folders))
	for _, f := range folders {
		path, _, err := s.tree.Path(f.Name)
		if !f.Exists || err != nil {
			continue
		}
		var t [2]int64
		for i, sub := range []string{"/cur", "/new"} {
			var st unix.Stat_t
			if unix.Stat(path+sub, &st) == nil {
				t[i] = st.Mtim.Nano()
			}
		}
		times[path] = t
	}
	return times, nil
}

func sameTimes(a, b map[string][2]int64) bool {
	for path, t := range a {
		if b[path] != t {
			return false
		}
	}
	return len(a) == len(b)
}

// folderTakes is folderUsage with a slot.
func (s *Store) folderTakes(rule quota.Rule, path string) (quota.Usage, error) {
	leave, err := s.slot(context.Background())
	if err != nil {
		return quota.Usage{}, err
	}
	defer leave()
	return s.folderUsage(rule, path)
}

// folderUsage counts the messages of the folder at path by rule. What is not there
// takes nothing.
func (s *Store) folderUsage(rule quota.Rule, path string) (sum quota.Usage, err error) {
	trash := s.isTrash(path)
	for _, sub := range []string{"/new", "/cur"} {
		dir, err := s.host.opt.Open(path + sub)
		if err != nil {
			if openError(path, err) != err {
				continue
			}
			return sum, err
		}
		_, err = scanDir(dir.Fd(), func(name []byte) { sum = sum.Add(usageOf(rule, trash, dir, string(name))) })
		dir.Close()
		if err != nil {
			return sum, err
		}
	}
	return sum, nil
}
