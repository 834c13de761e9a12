# Encrypts every message to the key of the mailbox's owner, ahead of the owner's own script.
#
# For servers on which each mailbox belongs to a system user of its own: there before.sieve cannot be used, because one
# user's program would have to deliver for all. A run-time error in the owner's own script makes Dovecot store the
# message in clear, as it was before all scripts.
#
# A message that is encrypted already, or whose owner has no key set up, goes on unchanged. If anything fails, nothing
# is stored: the sender's server is told to try again later (see the namespace in 99-cryptomail.conf).

require ["vnd.dovecot.filter", "fileinto", "mailbox", "imap4flags"];

# The filter must be inside an `if`: if it were a command of its own, nobody would notice that it failed, and the clear
# text would be stored.
if not filter "cryptomail" {
    fileinto :create "cryptomail-tempfail/x";
    stop;
}

# For guard.sieve, which refuses the message where this script is missing.
addflag "$CryptomailSeen";
