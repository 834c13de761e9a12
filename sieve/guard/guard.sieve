# Refuses for now what the script that encrypts has not seen. It runs right behind that one, and is in another place.
#
# Dovecot passes over a global script that is missing, without a word, and would store the message in clear. The script
# that encrypts leaves a mark, which lasts for this one delivery; where there is none, that script has not run.

require ["imap4flags", "fileinto", "mailbox"];

if hasflag "$CryptomailSeen" {
    removeflag "$CryptomailSeen";
} else {
    fileinto :create "cryptomail-tempfail/x";
    stop;
}
