"""Named limits, each with its source. A message that exceeds one counts as not encrypted: the harmless mistake."""

# A header section, and the lines of it: what comes behind is body, so that no header section takes much memory. Exim
# takes a megabyte at most (header_maxsize), Postfix 100 KB in a field (header_size_limit).
HEADER_OCTETS = 1_000_000
HEADER_LINES = 20_000

# A Content-Type value longer than this is not taken apart. RFC 2045 names no length; RFC 2046 section 5.1.1 gives a
# boundary 70 octets and RFC 6838 section 4.2 each half of a type 127, so real values have some hundreds.
CONTENT_TYPE_OCTETS = 8_000

# Parts of one multipart body. PGP/MIME has two; a client that encrypts each attachment by itself has one for each.
MULTIPART_PARTS = 500

# Header fields of a part of an encrypted message, and octets in each: RFC 2045 and RFC 2183 define five fields; a line
# has 998 octets (RFC 5322 section 2.1.1).
PART_FIELDS = 10
PART_FIELD_OCTETS = 998

# Octets of a boundary (RFC 2046 section 5.1.1).
BOUNDARY_OCTETS = 70

# Readable octets around the ciphertext of one message that are not what mail programs always write there: names of
# attachments, comments in an armor, issuers' names in S/MIME. Exchange writes 200, Enigmail 100 into each armor, and an
# issuer's name has some 100.
FREE_OCTETS = 600

# Armor header lines (RFC 9580 section 6.2.2) are readable text too: five keys exist, and a value fits on a line of 76.
ARMOR_HEADERS = 8
ARMOR_HEADER_OCTETS = 200

# How text is told from ciphertext (randomness). The window is large enough for base64 in place of octets, the limit on
# chi-square far above what chance gives: 60 once in 10**12 windows; so are seven standard deviations, squared, of
# letters.
RANDOM_WINDOW_OCTETS = 1024
RANDOM_CHI_SQUARE = 60
RANDOM_LETTERS_SQUARE = 49
ASCII_PIECE_OCTETS = 32
OTHER_PIECE_OCTETS = 48

# A line of armor (RFC 9580 section 6).
ARMOR_LINE_OCTETS = 76

# Recipients of one message. Each costs a packet of some 100 to 500 octets; mailing-list software sends one at a time.
OPENPGP_PACKETS = 2_000

# Octets of one session key packet. The largest that are defined have two ciphertexts of ML-KEM, some 1,600.
OPENPGP_PACKET_OCTETS = 20_000

# Partial-length chunks of one packet (RFC 9580 section 4.2.1.4). GnuPG writes chunks of 8 KiB: this is 8 GiB of it.
OPENPGP_CHUNKS = 1_000_000

# Depth of ASN.1 values of indefinite length. RFC 5652 needs seven when everything around the ciphertext has one.
CMS_DEPTH = 16

# ASN.1 values looked at in one message. OpenSSL streams the content in pieces of a few KiB: this is 1 GiB of it.
CMS_VALUES = 300_000

# Octets of an object identifier. The ones that CMS needs have nine to eleven.
CMS_OID_OCTETS = 16

# Integers from this many octets on are serial numbers or parts of keys. An authority makes a serial number of at least
# 64 random bits; versions, key sizes and numbers of iterations have four octets at most.
CMS_LONG_INTEGER_OCTETS = 8

# An X.509 certificate, which has some 2 KB; with a picture in it, some more. And a file of an owner's.
X509_OCTETS = 50_000
X509_FILE_OCTETS = 1_000_000
X509_CERTIFICATES = 500
# What an engine writes before the ciphertext: some 500 octets for each certificate. And what is looked at together of
# that, which comes in pieces of 4 KB.
ENVELOPE_HEAD_OCTETS = 200_000
ENVELOPE_PIECE_OCTETS = 65_536

# What the parsers of lenient.py and structure.py are given. Measured with Python 3.11: they take 0.7 us a line, and
# 0.07 us more for each container (multipart/*, message/*) around it; copy an attached message once for each container
# around it; need stack for each container, 15 us for each part, and 2 ns times the square of a Content field's octets.
STRUCTURE_CONTAINERS = 100
STRUCTURE_OCTETS = 300_000_000  # times containers
STRUCTURE_LINES = 10_000_000  # times containers, of which ten are always counted
STRUCTURE_DASHED_LINES = 5_000
STRUCTURE_FIELD_SQUARES = 500_000_000

# The configuration file. A script can name any file that root owns, and would have it read at each delivery.
CONFIG_OCTETS = 1_000_000

# Certificates. GnuPG verifies each signature, in 0.1 to 2 ms; the largest keys in use have some hundred packets of
# their owner's: user IDs, subkeys, and a signature for each and each renewal.
CERTIFICATE_PACKETS = 1_000
CERTIFICATE_OCTETS = 1_000_000

# A file with certificates. 50,000 signatures of 4,096 bits by other people have 29 MB, and 40 MB in an armor.
CERTIFICATE_FILE_OCTETS = 100_000_000
# A stream of many: 20,000 as large as key servers hand them out, 50 KB each.
CERTIFICATE_STREAM_OCTETS = 1_000_000_000

# A keyring of one owner's.
KEYRING_OCTETS = 50_000_000
# A keyring of many owners', where it has to be read as a whole: 20,000 certificates of 10 KB.
SHARED_KEYRING_OCTETS = 200_000_000

# Users that doveadm is asked about together: its start is spread over them, and a progress bar still moves.
USERS_AT_ONCE = 100

