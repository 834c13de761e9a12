# Encrypts my mail to my own OpenPGP key, but not what comes from mailing lists (it is public anyway, and stays easy to
# search) and not spam (so that the spam filter can go on learning from it).
#
# My public key must be set up on the server. Mail that is encrypted already stays as it is. If a message cannot be
# encrypted (say, my key was revoked), it is not stored; its sender's server tries again later.
#
# To add rules of your own, write them below.

require ["vnd.dovecot.filter", "fileinto", "mailbox"];

if not anyof (
    exists ["List-Id"],
    header :is "Precedence" ["list", "bulk"],
    header :is "X-Spam-Flag" "YES",
    header :matches "X-Spam-Status" "Yes*",
    header :is "X-Spam" "Yes"
) {
    # --require: without a key of mine, nothing is to be stored either.
    if not filter "cryptomail" ["--require"] {
        fileinto :create "cryptomail-tempfail/x";
        stop;
    }
}
