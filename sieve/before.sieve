# Encrypts every message to the key of the mailbox's owner, ahead of the owner's own script, and seals it.
#
# The program encrypts the message and delivers the result itself, over a private LMTP service, to the same mailbox;
# then this delivery, which has the clear text, ends with `discard`. The owner's own script runs in the other one: no
# error in it can bring the clear text back, because that delivery has none.
#
# A message that is encrypted already, or whose owner has no key set up, goes on unchanged. If anything fails, nothing
# is stored: the sender's server is told to try again later (see the namespace in 99-cryptomail.conf).

require ["vnd.dovecot.execute", "variables", "fileinto", "mailbox", "imap4flags"];

# Never a second attempt: the first may have delivered, even where it failed.
if not execute :pipe :output "verdict" "cryptomail" ["seal"] {
    set "verdict" "failed";
}

if string "${verdict}" "sealed" {
    discard;
    stop;
}

if not string "${verdict}" "pass" {
    fileinto :create "cryptomail-tempfail/x";
    stop;
}

# For guard.sieve, which refuses the message where this script is missing.
addflag "$CryptomailSeen";
