# Installs cryptomail, and runs its tests, checks and lab. `make help` lists what there is.

SYSCONFDIR ?= /etc
DESTDIR ?=

# This file keeps what `make install` was told, for the next time. A line is taken only as what cannot be anything but
# NAME=VALUE to make and to a shell.
REMEMBERED := $(SYSCONFDIR)/cryptomail/install.conf
SETTINGS := PREFIX LOCALSTATEDIR PYTHON MAIL_USER SEALING KEY_FOLDER SENDMAIL SEQUOIA BASE_DIR TEMP_DIR \
	DOVECOT_CONF
TOLD := $(foreach name,$(SETTINGS),$(if $(filter command environment,$(firstword $(origin $(name)))),$(name)))
$(foreach line,$(shell sed -n 's/^\([A-Z_]*=[A-Za-z0-9_.\/@:+-]*\)$$/\1/p' "$(DESTDIR)$(REMEMBERED)" 2>/dev/null),\
    $(if $(filter-out $(TOLD),$(filter $(SETTINGS),$(firstword $(subst =, ,$(line))))),$(eval $(subst =, := ,$(line)))))

PREFIX ?= /usr/local
LOCALSTATEDIR ?= /var
# Dovecot's main configuration file.
DOVECOT_CONF ?= $(SYSCONFDIR)/dovecot/dovecot.conf
# Debian's own: the mail user must be able to reach the interpreter, and one in root's home it cannot.
PYTHON ?= /usr/bin/python3
LAB ?=
MODE ?= sealed

# Where Debian keeps dovecot, which an ordinary user's PATH leaves out.
SBIN_PATH := $(PATH):/usr/sbin:/sbin
# 2.3 or 2.4.
DOVECOT_VERSION ?= $(shell PATH=$(SBIN_PATH) dovecot --version 2>/dev/null | cut -d. -f1,2)
export PATH := $(SBIN_PATH)

# What the machine's own Dovecot says of a setting.
setting = $(shell doveconf -c "$(DESTDIR)$(DOVECOT_CONF)" -h $(1) 2>/dev/null)
# MAIL_USER is the one user who owns all mail; empty where each mailbox belongs to a system user of its own. Where that is
# not told, Dovecot is asked.
mail_owner = $(PYTHON) -I dovecot/mailowner.py "$(DESTDIR)$(DOVECOT_CONF)" \
	$(if $(DESTDIR),--staged) $(if $(filter undefined,$(origin MAIL_USER)),,--told "$(MAIL_USER)")
SEALING ?= yes
# The folder in which owners save their keys, without the prefix of its namespace. Empty: they cannot.
KEY_FOLDER ?= OpenPGP
SENDMAIL ?= $(or $(call setting,sendmail_path),/usr/sbin/sendmail)
# PySequoia, which encrypts faster: no, or yes where there is a wheel for the machine.
SEQUOIA ?= yes
# A directory that `make dependencies` has filled, for a machine without a network; empty: pip fetches what is needed.
DEPENDENCIES ?=
BASE_DIR ?= $(or $(call setting,base_dir),/run/dovecot)
TEMP_DIR ?= $(or $(filter-out /tmp,$(call setting,mail_temp_dir)),/dev/shm)

LIB := $(PREFIX)/lib/cryptomail
SHARE := $(PREFIX)/share/cryptomail
MAN := $(PREFIX)/share/man
CONFIG := $(SYSCONFDIR)/cryptomail/config.toml
SNIPPET := $(SYSCONFDIR)/dovecot/conf.d/99-cryptomail.conf
# Not beside the script that it checks on, so that they do not vanish together.
GUARD := $(SYSCONFDIR)/cryptomail/guard.sieve
# Copies of the configuration files as last installed, to know an edited one by.
INSTALLED := $(SHARE)/installed

