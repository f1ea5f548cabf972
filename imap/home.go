package imap

import (
	"context"
	"errors"
	"io/fs"
	"os"
	"path/filepath"

	"imapd/control/config"
	"imapd/maildir"
	"imapd/maildir/tree"
	"imapd/sasl"
)

// openStore opens the mail of a user who has just logged in, and makes what a
// new user needs.
func (srv *Server) openStore(ctx context.Context, u sasl.User) (*maildir.Store, error) {
	c, err := srv.place(u)
	if err != nil {
		return nil, err
	}
	_, err = os.Stat(filepath.Join(c.Root, c.Inbox, "cur"))
	if errors.Is(err, fs.ErrNotExist) {
		return srv.newHome(ctx, c)
	}
	return srv.opt.Host.Open(c)
}

// place returns where the mail of u lies, and how.
func (srv *Server) place(u sasl.User) (tree.Config, error) {
	conf := srv.opt.Config
	root, err := config.Expand(conf.Maildir, u.Name, u.Home)
	if err != nil {
		return tree.Config{}, err
	}
	c := tree.Config{
		Root: root, Inbox: conf.MaildirInbox, Separator: conf.MaildirSeparator, Prefix: conf.MaildirPrefix,
		MaxName: conf.Limits.MailboxName, MaxFolders: conf.Limits.Mailboxes,
	}
	if conf.MaildirControl != "" {
		if c.Control, err = config.Expand(conf.MaildirControl, u.Name, u.Home); err != nil {
			return tree.Config{}, err
		}
	}
	if conf.IndexDirectory != "" {
		if c.Index, err = config.Expand(conf.IndexDirectory, u.Name, u.Home); err != nil {
			return tree.Config{}, err
		}
	}
	switch conf.MaildirLayout {
	case config.LayoutMaildir:
		c.Layout = tree.PlusPlus
	case config.LayoutFS:
		c.Layout = tree.FS
	}
	switch conf.MaildirNames {
	case config.NamesUTF7:
		c.Names = tree.UTF7
	case config.NamesUTF8:
		c.Names = tree.UTF8
	}
	return c, nil
}

// newHome makes the Maildir of a user who has none, with the folders that the
// configuration asks for. What fails after the Maildir itself is logged only:
// the user can make folders too.
func (srv *Server) newHome(ctx context.Context, c tree.Config) (*maildir.Store, error) {
	store, err := srv.opt.Host.Open(c)
	if err != nil {
		return nil, err
	}
	if err := store.Init(); err != nil {
		return nil, err
	}
	conf := srv.opt.Config
	for _, name := range conf.AutocreateInboxFolders {
		if err := store.Create(ctx, c.Prefix+name); err != nil && !errors.Is(err, maildir.ErrExists) {
			srv.log.Warn("cannot create folder for a new user", "root", c.Root, "mailbox", name, "error", err)
		}
	}
	for _, name := range conf.AutocreateSubscribeFolders {
		if err := store.Subscribe(c.Prefix + name); err != nil {
			srv.log.Warn("cannot subscribe a new user", "root", c.Root, "mailbox", name, "error", err)
		}
	}
	return store, nil
}
