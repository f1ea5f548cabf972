package imap

import (
	"imapd/control/config"
	"imapd/maildir"
	"imapd/maildir/tree"
	"imapd/sasl"
)

// openStore opens the mail of a user who has just logged in.
func (srv *Server) openStore(u sasl.User) (*maildir.Store, error) {
	c, err := srv.place(u)
	if err != nil {
		return nil, err
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
	c := tree.Config{Root: root, Separator: conf.MaildirSeparator, Prefix: conf.MaildirPrefix}
	if conf.MaildirControl != "" {
		if c.Control, err = config.Expand(conf.MaildirControl, u.Name, u.Home); err != nil {
			return tree.Config{}, err
		}
	}
	return c, nil
}