CONFFILE := $(PYTHON) -I dovecot/conffile.py
GLOBAL_SCRIPTS := $(wildcard sieve/*.sieve)
MAN_PAGES := $(wildcard man/*.[1-9])
CODE := sieve_filter lab tests benchmarks dovecot docs release debian
DEV := .venv/bin/python -m

SOCKET := $(BASE_DIR)/lmtp-sealed
# Dovecot 2.3 does not make directories for its sockets below its BASE_DIR, which is gone after a restart.
SOCKETS := $(LOCALSTATEDIR)/lib/cryptomail
# Whose mail is encrypted is noted there, because a home that is not there must not pass for that of one without a key.
REGISTER := $(SOCKETS)/enrolled
comma := ,
KNOWN := register="$(REGISTER)"
DOVECOT := dovecot_conf="$(DOVECOT_CONF)"
# Where the workers show their counts.
METRICS := metrics_socket="$(SOCKETS)/metrics"
# How notices to owners are delivered.
POST := socket_path="$(SOCKET)"$(comma) sendmail_path="$(SENDMAIL)"$(comma) folder="$(KEY_FOLDER)"
# A new environment each time, and with its programs beside it: those of before keep theirs, and are replaced one by one.
VENV = $(LIB)/venv-$(STAMP)
# A program file: its module, the function in there, that function's arguments, its name.
program = sed 's|@MODULE@|$(1)|; s|@MAIN@|$(2)|g; s|@ARGUMENTS@|$(3)|; s|@VENV@|$(VENV)|' dovecot/program.in \
	> "$(DESTDIR)$(VENV)/$(4)" && chmod 755 "$(DESTDIR)$(VENV)/$(4)"

# Dovecot takes what it may run from these, each for one purpose.
PROGRAM_DIRECTORIES := filter-bin execute-bin imap-bin saved-bin
# All program files, in the environment's own directory.
define programs
	$(call program,cli.main,main,config_file="$(CONFIG)"$(comma) $(POST)$(comma) $(KNOWN)$(comma) $(DOVECOT)$(comma) $(METRICS),bin/cryptomail)
	$(call program,programs.extprograms,filter_main,config_file="$(CONFIG)"$(comma) $(KNOWN),filter-bin/cryptomail)
	$(call program,programs.extprograms,execute_main,config_file="$(CONFIG)"$(comma) socket_path="$(SOCKET)"$(comma) $(KNOWN)$(comma) $(DOVECOT),execute-bin/cryptomail)
	$(call program,programs.extprograms,filter_main,config_file="$(CONFIG)"$(comma) $(KNOWN),imap-bin/cryptomail)
	$(call program,programs.imapsieve,enroll_main,config_file="$(CONFIG)"$(comma) $(POST)$(comma) $(KNOWN)$(comma) $(DOVECOT),imap-bin/cryptomail-enroll)
	$(call program,programs.saved,saved_main,config_file="$(CONFIG)"$(comma) folder="$(KEY_FOLDER)"$(comma) $(KNOWN)$(comma) $(DOVECOT),saved-bin/cryptomail-saved)
	$(call program,programs.listeners,under_dovecot,"$(CONFIG)"$(comma) "$(SOCKET)"$(comma) "$(SOCKETS)/execute/cryptomail"$(comma) $(KNOWN)$(comma) $(DOVECOT)$(comma) $(METRICS),worker)
endef

# What is installed comes before what needs it.
.NOTPARALLEL:

.PHONY: help
help: ## Say what there is
	@grep -hE '^[a-z-]+:.* ## ' $(MAKEFILE_LIST) | sed -E 's/:.* ## /\t/' | expand -t 14

.PHONY: install
.SILENT: install uninstall
install: STAMP := $(shell date +%Y%m%d-%H%M%S)
install: ## Install under PREFIX, configuration under SYSCONFDIR (DESTDIR is honoured)
	test -d "dovecot/conf.d/$(DOVECOT_VERSION)" -a -n "$(DOVECOT_VERSION)" || { \
	    echo "This needs Dovecot 2.3 or 2.4 (found: '$(DOVECOT_VERSION)'):" \
	    "apt-get install dovecot-core dovecot-imapd dovecot-lmtpd dovecot-sieve gnupg" >&2; exit 1; }
	owner=$$($(mail_owner)) && install -d "$(DESTDIR)$(VENV)" && echo "$$owner" > "$(DESTDIR)$(VENV)/mail-owner"
# First all that may fail, beside what is there and delivers.
	umask 022 && DESTDIR="$(DESTDIR)" PYTHON="$(PYTHON)" VENV="$(VENV)" SEQUOIA="$(SEQUOIA)" \
	    DEPENDENCIES="$(DEPENDENCIES)" sh dovecot/install-venv.sh
	install -d $(addprefix "$(DESTDIR)$(VENV)/,$(addsuffix ",$(PROGRAM_DIRECTORIES) bin sieve))
	$(programs)
	"$(DESTDIR)$(VENV)/bin/python" -I "$(DESTDIR)$(VENV)/bin/cryptomail" --version > /dev/null
	$(PYTHON) -I dovecot/render.py $(DOVECOT_VERSION) "$(DESTDIR)$(DOVECOT_CONF)" \
	    "$(LIB)" "$(SHARE)/sieve" "$(GUARD)" "$(TEMP_DIR)" "$(BASE_DIR)" "$(SOCKETS)" "$(SEALING)" \
	    "$$(cat "$(DESTDIR)$(VENV)/mail-owner")" "$(KEY_FOLDER)" "$(DESTDIR)$(CONFIG)" > "$(DESTDIR)$(VENV)/snippet.conf"
	install -m 644 $(GLOBAL_SCRIPTS) sieve/guard/guard.sieve "$(DESTDIR)$(VENV)/sieve"
	sievec -c dovecot/sievec/$(DOVECOT_VERSION).conf "$(DESTDIR)$(VENV)/sieve"
# Then each in place of the one before, by a rename.
	install -d "$(DESTDIR)$(PREFIX)/bin" "$(DESTDIR)$(LIB)/filter-bin" "$(DESTDIR)$(LIB)/execute-bin" \
	    "$(DESTDIR)$(LIB)/imap-bin" "$(DESTDIR)$(LIB)/saved-bin" "$(DESTDIR)$(SHARE)/sieve/user" "$(DESTDIR)$(SHARE)/systemd" \
	    "$(DESTDIR)$(SYSCONFDIR)/cryptomail"
# A version that knew nothing of the register is there: whose mail it encrypts is noted before the new one delivers.
ifeq ($(DESTDIR),)
	@if [ -e "$(PREFIX)/bin/cryptomail" ] && ! grep -q register= "$(PREFIX)/bin/cryptomail"; then install -d "$(REGISTER)"; \
	    "$(VENV)/bin/python" -I "$(VENV)/bin/cryptomail" keys note --all || echo "Not all who have keys" \
	    "could be noted: see cryptomail keys note, and do it before you reload Dovecot." >&2; fi
endif
	install -d "$(DESTDIR)$(SOCKETS)/filter" "$(DESTDIR)$(SOCKETS)/execute" "$(DESTDIR)$(REGISTER)"
	owner=$$(cat "$(DESTDIR)$(VENV)/mail-owner"); if [ -n "$$owner" ] && [ -z "$(DESTDIR)" ] && [ "$$(id -u)" = 0 ]; then \
	    install -d -m 700 -o "$$owner" -g "$$(id -g "$$owner")" "$(DESTDIR)$(REGISTER)/$$(id -u "$$owner")"; fi
	DESTDIR="$(DESTDIR)" VENV="$(VENV)" PREFIX="$(PREFIX)" LIB="$(LIB)" SHARE="$(SHARE)" GUARD="$(GUARD)" \
	    SIEVEC="sievec -c dovecot/sievec/$(DOVECOT_VERSION).conf" sh dovecot/swap.sh
ifneq ($(DESTDIR),)
	echo "When this is in its place, as root, and before you reload Dovecot:"
	echo "    for i in $(SHARE)/sieve $(GUARD); do sievec -c $(SHARE)/sievec.conf \$$i; done"
	owner=$$(cat "$(DESTDIR)$(VENV)/mail-owner"); [ -z "$$owner" ] || \
	    echo "    place=$(REGISTER)/\$$(id -u $$owner) && mkdir -p -m 700 \$$place && chown $$owner: \$$place"
	echo "    $(PREFIX)/bin/cryptomail keys note --all   # over a version that had no $(REGISTER)"
endif
	$(CONFFILE) install "$(DESTDIR)$(SNIPPET)" "$(DESTDIR)$(INSTALLED)/99-cryptomail.conf" \
	    < "$(DESTDIR)$(VENV)/snippet.conf"
ifneq ($(wildcard config.toml.example),)
	$(CONFFILE) install "$(DESTDIR)$(CONFIG)" "$(DESTDIR)$(INSTALLED)/config.toml" < config.toml.example
endif
	rm -f "$(DESTDIR)$(VENV)/snippet.conf" "$(DESTDIR)$(VENV)/mail-owner"
	install -m 644 dovecot/sievec/$(DOVECOT_VERSION).conf "$(DESTDIR)$(SHARE)/sievec.conf"
	install -m 644 sieve/user/*.sieve "$(DESTDIR)$(SHARE)/sieve/user"
	for unit in dovecot/systemd/*; do \
	    sed 's|@PROGRAM@|$(PREFIX)/bin/cryptomail|' $$unit > "$(DESTDIR)$(SHARE)/systemd/$${unit##*/}" || exit; done
	chmod 644 "$(DESTDIR)$(SHARE)"/systemd/*
	for page in $(MAN_PAGES); do \
	    install -D -m 644 $$page "$(DESTDIR)$(MAN)/man$${page##*.}/$${page##*/}" || exit; done
	$(CONFFILE) remember "$(DESTDIR)$(REMEMBERED)" $(foreach name,$(TOLD),"$(name)=$($(name))")
	sed 's|@PROGRAM@|$(PREFIX)/bin/cryptomail|; s|@SNIPPET@|$(SNIPPET)|; s|@CONFIG@|$(CONFIG)|; s|@LIB@|$(LIB)|' \
	    dovecot/what-next

