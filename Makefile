# make                      build the one C program
# make install              put it all below $(DESTDIR)$(PREFIX)
# make uninstall            take it away again
DESTDIR =
PREFIX = /usr
PYTHON = /usr/bin/python3
INSTALL = install

# Where Debian's Python 3, of whichever version, looks for packages; the commands append it (python3 -S hides it).
PACKAGES = $(PREFIX)/lib/python3/dist-packages
DEBIAN = /usr/lib/python3/dist-packages
comma = ,
PLACES = "$(PACKAGES)"$(if $(filter-out $(DEBIAN),$(PACKAGES)),$(comma) "$(DEBIAN)")
COMMANDS = jail jls jexec jailctl ipnat rctl
COMPLETED = jls jexec ipnat rctl jailctl
MODULES = $(shell cd src && find jailng -name '*.py' -o -name py.typed | LC_ALL=C sort)
PAGES = $(wildcard man/*.[1-9])
SHIMS = $(wildcard shims/*)
USERLAND = $(shell find userland -type f | LC_ALL=C sort)
BOOT = $(wildcard share/rc/*.service)
UNITS = $(PREFIX)/lib/systemd/system
NETWORK = $(PREFIX)/lib/systemd/network/05-jailng.network
VIM = ftdetect/jailconf.vim ftplugin/jailconf.vim syntax/jailconf.vim
# Where the shells look for completions, below PREFIX.
BASH = share/bash-completion/completions
ZSH = share/zsh/vendor-completions
FISH = share/fish/vendor_completions.d

.PHONY: all check install install-boot install-editing uninstall uninstall-boot clean

# All modules of a command in one file, for the time that finding them one by one takes (src/jailng/start.py).
GATHER = $(PYTHON) -IX no_debug_ranges -c 'import sys; sys.path.append(sys.argv[1]); import jailng.gather; jailng.gather.gather()'

all:
	$(MAKE) -C jailinit
	$(GATHER) src

check:
	./check

install: all
	rm -rf $(DESTDIR)$(PACKAGES)/jailng
	for module in $(MODULES); do \
		$(INSTALL) -p -D -m 644 src/$$module $(DESTDIR)$(PACKAGES)/$$module || exit 1; done
	umask 022 && $(PYTHON) -m compileall -q -f --invalidation-mode timestamp -s '$(DESTDIR)' -p / $(DESTDIR)$(PACKAGES)/jailng
	umask 022 && $(GATHER) $(DESTDIR)$(PACKAGES)
	# An installed command looks for its modules where they were put, and for Debian's bindings; nowhere else.
	$(INSTALL) -d $(DESTDIR)$(PREFIX)/sbin
	for command in $(COMMANDS); do \
		rm -f $(DESTDIR)$(PREFIX)/sbin/$$command && \
		sed '/^# Through \|^here = /,/^sys\.path += /c root = "$(PACKAGES)"\nsys.path += [$(PLACES)]' \
			bin/$$command > $(DESTDIR)$(PREFIX)/sbin/$$command && \
		chmod 755 $(DESTDIR)$(PREFIX)/sbin/$$command || exit 1; done
	# FreeBSD has it in /usr/bin, by which programs call it. Where bin and sbin are one directory it is there already.
	$(INSTALL) -d $(DESTDIR)$(PREFIX)/bin
	[ $(DESTDIR)$(PREFIX)/bin -ef $(DESTDIR)$(PREFIX)/sbin ] || ln -sf ../sbin/rctl $(DESTDIR)$(PREFIX)/bin/rctl
	# Run by processes that already live in a jail, read by nobody.
	$(INSTALL) -D -m 711 jailinit/jailinit $(DESTDIR)$(PREFIX)/lib/jailng/jailinit
	# FreeBSD's spellings for the host, and what goes into a root that `jailctl bootstrap` makes.
	for file in $(SHIMS); do $(INSTALL) -D -m 755 $$file $(DESTDIR)$(PREFIX)/lib/jailng/$$file || exit 1; done
	for file in $(USERLAND); do $(INSTALL) -p -D $$file $(DESTDIR)$(PREFIX)/share/jailng/$$file || exit 1; done
	for page in $(PAGES); do \
		$(INSTALL) -D -m 644 $$page $(DESTDIR)$(PREFIX)/share/man/man$${page##*.}/$${page##*/} || exit 1; done
	$(MAKE) install-editing

