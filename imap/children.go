package imap

// CHILDREN tells whether a mailbox has others below it: always in answers to the
// basic LIST, on request to the extended one. See RFC 3348, or RFC 9051 section
// 6.3.9.5.
var _ = register(Extension{
	Name:    "CHILDREN",
	RFC:     3348,
	Caps:    when(loggedIn, "CHILDREN"),
	Returns: []ListOption{listReturn("CHILDREN", ListChildren)},
})