# What a package holds, below DESTDIR, with VERSION in its name; debian/rules runs this, and DEPENDENCIES is what it carries.
# What depends on the machine, debian/configure does when it is installed.
.PHONY: package-tree
.SILENT: package-tree
package-tree: STAMP = $(VERSION)
package-tree:
	umask 022 && DESTDIR="$(DESTDIR)" PYTHON="$(PYTHON)" VENV="$(VENV)" VENV_OPTIONS=--system-site-packages \
	    SEQUOIA=yes DEPENDENCIES="$(DEPENDENCIES)" sh dovecot/install-venv.sh
	find "$(DESTDIR)$(VENV)" -name __pycache__ -prune -exec rm -r {} +
	install -d $(addprefix "$(DESTDIR)$(VENV)/,$(addsuffix ",$(PROGRAM_DIRECTORIES))) "$(DESTDIR)$(PREFIX)/bin"
	$(programs)
# Debian's own interpreter, as its policy has it, with this version's packages ahead of the distribution's.
	cd "$(DESTDIR)$(VENV)" && site=$$(echo lib/python3*/site-packages) && for program in */cryptomail* worker; do \
	    sed -i "1s|.*|#!/usr/bin/python3 -I|; s|^import sys|&\n\nsys.path.insert(0, \"$(VENV)/$$site\")|" $$program; done
	cd "$(DESTDIR)$(VENV)" && rm -r bin/python* pyvenv.cfg && install -d "$(DESTDIR)$(SHARE)" && \
	    ln -s "$(VENV)/$$(echo lib/python3*/site-packages/sieve_filter)" "$(DESTDIR)$(SHARE)/sieve_filter"
	mv $(addprefix "$(DESTDIR)$(VENV)/,$(addsuffix ",$(PROGRAM_DIRECTORIES) worker)) "$(DESTDIR)$(LIB)"
	install -d "$(DESTDIR)$(LIB)/bin" && mv "$(DESTDIR)$(VENV)/bin/cryptomail" "$(DESTDIR)$(LIB)/bin"
	ln -s "$(LIB)/bin/cryptomail" "$(DESTDIR)$(PREFIX)/bin/cryptomail"
	install -D -m 644 -t "$(DESTDIR)$(SHARE)/sieve" $(GLOBAL_SCRIPTS)
	install -D -m 644 -t "$(DESTDIR)$(SHARE)/sieve/user" sieve/user/*.sieve
	install -D -m 644 sieve/guard/guard.sieve "$(DESTDIR)$(GUARD)"
	install -D -m 644 config.toml.example "$(DESTDIR)$(CONFIG)"
	install -D -m 644 -t "$(DESTDIR)$(SHARE)/dovecot" dovecot/conffile.py dovecot/mailowner.py dovecot/render.py dovecot/what-next
	cp -R --no-preserve=all dovecot/conf.d dovecot/sievec "$(DESTDIR)$(SHARE)/dovecot"
	install -d "$(DESTDIR)$(SOCKETS)/filter" "$(DESTDIR)$(SOCKETS)/execute" "$(DESTDIR)$(REGISTER)"
	install -d "$(DESTDIR)$(PREFIX)/lib/systemd/system"
	for unit in dovecot/systemd/*; do sed -e '/^#   /d; s|@PROGRAM@|$(PREFIX)/bin/cryptomail|' $$unit \
	    > "$(DESTDIR)$(PREFIX)/lib/systemd/system/$${unit##*/}" || exit; done
	for page in $(MAN_PAGES); do \
	    install -D -m 644 $$page "$(DESTDIR)$(MAN)/man$${page##*.}/$${page##*/}" || exit; done

