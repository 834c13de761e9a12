# Encrypts every message to the key of the mailbox's owner, ahead of the owner's own script.
#
# A message that is encrypted already, or whose owner has no key set up, goes on unchanged. If anything fails, nothing
# is stored: the sender's server is told to try again later (see the namespace in 99-cryptomail.conf).

require ["vnd.dovecot.filter", "fileinto", "mailbox"];

# The filter must stand in an `if`: as a command of its own, a failure would go unnoticed and the clear text be stored.
if not filter "cryptomail" {
    fileinto :create "cryptomail-tempfail/x";
    stop;
}
