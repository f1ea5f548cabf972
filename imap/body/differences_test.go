package body

// A difference from Dovecot, on purpose.
type difference struct {
	ours, why string
}

const (
	dovecotLowers  = "Dovecot remembers that a part is plain 7bit text, and then writes BODY, but not BODYSTRUCTURE, in small letters"
	dovecotStale   = "Dovecot gives a parameter `*` without number the number of the parameter before it"
	dovecotWraps   = "Dovecot's 32-bit parameter number overflows"
	dovecotDies    = "Dovecot closes the connection when base64 or quoted-printable ends too early (RFC 2045 section 6.7 and 6.8: be robust)"
	dovecotRefuses = "Dovecot refuses broken base64 and quoted-printable; RFC 2045 section 6.8 has decoders ignore strange characters, section 6.7 show them"
	dovecotWhole   = "Dovecot computes BINARY.SIZE of all parts if it needs one, and fails if one cannot be decoded"
	dovecotNewline = "the line end in front of a boundary belongs to the boundary (RFC 2046 section 5.1.1), also where the header of an embedded message ends there; Dovecot gives it to the message/rfc822 part"
	dovecotBeyond  = "Dovecot reads HEADER.FIELDS of an embedded message beyond the end of its header"
	dovecotCR      = "Dovecot's cache makes a CR LF of a CR at the end of the message"
)

