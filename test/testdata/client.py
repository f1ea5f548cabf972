"""Uses imaplib as scripts do. Arguments: port, TLS port, certificate, user, password."""

import imaplib
import ssl
import sys

port, tls_port, cert, user, password = sys.argv[1:]


def ok(answer, expect=None):
    status, data = answer
    assert status == "OK", answer
    if expect is not None:
        assert data == expect, (data, expect)
    return data


trusted = ssl.create_default_context(cafile=cert)

with imaplib.IMAP4("localhost", int(port)) as c:
    ok(c.starttls(trusted))
    ok(c.login(user, password))
    ok(c.select(), [b"4"])
    ok(c.search(None, "UNSEEN"), [b"2"])
    ok(c.uid("SEARCH", "SUBJECT", '"attachment"'), [b"4"])
    data = ok(c.fetch("1", "(UID FLAGS RFC822.SIZE)"))
    assert b"UID 1 " in data[0] and b"\\Seen" in data[0] and b"RFC822.SIZE 226" in data[0], data
    data = ok(c.uid("FETCH", "2", "(BODY.PEEK[TEXT])"))
    assert data[0][1] == b"Thank you, see you in the caf=C3=A9.\r\n", data
    data = ok(c.store("2", "+FLAGS", r"(\Flagged)"))
    assert b"\\Flagged" in data[0], data
    ok(c.create("New/Sub"))
    ok(c.subscribe("New/Sub"))
    names = [line.split(b' "/" ')[1] for line in ok(c.lsub())]
    assert b"New/Sub" in names, names
    ok(c.copy("1", "New/Sub"))
    draft = b"From: me@example.com\r\nSubject: a draft\r\n\r\nNot done.\r\n"
    ok(c.append("New/Sub", r"(\Draft \Seen)", '"17-Jul-2023 02:44:25 +0200"', draft))
    ok(c.uid("STORE", "1", "+FLAGS", r"(\Deleted)"))
    ok(c.expunge(), [b"1"])
    ok(c.search(None, "ALL"), [b"1 2 3"])
    ok(c.close())

with imaplib.IMAP4_SSL("localhost", int(tls_port), ssl_context=trusted) as c:
    plain = ("\0%s\0%s" % (user, password)).encode()
    ok(c.authenticate("PLAIN", lambda _: plain))
    ok(c.select("New/Sub", readonly=True), [b"2"])
    data = ok(c.fetch("2", "(INTERNALDATE RFC822)"))
    assert data[0][1] == draft, data
    when = imaplib.Internaldate2tuple(data[0][0] + b")")
    assert when is not None, data
    ok(c.status("INBOX", "(MESSAGES UIDNEXT)"), [b"INBOX (MESSAGES 3 UIDNEXT 8)"])
    status, data = c.select("Nowhere")
    assert status == "NO", (status, data)
    ok(c.namespace(), [b'(("" "/")) NIL NIL'])
    ok(c.create("Fresh"))
    ok(c.rename("Fresh", "Fresher"))
    ok(c.list('""', "Fresh*"), [rb'(\HasNoChildren) "/" Fresher'])
    ok(c.delete("Fresher"))
    ok(c.list('""', "Fresh*"), [None])
    ok(c.unsubscribe("Gone"))
    ok(c.lsub('""', "Gone"), [None])
    status, data = c.create("INBOX")
    assert status == "NO", (status, data)
