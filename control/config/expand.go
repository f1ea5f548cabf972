package config

import (
	"errors"
	"fmt"
	"strings"
)

// ErrTemplateUser is what Expand's errors match when the user's name, not the
// template, is at fault.
var ErrTemplateUser = errors.New("user name unfit for a path")

// Expand returns the path that a template like "/var/mail/%d/%n" names for
// user, whose home directory is home (empty when unknown). %u is the user, %n
// what stands before its last "@", %d what stands after it, %% a percent sign;
// "~" at the start is home. What was put in is never expanded again.
//
// The user's name must be fit for a component of a path: not empty, without
// "/", "..", and control characters, and none of its parts that the template
// uses may be empty or ".".
func Expand(template, user, home string) (string, error) {
	if err := checkTemplate(template); err != nil {
		return "", err
	}
	if user == "" || strings.Contains(user, "/") || strings.Contains(user, "..") {
		return "", fmt.Errorf("%w: %q", ErrTemplateUser, user)
	}
	for i := 0; i < len(user); i++ {
		if user[i] < ' ' || user[i] == 0x7f {
			return "", fmt.Errorf("%w: %q", ErrTemplateUser, user)
		}
	}
	local, domain := user, ""
	if at := strings.LastIndexByte(user, '@'); at >= 0 {
		local, domain = user[:at], user[at+1:]
	}
	var b strings.Builder
	if rest, ok := strings.CutPrefix(template, "~"); ok {
		if !strings.HasPrefix(home, "/") {
			return "", fmt.Errorf("%w: %q has no home directory", ErrTemplateUser, user)
		}
		b.WriteString(strings.TrimRight(home, "/"))
		template = rest
	}
	for {
		before, after, found := strings.Cut(template, "%")
		b.WriteString(before)
		if !found {
			return b.String(), nil
		}
		part := "%"
		switch after[0] {
		case 'u':
			part = user
		case 'n':
			part = local
		case 'd':
			part = domain
		}
		if part == "" || part == "." {
			return "", fmt.Errorf("%w: %%%c of %q", ErrTemplateUser, after[0], user)
		}
		b.WriteString(part)
		template = after[1:]
	}
}

// checkTemplate tells what is wrong with a template of Expand.
func checkTemplate(t string) error {
	if !strings.HasPrefix(t, "/") && t != "~" && !strings.HasPrefix(t, "~/") {
		return errors.New("must start with / or ~/")
	}
	for {
		_, after, found := strings.Cut(t, "%")
		if !found {
			return nil
		}
		if after == "" || !strings.Contains("und%", after[:1]) {
			return errors.New("has a % that is none of %u, %n, %d and %%")
		}
		t = after[1:]
	}
}