.PHONY: dependencies
dependencies: ## Fetch what the program needs into DEPENDENCIES=directory, to install it where there is no network
	$(if $(DEPENDENCIES),$(PYTHON) -I dovecot/dependencies.py "$(DEPENDENCIES)" armor web sequoia,$(error say DEPENDENCIES=directory))

.PHONY: uninstall
uninstall: ## Take it away again; mail, keys and edited configuration stay
	$(CONFFILE) retire "$(DESTDIR)$(SNIPPET)" "$(DESTDIR)$(INSTALLED)/99-cryptomail.conf"
	$(CONFFILE) remove "$(DESTDIR)$(CONFIG)" "$(DESTDIR)$(INSTALLED)/config.toml"
	rm -f "$(DESTDIR)$(REMEMBERED)" "$(DESTDIR)$(GUARD)" "$(DESTDIR)$(GUARD:.sieve=.svbin)"
	rmdir "$(DESTDIR)$(SYSCONFDIR)/cryptomail" 2>/dev/null || true
	rm -rf "$(DESTDIR)$(LIB)" "$(DESTDIR)$(SOCKETS)/filter" "$(DESTDIR)$(SOCKETS)/execute" "$(DESTDIR)$(SHARE)" \
	    "$(DESTDIR)$(PREFIX)/bin/cryptomail"
	rm -f "$(DESTDIR)$(REGISTER)/upgraded" "$(DESTDIR)$(SOCKETS)/metrics"
	rmdir "$(DESTDIR)$(REGISTER)"/* "$(DESTDIR)$(REGISTER)" "$(DESTDIR)$(SOCKETS)" 2>/dev/null || true
	for page in $(MAN_PAGES); do rm -f "$(DESTDIR)$(MAN)/man$${page##*.}/$${page##*/}"; done
	echo "cryptomail is uninstalled: after 'doveadm reload', new mail is stored as it comes."

