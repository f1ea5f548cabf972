package dovecotindex

import (
	"encoding/binary"
)

// baseHeader is the size of the header of dovecot.index without extensions.
// A later version may have a larger one, which begins alike.
const baseHeader = 120

// major is the version of dovecot.index that is understood.
const major = 7

// littleEndian is a bit of the header's compat_flags.
const littleEndian = 1

// parseIndex reads dovecot.index: the header
//
//	 0 major version  1 minor version  2 size of the base header (16 bits)
//	 4 size of the whole header  8 size of a record  12 compat flags
//	16 id of the index  24 UIDVALIDITY  32 number of messages
//	60 sequence number of the log  68 octet of it up to which this is complete
//
// then the extensions, then the records, of which the first four octets are the
// UID.
func (s *state) parseIndex(r reader) error {
	if err := r.at(s.header[:], 0); err != nil {
		return err
	}
	le := binary.LittleEndian
	base, whole := int(le.Uint16(s.header[2:])), int64(le.Uint32(s.header[4:]))
	size, count := int64(le.Uint32(s.header[8:])), int64(le.Uint32(s.header[32:]))
	switch {
	case s.header[0] != major || s.header[12]&littleEndian == 0:
		return damaged("it is of another version")
	case base < baseHeader || int64(base) > whole || whole > maxHeader || size < 5 || size > 1<<16:
		return damaged("its header makes no sense")
	case count > maxMessages || whole+count*size > r.size:
		return damaged("it has fewer messages than it says")
	}
	s.id, s.seq, s.offset = le.Uint32(s.header[16:]), le.Uint32(s.header[60:]), le.Uint32(s.header[68:])
	s.record = int(size)
	header := make([]byte, whole)
	if err := r.at(header, 0); err != nil {
		return err
	}
	if err := s.extensions(header, pad(base, 8)); err != nil {
		return err
	}
	return s.records(r, whole, count)
}

// extensions reads what follows the base header. Each begins, at a multiple of
// eight octets, with
//
//	 0 size of its data  8 offset in a record (16 bits)  10 size in a record
//	14 length of its name
//
// then come the name and, again at a multiple of eight, the data.
func (s *state) extensions(header []byte, at int) error {
	le := binary.LittleEndian
	for at < len(header) {
		h, rest, ok := cut(header[at:], 16)
		if !ok {
			return damaged("an extension is cut off")
		}
		in := field{int(le.Uint16(h[8:])), int(le.Uint16(h[10:]))}
		name, _, ok := cut(rest, int(le.Uint16(h[14:])))
		if !ok || in.offset+in.size > s.record {
			return damaged("an extension makes no sense")
		}
		from, size := pad(at+16+len(name), 8), int64(le.Uint32(h))
		if int64(from)+size > int64(len(header)) {
			return damaged("an extension is cut off")
		}
		if err := s.extension(string(name), in, header[from:from+int(size)]); err != nil {
			return err
		}
		at = pad(from+int(size), 8)
	}
	return nil
}

func (s *state) extension(name string, in field, data []byte) error {
	switch name {
	case "keywords":
		s.bitmask = in
		return s.keywordNames(data)
	case "modseq":
		if in.size == 8 {
			s.modseqs = in
		}
		if len(data) >= 8 {
			s.raise(binary.LittleEndian.Uint64(data))
		}
	}
	return nil
}

// keywordNames reads the data of the extension keywords: a count, for each one
// four octets without meaning and the offset of its name, then the names, with
// a NUL behind each.
func (s *state) keywordNames(data []byte) error {
	if len(data) == 0 {
		return nil
	}
	head, rest, ok := cut(data, 4)
	if !ok {
		return damaged("its keywords are cut off")
	}
	count := int64(binary.LittleEndian.Uint32(head))
	if count > maxKeywords || 8*count > int64(len(rest)) {
		return damaged("its keywords are cut off")
	}
	table, names := rest[:8*count], rest[8*count:]
	for i := range int(count) {
		from := binary.LittleEndian.Uint32(table[8*i+4:])
		if int64(from) >= int64(len(names)) {
			return damaged("a keyword has no name")
		}
		if n, err := s.keyword(nameOf(names[from:])); err != nil || n != i {
			return damaged("a keyword is none, or is there twice")
		}
	}
	return nil
}

// records reads the messages, a megabyte at a time.
func (s *state) records(r reader, at, count int64) error {
	size := int64(s.record)
	chunk := make([]byte, min(count, 1+(1<<20)/size)*size)
	for count > 0 {
		n := min(count, int64(len(chunk))/size)
		b := chunk[:n*size]
		if err := r.at(b, at); err != nil {
			return err
		}
		for i := range n {
			if err := s.message(b[i*size : (i+1)*size]); err != nil {
				return err
			}
		}
		at, count = at+n*size, count-n
	}
	return nil
}

// message reads the record of one message.
func (s *state) message(rec []byte) error {
	if err := s.add(binary.LittleEndian.Uint32(rec)); err != nil {
		return err
	}
	if f := s.modseqs; f.size == 8 {
		s.raise(binary.LittleEndian.Uint64(rec[f.offset:]))
	}
	for i, octet := range rec[s.bitmask.offset : s.bitmask.offset+s.bitmask.size] {
		for bit := range 8 {
			k := 8*i + bit
			if octet&(1<<bit) == 0 || k >= len(s.have) {
				continue
			}
			if err := s.put(&s.have[k], len(s.uids)-1, len(s.uids), true); err != nil {
				return err
			}
		}
	}
	return nil
}
