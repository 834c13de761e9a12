# Sets up the OpenPGP key in a message that its owner saves, over IMAP, in the folder for keys.
#
# An IMAPSieve script (RFC 6785) for that one folder, which Dovecot runs when a message is saved or copied there by the
# mailbox owner, and never for a delivery: a stranger's message cannot bring a key. To be sure of that, it requires
# imapsieve, without which it does not run.
#
# The program's answer takes the message's place. If the program fails, the message stays as it is, nothing was set up,
# and Dovecot's log says why.

require ["vnd.dovecot.filter", "imapsieve"];

if not filter "cryptomail-enroll" {
}