.venv/installed: setup.cfg pyproject.toml
	$(PYTHON) -m venv .venv
	$(DEV) pip install --quiet --editable '.[dev]'
	touch $@

.PHONY: packages
packages: ## Install the Debian packages that tests need, and have Debian start none of the servers among them
	@sh lab/packages.sh lab test

.PHONY: venv
venv: .venv/installed ## Make the development environment, .venv

# Half of their time tests wait, for Dovecot or for a deadline.
.PHONY: test
test: export CRYPTOMAIL_BOTH := $(BOTH)
test: WORKERS := $(shell expr 2 \* "$$(nproc)")
test: packages venv ## Run all tests (installs missing Debian packages); TESTS=tests/openpgp for some, BOTH=1 for all
	$(DEV) pytest -n $(WORKERS) $(TESTS)

.PHONY: faults
faults: packages venv ## Cause every fault with many messages, and write docs/developer/faults.md
	CRYPTOMAIL_FAULTS_LONG=1 $(DEV) pytest -n 2 tests/faults tests/e2e/test_descriptors.py tests/e2e/test_upgrade.py \
	    tests/system/test_places.py tests/programs/test_system_users.py

.PHONY: coverage
coverage: DATA := $(CURDIR)/build/coverage
coverage: TESTS := --ignore tests/e2e --ignore tests/faults tests
coverage: packages venv ## Say how much of the program the tests run, in processes that they start too: TESTS=tests/openpgp
	rm -rf "$(DATA)" && mkdir -p "$(DATA)" && chmod 1777 "$(DATA)"
