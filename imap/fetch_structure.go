package imap

import (
	"imapd/imap/body"
	"imapd/imap/wire"
)

func writeBodyStructure(f *Fetching) error { return f.writeStructure("BODYSTRUCTURE ", true) }

// writeBody is BODY without a section: BODYSTRUCTURE without extension data.
func writeBody(f *Fetching) error { return f.writeStructure("BODY ", false) }

func (f *Fetching) writeStructure(label string, extended bool) error {
	root, err := f.tree()
	if err != nil {
		return err
	}
	f.out = append(f.out, label...)
	return f.appendStructure(root, extended)
}

// appendStructure appends the body of p: RFC 9051 section 7.5.2, BODYSTRUCTURE. The
// recursion is as deep as body.Limits let parts nest.
func (s *Session) appendStructure(p *body.Part, extended bool) error {
	s.out = append(s.out, '(')
	if p.Kind == body.Multipart {
		for _, c := range p.Children() {
			if err := s.appendStructure(c, extended); err != nil {
				return err
			}
		}
		s.out = append(s.out, ' ')
		s.appendString(p.Subtype)
		if extended {
			s.out = append(s.out, ' ')
			s.appendParams(p.Params)
		}
	} else if err := s.appendSinglePart(p, extended); err != nil {
		return err
	}
	if extended {
		s.appendExtension(p)
	}
	s.out = append(s.out, ')')
	return s.spill()
}

// appendSinglePart appends what stands in the list of a part that is no
// multipart, up to body-fld-md5.
func (s *Session) appendSinglePart(p *body.Part, extended bool) error {
	s.appendString(p.Type)
	s.out = append(s.out, ' ')
	s.appendString(p.Subtype)
	s.out = append(s.out, ' ')
	s.appendParams(p.Params)
	s.out = append(s.out, ' ')
	s.appendNString(p.ID)
	s.out = append(s.out, ' ')
	s.appendNString(p.Description)
	s.out = append(s.out, ' ')
	s.appendString(p.Encoding)
	s.out = append(s.out, ' ')
	s.out = wire.AppendNumber(s.out, p.Body.Size)
	if p.Kind == body.Message {
		s.out = append(s.out, ' ')
		s.appendEnvelope(p.Parts[0].Envelope)
		s.out = append(s.out, ' ')
		if err := s.appendStructure(p.Parts[0], extended); err != nil {
			return err
		}
	}
	if p.Kind == body.Message || p.IsText() {
		s.out = append(s.out, ' ')
		s.out = wire.AppendNumber(s.out, p.Body.Lines)
	}
	if extended {
		s.out = append(s.out, ' ')
		s.appendNString(p.MD5)
	}
	return nil
}

// appendExtension appends disposition, language and location.
func (s *Session) appendExtension(p *body.Part) {
	s.out = append(s.out, ' ')
	if p.Disposition == nil {
		s.out = append(s.out, "NIL"...)
	} else {
		s.out = append(s.out, '(')
		s.appendString(p.Disposition.Type)
		s.out = append(s.out, ' ')
		s.appendParams(p.Disposition.Params)
		s.out = append(s.out, ')')
	}
	s.out = append(s.out, ' ')
	s.appendLanguage(p.Language)
	s.out = append(s.out, ' ')
	s.appendNString(p.Location)
}

func (s *Session) appendLanguage(tags []string) {
	if len(tags) == 0 {
		s.out = append(s.out, "NIL"...)
		return
	}
	for i, tag := range tags {
		if i == 0 {
			s.out = append(s.out, '(')
		} else {
			s.out = append(s.out, ' ')
		}
		s.appendString(tag)
	}
	s.out = append(s.out, ')')
}

func (s *Session) appendParams(params []body.Param) {
	if len(params) == 0 {
		s.out = append(s.out, "NIL"...)
		return
	}
	s.out = append(s.out, '(')
	for i, p := range params {
		if i > 0 {
			s.out = append(s.out, ' ')
		}
		s.appendString(p.Name)
		s.out = append(s.out, ' ')
		s.appendString(p.Value)
	}
	s.out = append(s.out, ')')
}
