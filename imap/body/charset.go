package body

import (
	"golang.org/x/text/encoding"
	"golang.org/x/text/encoding/charmap"
	"golang.org/x/text/encoding/japanese"
	"golang.org/x/text/encoding/korean"
	"golang.org/x/text/encoding/simplifiedchinese"
	"golang.org/x/text/encoding/traditionalchinese"
	"golang.org/x/text/encoding/unicode"
	"golang.org/x/text/encoding/unicode/utf32"
	"golang.org/x/text/transform"
)

// The names of charsets are a switch and not a map or package ianaindex: those cost 0.15 ms at each start of the
// program.

type transformer = transform.Transformer

var (
	errShortDst = transform.ErrShortDst
	errShortSrc = transform.ErrShortSrc
)

// newConversion begins to convert text; that in an unknown charset, and US-ASCII, is taken for UTF-8.
func newConversion(charset string) *conversion {
	if e := charsetByName(charset); e != nil {
		return &conversion{t: e.NewDecoder().Transformer}
	}
	return new(conversion)
}

// KnownCharset reports whether text in the charset can be searched and searched for: SEARCH CHARSET answers
// NO [BADCHARSET] for others. Names are those of IANA and their common misspellings, in any case.
func KnownCharset(name string) bool {
	switch squeeze(name) {
	case "utf8", "usascii", "ascii", "ansix341968", "iso646us":
		return true
	}
	return charsetByName(name) != nil
}

// ToUTF8 converts text from a charset, U+FFFD for what is broken. Text in an unknown charset is taken for UTF-8.
func ToUTF8(charset string, b []byte) string { return string(toUTF8(charset, b)) }

// squeeze makes the name lower case, without punctuation: ISO_8859-1 and iso8859-1 are one.
func squeeze(name string) string {
	b := make([]byte, 0, 32)
	for i := 0; i < len(name) && len(b) < cap(b); i++ {
		if c := lower(name[i]); 'a' <= c && c <= 'z' || '0' <= c && c <= '9' {
			b = append(b, c)
		}
	}
	return string(b)
}

// charsetByName returns nil for UTF-8 and US-ASCII too.
func charsetByName(name string) encoding.Encoding {
	name = squeeze(name)
	if e := singleByte(name); e != nil {
		return e
	}
	switch name {
	case "shiftjis", "sjis", "xsjis", "mskanji", "csshiftjis", "windows31j", "cp932", "ms932":
		return japanese.ShiftJIS
	case "eucjp", "xeucjp", "cseucpkdfmtjapanese":
		return japanese.EUCJP
	case "iso2022jp", "csiso2022jp", "iso2022jp1", "iso2022jpms":
		return japanese.ISO2022JP
	case "euckr", "cseuckr", "ksc56011987", "ksc5601", "ksc56011989", "isoir149", "korean", "windows949", "cp949", "uhc":
		return korean.EUCKR
	case "gb2312", "csgb2312", "gbk", "cp936", "ms936", "windows936", "gb231280", "xgbk", "euccn", "chinese":
		return simplifiedchinese.GBK
	case "gb18030":
		return simplifiedchinese.GB18030
	case "hzgb2312", "hz":
		return simplifiedchinese.HZGB2312
	case "big5", "big5hkscs", "csbig5", "cnbig5", "xxbig5", "cp950", "windows950":
		return traditionalchinese.Big5
	case "utf7", "csutf7", "unicode11utf7":
		return utf7{}
	case "utf16", "csutf16", "ucs2", "iso10646ucs2":
		return unicode.UTF16(unicode.BigEndian, unicode.UseBOM)
	case "utf16be":
		return unicode.UTF16(unicode.BigEndian, unicode.IgnoreBOM)
	case "utf16le":
		return unicode.UTF16(unicode.LittleEndian, unicode.IgnoreBOM)
	case "utf32", "ucs4":
		return utf32.UTF32(utf32.BigEndian, utf32.UseBOM)
	case "utf32be":
		return utf32.UTF32(utf32.BigEndian, utf32.IgnoreBOM)
	case "utf32le":
		return utf32.UTF32(utf32.LittleEndian, utf32.IgnoreBOM)
	}
	return nil
}

// singleByte returns charsets of one octet a character. ISO 8859-1 is read as windows-1252, of which it is a subset
// as far as text goes.
func singleByte(name string) encoding.Encoding {
	switch name {
	case "iso88591", "latin1", "l1", "iso885911987", "isoir100", "windows1252", "cp1252", "cp819", "ibm819", "xansi", "ansi":
		return charmap.Windows1252
	case "iso88592", "latin2", "l2":
		return charmap.ISO8859_2
	case "iso88593", "latin3", "l3":
		return charmap.ISO8859_3
	case "iso88594", "latin4", "l4":
		return charmap.ISO8859_4
	case "iso88595", "cyrillic":
		return charmap.ISO8859_5
	case "iso88596", "arabic":
		return charmap.ISO8859_6
	case "iso88597", "greek":
		return charmap.ISO8859_7
	case "iso88598", "iso88598i", "hebrew":
		return charmap.ISO8859_8
	case "iso88599", "latin5", "l5", "windows1254", "cp1254":
		return charmap.Windows1254
	case "iso885910", "latin6", "l6":
		return charmap.ISO8859_10
	case "iso885913", "latin7":
		return charmap.ISO8859_13
	case "iso885914", "latin8":
		return charmap.ISO8859_14
	case "iso885915", "latin9", "latin0":
		return charmap.ISO8859_15
	case "iso885916", "latin10":
		return charmap.ISO8859_16
	case "windows1250", "cp1250":
		return charmap.Windows1250
	case "windows1251", "cp1251":
		return charmap.Windows1251
	case "windows1253", "cp1253":
		return charmap.Windows1253
	case "windows1255", "cp1255":
		return charmap.Windows1255
	case "windows1256", "cp1256":
		return charmap.Windows1256
	case "windows1257", "cp1257":
		return charmap.Windows1257
	case "windows1258", "cp1258":
		return charmap.Windows1258
	case "iso885911", "tis620", "windows874", "cp874":
		return charmap.Windows874
	case "koi8r", "koi8", "cskoi8r":
		return charmap.KOI8R
	case "koi8u", "koi8ru":
		return charmap.KOI8U
	case "macintosh", "mac", "macroman", "xmacroman":
		return charmap.Macintosh
	case "xmaccyrillic", "maccyrillic":
		return charmap.MacintoshCyrillic
	}
	return codePage(name)
}

// codePage returns the code pages of DOS and of mainframes.
func codePage(name string) encoding.Encoding {
	switch name {
	case "ibm437", "cp437", "437":
		return charmap.CodePage437
	case "ibm850", "cp850", "850":
		return charmap.CodePage850
	case "ibm852", "cp852", "852":
		return charmap.CodePage852
	case "ibm855", "cp855":
		return charmap.CodePage855
	case "ibm858", "cp858", "ibm00858":
		return charmap.CodePage858
	case "ibm860", "cp860":
		return charmap.CodePage860
	case "ibm862", "cp862":
		return charmap.CodePage862
	case "ibm863", "cp863":
		return charmap.CodePage863
	case "ibm865", "cp865":
		return charmap.CodePage865
	case "ibm866", "cp866", "866":
		return charmap.CodePage866
	case "ibm037", "cp037":
		return charmap.CodePage037
	}
	return nil
}