# Certificates that one gpg looks at together. GnuPG's time for a keyring grows with the square of it; measured.
CERTIFICATES_AT_ONCE = 100
# Seconds for these, for one that is looked at alone, and for a keyring. A thousand signatures of the slowest kind need
# two.
QUARANTINE_SECONDS = 30

# A message up to this size is in memory as a whole, and so is what it becomes: 4.4 times its size in Python's memory at
# most (tracemalloc), besides what PySequoia takes while it encrypts.
SMALL_OCTETS = 2_000_000

# What is around the lines of ciphertext in a large message, before them and behind: two parts' header sections and
# those of an armor have 23,000 octets at most. Where it is more, the message is taken into memory as a whole.
FRAME_OCTETS = 50_000

# A message that brings a key. Most programs' mail has some 50 KB of it; more than a key's certificates may have, twice.
KEY_MAIL_OCTETS = 5_000_000
KEY_MAIL_DEPTH = 10
KEY_MAIL_PARTS = 100
# How deep, and for how many octets in all, the encodings in such a message are undone to find secret keys in it: an
# archive in base64 of HTML in UTF-16 takes four. A message of 5 MB that is base64 takes 20 MB, and where that
# is in HTML as well as in quoted-printable, 60 MB.
UNWRAPPED_DEPTH = 6
UNWRAPPED_OCTETS = 60_000_000
# The newest messages in an owner's folder for keys that a sweep looks at: most hold an answer each.
SWEPT_MESSAGES = 500
# A check of everybody looks into the folders in which something was saved in so many days, for so many seconds in all:
# monitors wait for 60 or so. doveadm takes some 5 ms to find out about each user.
CHECKED_DAYS = 8
CHECKED_SECONDS = 30
# Notes of messages that may have been stored, octets of one (some 120 for each attempt), and octets of a message to
# compare with it.
AGAIN_NOTES = 1_000
AGAIN_NOTE_OCTETS = 10_000
AGAIN_OCTETS = 60_000_000
# Keys in one such message, and seconds that may go by: less than Dovecot's sieve_filter_exec_timeout.
KEY_MAIL_KEYS = 10
KEY_MAIL_SECONDS = 50

# The file beside an owner's keys in which requests wait for their codes, with the certificates that are to be set up;
# and of codes of six digits, how many are made in 24 hours, how many wrong ones are taken, and how long one is good:
# who has a password and no key, and guesses at one code every day, finds it once in 100,000 days.
REQUESTS_OCTETS = 2_000_000
CODES_A_DAY = 20
WRONG_CODES_A_DAY = 10
CODE_SECONDS = 86_400

# The file beside an owner's keys that says what they have chosen: a line of some 30 octets for each setting.
CHOICES_OCTETS = 1_000

# The file beside a keyring that says of what its owner was told: some 100 octets a line, three lines for each renewal.
REMINDERS_OCTETS = 1_000_000

# Octets of one argument of a program that a Sieve script calls: SIEVE_EXTPROGRAMS_MAX_PROGRAM_ARG_LEN of Pigeonhole.
SIEVE_ARGUMENT_OCTETS = 1024
# Arguments with a key. Pigeonhole sets no limit (1,000 compile); the head of a request to a worker has one, 100,000
# octets (scriptprotocol). Minimal RSA keys of 4,096 bits take three arguments, and the largest in use fifteen.
KEYDATA_ARGUMENTS = 64
# A Sieve script: Pigeonhole's sieve_max_script_size.
SIEVE_SCRIPT_OCTETS = 1_000_000
# What a server says when it refuses, as far as it is repeated: Pigeonhole gives a line or two for each mistake.
SERVICE_ANSWER_CHARACTERS = 600

# What is published for an address: octets, seconds in all, redirections (a Web Key Directory needs none; hosters use
# one), and how many are asked for at the same time, which is waiting more than work.
FETCH_OCTETS = 1_000_000
FETCH_SECONDS = 20
FETCH_REDIRECTS = 3
FETCHES_AT_ONCE = 8

# Octets of one message, as far as a process that acts for an owner may have them counted: many times the largest mail.
REPORTED_OCTETS = 10_000_000_000

# What a process that acts for an owner tells its parent of one owner: JSON, and octets apart (those of a keyring, or of
# the certificates that are looked at together). JSON takes up to 25 times as much memory once it is read.
RESULT_TEXT_OCTETS = 10_000_000
RESULT_BYTES_OCTETS = 110_000_000
RESULT_ERROR_CHARACTERS = 2_000
# Seconds for one owner; after these, the process is killed. Each step of it has a limit of its own that is shorter.
OWNER_SECONDS = 120
# Seconds for certificates that are looked at together, where gpg hangs at each of them.
VETTING_SECONDS = 2 * CERTIFICATES_AT_ONCE * QUARANTINE_SECONDS
# Seconds in which such a process tidies up when it is stopped.
STOP_SECONDS = 5
# Users whose left-over quarantines are swept at each start: anybody can make what looks like one.
SWEPT_USERS = 10
# Octets of one literal in an IMAP session of the command mailbox: more than a piece of a message.
IMAP_LITERAL_OCTETS = 2_000_000
# Messages of a mailbox that are replaced at once; large ones go alone. Measured: more at once are not faster.
REPLACED_MESSAGES = 50
# The note of these in the journal: some 100 octets for each.
JOURNAL_OCTETS = 100_000
# Seconds for one mailbox: a million messages take some hours.
MAILBOX_SECONDS = 7 * 86_400