# What knows the parameters' names while one types: completions of the shells, and vim's colours.
install-editing:
	$(INSTALL) -d $(DESTDIR)$(PREFIX)/share/jailng $(addprefix $(DESTDIR)$(PREFIX)/,$(BASH) $(ZSH) $(FISH))
	umask 022 && $(PYTHON) -IB share/generate parameters > $(DESTDIR)$(PREFIX)/share/jailng/parameters
	umask 022 && sed 's|=/usr/share/jailng/|=$(PREFIX)/share/jailng/|' share/completions/jailng.bash \
		> $(DESTDIR)$(PREFIX)/$(BASH)/jail
	umask 022 && sed 's|=/usr/share/jailng/|=$(PREFIX)/share/jailng/|' share/completions/_jailng \
		> $(DESTDIR)$(PREFIX)/$(ZSH)/_jailng
	umask 022 && sed 's| /usr/share/jailng/| $(PREFIX)/share/jailng/|' share/completions/jailng.fish \
		> $(DESTDIR)$(PREFIX)/$(FISH)/jail.fish
	for command in $(COMPLETED); do \
		ln -sf jail $(DESTDIR)$(PREFIX)/$(BASH)/$$command && \
		ln -sf jail.fish $(DESTDIR)$(PREFIX)/$(FISH)/$$command.fish || exit 1; done
	for file in $(VIM); do \
		$(INSTALL) -D -m 644 share/vim/$$file $(DESTDIR)$(PREFIX)/share/vim/vimfiles/$$file || exit 1; done
	umask 022 && $(PYTHON) -IB share/generate vim > $(DESTDIR)$(PREFIX)/share/vim/vimfiles/syntax/jailconf.vim

# Start and stop with the machine, under systemd or SysV init: rc.jail(8). Then enable it as your init has it.
install-boot:
	$(INSTALL) -d $(DESTDIR)$(UNITS) $(DESTDIR)/etc/init.d $(DESTDIR)/etc/default
	for unit in $(notdir $(BOOT)); do \
		sed 's|/usr/sbin/|$(PREFIX)/sbin/|g' share/rc/$$unit > $(DESTDIR)$(UNITS)/$$unit && \
		chmod 644 $(DESTDIR)$(UNITS)/$$unit || exit 1; done
	$(INSTALL) -D -m 644 share/rc/05-jailng.network $(DESTDIR)$(NETWORK)
	for script in jail ipnat rctl; do \
		sed 's|/usr/sbin/|$(PREFIX)/sbin/|g' share/rc/$$script.init > $(DESTDIR)/etc/init.d/$$script && \
		chmod 755 $(DESTDIR)/etc/init.d/$$script || exit 1; done
	[ -e $(DESTDIR)/etc/default/jail ] || $(INSTALL) -m 644 share/rc/jail.default $(DESTDIR)/etc/default/jail

uninstall-boot:
	rm -f $(DESTDIR)$(NETWORK) $(addprefix $(DESTDIR)$(UNITS)/,$(notdir $(BOOT))) $(addprefix $(DESTDIR)/etc/init.d/,jail ipnat rctl)

uninstall:
	rm -rf $(DESTDIR)$(PACKAGES)/jailng $(DESTDIR)$(PREFIX)/lib/jailng $(DESTDIR)$(PREFIX)/share/jailng \
		$(DESTDIR)/var/cache/jailng
	rm -f $(COMMANDS:%=$(DESTDIR)$(PREFIX)/sbin/%) $(DESTDIR)$(PREFIX)/bin/rctl
	for page in $(PAGES); do rm -f $(DESTDIR)$(PREFIX)/share/man/man$${page##*.}/$${page##*/}; done
	rm -f $(patsubst %,$(DESTDIR)$(PREFIX)/$(BASH)/%,jail $(COMPLETED)) $(patsubst %,$(DESTDIR)$(PREFIX)/$(FISH)/%.fish,jail $(COMPLETED)) \
		$(DESTDIR)$(PREFIX)/$(ZSH)/_jailng $(VIM:%=$(DESTDIR)$(PREFIX)/share/vim/vimfiles/%)
	# Directories that may have been made for these alone.
	-cd $(DESTDIR)$(PREFIX) && for directory in $(BASH) $(ZSH) $(FISH) $(dir $(VIM:%=share/vim/vimfiles/%)); do \
		[ ! -d $$directory ] || rmdir -p --ignore-fail-on-non-empty $$directory; done

clean:
	$(MAKE) -C jailinit clean
	find src tests -name __pycache__ -type d -prune -exec rm -rf {} +
