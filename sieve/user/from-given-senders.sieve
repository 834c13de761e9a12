# Encrypts mail from the people and domains listed here to my own OpenPGP key, and leaves all other mail alone.
#
# Change the two lists below. My public key must be set up on the server. Mail that is encrypted already stays as it
# is. If a message cannot be encrypted (say, my key was revoked), it is not stored; its sender's server tries again
# later. Anybody can write any sender into a message: this chooses what is encrypted, it proves nothing.
#
# To add rules of your own, write them below.

require ["vnd.dovecot.filter", "fileinto", "mailbox"];

if anyof (
    address :is "From" ["lawyer@example.com", "doctor@example.net"],
    address :is :domain "From" ["bank.example"]
) {
    # --require: without a key of mine, nothing is to be stored either.
    if not filter "cryptomail" ["--require"] {
        fileinto :create "cryptomail-tempfail/x";
        stop;
    }
}
