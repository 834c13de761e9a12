# Has encrypted what an owner saves over IMAP, in the folders that saved_folders names in cryptomail's settings.
#
# An IMAPSieve script (RFC 6785). It changes nothing: a message that Sieve replaces loses its date, and its UID is gone when
# the mail client asks for it. A program is told, which looks through those folders some seconds later. It is told once
# in five seconds, and looks after eight: so it sees all that was saved meanwhile. What it saves itself it need not see.

require ["vnd.dovecot.execute", "imapsieve", "duplicate"];

if not exists "X-Cryptomail" {
  if not duplicate :handle "cryptomail-saved" :uniqueid "saved" :seconds 5 {
    execute "cryptomail-saved";
  }
}
