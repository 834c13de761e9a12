# Encrypts every message to the key of the mailbox's owner, if it can.
#
# For those who would rather have a message stored in clear than see it arrive late: when the encryption fails (a
# revoked key, a full disk), the message is delivered as it came, and Dovecot's log says so. To use it, name it in
# place of before.sieve in 99-cryptomail.conf.

require ["vnd.dovecot.filter", "imap4flags"];

# In an `if` with nothing in it: as a command of its own, a filter that is missing or hangs would end all scripts, and
# the owner's own would not run.
if not filter "cryptomail" {
}

# For guard.sieve, which refuses the message where this script is missing.
addflag "$CryptomailSeen";
