# Encrypts all my mail to my own OpenPGP key.
#
# My public key must be set up on the server. Mail that is encrypted already stays as it is. If a message cannot be
# encrypted (say, my key was revoked), it is not stored; its sender's server tries again later.
#
# To add rules of your own, write them below.

require ["vnd.dovecot.filter", "fileinto", "mailbox"];

# --require: without a key of mine, nothing is to be stored either.
if not filter "cryptomail" ["--require"] {
    fileinto :create "cryptomail-tempfail/x";
    stop;
}