// differences has a row for each answer of the corpus that is not Dovecot's.
var differences = map[string]difference{
	"mime/002 BODY":                {`("TEXT" "PLAIN" ("charset" "us-ascii") NIL NIL "7bit" 6 2)`, dovecotLowers},
	"mime/122 BODYSTRUCTURE":       {`("text" "plain" ("charset" "us-ascii") NIL NIL "7bit" 6 2 NIL ("attachment" ("filename*x" "y" "a*1x" "b" "*0*" "c" "*0" "d")) NIL NIL)`, dovecotStale},
	"mime/126 BODYSTRUCTURE":       {`("text" "plain" ("charset" "us-ascii") NIL NIL "7bit" 6 2 NIL ("attachment" ("n*1073741824" "1")) NIL NIL)`, dovecotWraps},
	"encodings/014 BINARY[1]":      {`"hello"`, dovecotDies},
	"encodings/014 BINARY.SIZE[1]": {`5`, dovecotDies},
	"encodings/015 BINARY[1]":      {`"hel"`, dovecotDies},
	"encodings/015 BINARY.SIZE[1]": {`3`, dovecotDies},
	"encodings/018 BINARY[1]":      {`"hello"`, dovecotRefuses},
	"encodings/018 BINARY.SIZE[1]": {`5`, dovecotRefuses},
	"encodings/019 BINARY[1]":      {`"hello"`, dovecotRefuses},
	"encodings/019 BINARY.SIZE[1]": {`5`, dovecotRefuses},
	"encodings/020 BINARY[1]":      {`"hello"`, dovecotRefuses},
	"encodings/020 BINARY.SIZE[1]": {`5`, dovecotRefuses},
	"encodings/025 BINARY[1]":      {`""`, dovecotRefuses},
	"encodings/025 BINARY.SIZE[1]": {`0`, dovecotRefuses},
	"encodings/034 BINARY[1]":      {`"soft at end"`, dovecotDies},
	"encodings/034 BINARY.SIZE[1]": {`11`, dovecotDies},
	"encodings/036 BINARY[1]":      {`"half escape =3"`, dovecotDies},
	"encodings/036 BINARY.SIZE[1]": {`14`, dovecotDies},
	"encodings/037 BINARY[1]":      {`"bad =ZZ escape =3 =g3 ==\r\n"`, dovecotRefuses},
	"encodings/037 BINARY.SIZE[1]": {`26`, dovecotRefuses},
	"encodings/039 BINARY[1]":      {`"bad = x\r\n"`, dovecotRefuses},
	"encodings/039 BINARY.SIZE[1]": {`9`, dovecotRefuses},
	"encodings/040 BINARY[1]":      {`"bare\rcr\r\n"`, dovecotRefuses},
	"encodings/040 BINARY.SIZE[1]": {`9`, dovecotRefuses},
	"encodings/041 BINARY[1]":      {`"bare  \r cr=\r x\r\n"`, dovecotRefuses},
	"encodings/041 BINARY.SIZE[1]": {`16`, dovecotRefuses},
	"messages/cronly BODY[HEADER.FIELDS (From Subject Content-Type X-Long)]": {`"From: a@b\rSubject: x\r\rbody\r\r\n"`, dovecotCR},
	"messages/digest-emptyparts BODYSTRUCTURE":                               {`(("message" "rfc822" NIL NIL NIL "7bit" 0 (NIL NIL NIL NIL NIL NIL NIL NIL NIL NIL) ("text" "plain" ("charset" "us-ascii") NIL NIL "7bit" 0 0 NIL NIL NIL NIL) 0 NIL NIL NIL NIL) ("message" "rfc822" NIL NIL NIL "7bit" 0 (NIL NIL NIL NIL NIL NIL NIL NIL NIL NIL) ("text" "plain" ("charset" "us-ascii") NIL NIL "7bit" 0 0 NIL NIL NIL NIL) 0 NIL NIL NIL NIL) ("message" "rfc822" NIL NIL NIL "7bit" 0 (NIL NIL NIL NIL NIL NIL NIL NIL NIL NIL) ("text" "plain" ("charset" "us-ascii") NIL NIL "7bit" 0 0 NIL NIL NIL NIL) 0 NIL NIL NIL NIL) "digest" ("boundary" "d") NIL NIL NIL)`, dovecotNewline},
	"messages/digest-emptyparts BODY":                                        {`(("message" "rfc822" NIL NIL NIL "7bit" 0 (NIL NIL NIL NIL NIL NIL NIL NIL NIL NIL) ("text" "plain" ("charset" "us-ascii") NIL NIL "7bit" 0 0) 0) ("message" "rfc822" NIL NIL NIL "7bit" 0 (NIL NIL NIL NIL NIL NIL NIL NIL NIL NIL) ("text" "plain" ("charset" "us-ascii") NIL NIL "7bit" 0 0) 0) ("message" "rfc822" NIL NIL NIL "7bit" 0 (NIL NIL NIL NIL NIL NIL NIL NIL NIL NIL) ("text" "plain" ("charset" "us-ascii") NIL NIL "7bit" 0 0) 0) "digest")`, dovecotNewline},
	"messages/digest-emptyparts BODY[1.HEADER.FIELDS (Subject)]":             {`""`, dovecotBeyond},
	"messages/digest-emptyparts BODY[2.HEADER.FIELDS (Subject)]":             {`""`, dovecotBeyond},
	"messages/digest-emptyparts BODY[3]":                                     {`""`, dovecotNewline},
	"messages/digest-emptyparts BODY[3.HEADER.FIELDS (Subject)]":             {`""`, dovecotBeyond},
	"messages/digest-emptyparts BODY[3]<1.4>":                                {`""`, dovecotNewline},
	"messages/rfc822-cut BODYSTRUCTURE":                                      {`(("message" "rfc822" NIL NIL NIL "7bit" 0 (NIL NIL NIL NIL NIL NIL NIL NIL NIL NIL) ("text" "plain" ("charset" "us-ascii") NIL NIL "7bit" 0 0 NIL NIL NIL NIL) 0 NIL NIL NIL NIL) ("message" "rfc822" NIL NIL NIL "7bit" 0 (NIL NIL NIL NIL NIL NIL NIL NIL NIL NIL) ("text" "plain" ("charset" "us-ascii") NIL NIL "7bit" 0 0 NIL NIL NIL NIL) 0 NIL NIL NIL NIL) ("message" "rfc822" NIL NIL NIL "7bit" 12 (NIL "cut" NIL NIL NIL NIL NIL NIL NIL NIL) ("text" "plain" ("charset" "us-ascii") NIL NIL "7bit" 0 0 NIL NIL NIL NIL) 0 NIL NIL NIL NIL) "mixed" ("boundary" "x") NIL NIL NIL)`, dovecotNewline},
	"messages/rfc822-cut BODY":                                               {`(("message" "rfc822" NIL NIL NIL "7bit" 0 (NIL NIL NIL NIL NIL NIL NIL NIL NIL NIL) ("text" "plain" ("charset" "us-ascii") NIL NIL "7bit" 0 0) 0) ("message" "rfc822" NIL NIL NIL "7bit" 0 (NIL NIL NIL NIL NIL NIL NIL NIL NIL NIL) ("text" "plain" ("charset" "us-ascii") NIL NIL "7bit" 0 0) 0) ("message" "rfc822" NIL NIL NIL "7bit" 12 (NIL "cut" NIL NIL NIL NIL NIL NIL NIL NIL) ("text" "plain" ("charset" "us-ascii") NIL NIL "7bit" 0 0) 0) "mixed")`, dovecotNewline},
	"messages/rfc822-cut BODY[1.HEADER.FIELDS (Subject)]":                    {`""`, dovecotBeyond},
	"messages/rfc822-cut BODY[2.HEADER.FIELDS (Subject)]":                    {`""`, dovecotBeyond},
	"messages/rfc822-cut BODY[3]":                                            {`"Subject: cut"`, dovecotNewline},
	"messages/rfc822-cut BODY[3.HEADER.FIELDS (Subject)]":                    {`"Subject: cut"`, dovecotBeyond},
	"messages/rfc822-base64 BODYSTRUCTURE":                                   {`(("message" "rfc822" NIL NIL NIL "base64" 28 (NIL NIL NIL NIL NIL NIL NIL NIL NIL NIL) ("text" "plain" ("charset" "us-ascii") NIL NIL "7bit" 0 0 NIL NIL NIL NIL) 0 NIL NIL NIL NIL) "mixed" ("boundary" "x") NIL NIL NIL)`, dovecotNewline},
	"messages/rfc822-base64 BODY":                                            {`(("message" "rfc822" NIL NIL NIL "base64" 28 (NIL NIL NIL NIL NIL NIL NIL NIL NIL NIL) ("text" "plain" ("charset" "us-ascii") NIL NIL "7bit" 0 0) 0) "mixed")`, dovecotNewline},
	"messages/rfc822-base64 BODY[1]":                                         {`"U3ViamVjdDogeA0KDQpib2R5DQo="`, dovecotNewline},
	"messages/unknown-cte BINARY.SIZE[2]":                                    {`3`, dovecotWhole},
	"messages/unknown-cte BINARY.SIZE[2.1]":                                  {`3`, dovecotWhole},
	"messages/qp-cut BINARY[1]":                                              {`"soft"`, dovecotDies},
	"messages/qp-cut BINARY.SIZE[1]":                                         {`4`, dovecotDies},
	"messages/qp-cut BINARY.SIZE[2]":                                         {`5`, dovecotDies},
	"messages/qp-cut BINARY[1.1]":                                            {`"soft"`, dovecotDies},
	"messages/qp-cut BINARY.SIZE[1.1]":                                       {`4`, dovecotDies},
	"messages/qp-cut BINARY.SIZE[2.1]":                                       {`5`, dovecotDies},
}