# Tests start programs with hardly any environment: Python itself has to tell each that it is measured.
	site=$$(.venv/bin/python -c "import site; print(site.getsitepackages()[0])"); \
	    trap 'rm -f "$$site/measured.pth"' EXIT INT TERM; \
	    echo "import os, coverage; os.environ.update(COVERAGE_PROCESS_START='$(CURDIR)/setup.cfg'," \
	        "COVERAGE_DATA='$(DATA)'); coverage.process_startup()" > "$$site/measured.pth"; \
	    $(DEV) pytest -n 2 $(TESTS); failed=$$?; rm -f "$$site/measured.pth"; \
	    export COVERAGE_DATA="$(DATA)"; $(DEV) coverage combine --quiet && $(DEV) coverage report --skip-covered; exit $$failed

.PHONY: check
check: venv ## Run the linter, the formatter's check and the type checker
	$(DEV) ruff check $(CODE)
	$(DEV) ruff format --check $(CODE)
	$(DEV) mypy sieve_filter lab tests benchmarks
	$(DEV) mypy dovecot
	$(DEV) mypy release

.PHONY: fuzz
fuzz: venv ## Look for bytes that break a promise: SECONDS=60
	$(DEV) pip install --quiet --editable '.[fuzz]'
	$(DEV) tests.fuzz $(or $(SECONDS),60)

.PHONY: interop
interop: venv ## Have each program read mail to each kind of key, and write docs/developer/interop.md (as root, on Debian 12)
	@sh lab/packages.sh lab test interop
	@$(DEV) tests.interop

.PHONY: bench
bench: venv ## Measure what it costs, and write docs/developer/benchmarks.md; QUICK=1 for a sketch, BOTH=1 for 2.4, too
	@$(DEV) benchmarks $(if $(QUICK),--quick) $(if $(BOTH),--both)

.PHONY: errors
errors: ## Write docs/admin/errors.md, the table of errors, from the code and docs/admin/errors.in
	$(PYTHON) docs/errors.py

.PHONY: docs
docs: venv errors ## Build the documents as a site, in build/site; a warning is an error
	$(DEV) pip install --quiet --editable '.[docs]'
	rm -rf build/site-source && mkdir -p build/site-source
	cp -R *.md docs man build/site-source
	$(DEV) mkdocs build --strict

.PHONY: deb
deb: venv ## Build the Debian packages of what is committed, in build/deb/out, for RELEASES="12 13"
	$(DEV) release.deb $(RELEASES)

.PHONY: deb-test
deb-test: venv ## Install, upgrade under load, remove and purge the Debian packages on clean machines: RELEASES="12 13"
	$(DEV) release.trial $(RELEASES)

.PHONY: lab
lab: ## Start a private Dovecot: LAB=directory (default: a new one in /tmp), MODE=sealed|executed|filter|users|saved|off
	@sh lab/packages.sh lab
	@$(PYTHON) -m lab start --mode $(MODE) $(LAB)

.PHONY: lab-stop
lab-stop: ## Stop the private Dovecot in LAB=directory
	@$(PYTHON) -m lab stop $(LAB)

.PHONY: demo
demo: ## Show it at work on this machine (installs missing Debian packages)
	@sh lab/packages.sh lab
	@$(PYTHON) -m lab demo
