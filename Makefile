# camlease: build, install, demo, test. "make help" lists the targets.

PREFIX ?= /usr/local
LIBDIR ?= $(PREFIX)/lib
INCLUDEDIR ?= $(PREFIX)/include
TMPFILESDIR ?= $(PREFIX)/lib/tmpfiles.d
BINDIR ?= $(PREFIX)/bin
MANDIR ?= $(PREFIX)/share/man
# Where each shell looks for completions.
BASHDIR ?= $(PREFIX)/share/bash-completion/completions
ZSHDIR ?= $(PREFIX)/share/zsh/site-functions
FISHDIR ?= $(PREFIX)/share/fish/vendor_completions.d
UNITDIR ?= $(PREFIX)/lib/systemd/system
DOCDIR ?= $(PREFIX)/share/doc/camlease
DESTDIR ?=

CARGO ?= cargo
INSTALL ?= install
DOXYGEN ?= doxygen

TARGET := $(or $(CARGO_TARGET_DIR),target)
# Where libcamlease.so and libcamlease.a are. Another folder than the release build's is taken as it is.
BUILT ?= $(TARGET)/release
# The camlease command. Beside a library that was built elsewhere it need not be: then the library is installed alone.
COMMAND ?= $(if $(filter $(TARGET)/release,$(BUILT)),$(BUILT)/camlease,$(wildcard $(BUILT)/camlease))
# Man pages and completions: made with the command, so that "sudo make install" writes nothing here.
SHARE := $(dir $(COMMAND))camlease-share
EXAMPLES := $(TARGET)/examples-c

VERSION := $(shell sed -n 's/^version = "\(.*\)"/\1/p' Cargo.toml | head -n 1)
# The SONAME's number, as build.rs sets it.
SOVERSION := $(firstword $(subst ., ,$(VERSION)))

SOURCES := Cargo.toml $(wildcard Cargo.lock) build.rs $(shell find src -name '*.rs')
COMMAND_SOURCES := $(SOURCES) $(shell find cli/Cargo.toml cli/src -type f)

all: $(TARGET)/release/libcamlease.so $(TARGET)/release/camlease-share/made

# Cargo decides what is to be built anew; make only whether to ask it, so that "sudo make install" need not.
$(TARGET)/release/libcamlease.so: $(SOURCES)
	@command -v $(CARGO) >/dev/null || { echo "cargo is missing: make deps" >&2; exit 1; }
	$(CARGO) build --release --lib
	@touch $@

# By itself: what the command needs of the crates that both use does not reach the library.
$(TARGET)/release/camlease: $(COMMAND_SOURCES)
	@command -v $(CARGO) >/dev/null || { echo "cargo is missing: make deps" >&2; exit 1; }
	$(CARGO) build --release --package camlease-cli
	@touch $@

%/camlease-share/made: %/camlease
	$(RM) -r '$*/camlease-share'
	$< man '$*/camlease-share/man'
	$< completions bash >'$*/camlease-share/camlease.bash'
	$< completions zsh >'$*/camlease-share/_camlease'
	$< completions fish >'$*/camlease-share/camlease.fish'
	@touch $@

deps:
	scripts/install-deps

# What a path is below another, or else the path itself: keeps the pkg-config file movable.
below = $(patsubst $(1)/%,$${prefix}/%,$(2))
FILL = sed -e 's|@PREFIX@|$(PREFIX)|' -e 's|@VERSION@|$(VERSION)|' -e 's|@SOVERSION@|$(SOVERSION)|' \
	-e 's|@PC_LIBDIR@|$(call below,$(PREFIX),$(LIBDIR))|' \
	-e 's|@PC_INCLUDEDIR@|$(call below,$(PREFIX),$(INCLUDEDIR))|' \
	-e 's|@BINDIR@|$(BINDIR)|' \
	-e "s|@INCLUDE_FROM_LIB@|$$(realpath -m --relative-to='$(LIBDIR)' '$(INCLUDEDIR)')|"

install: install-library $(if $(COMMAND),install-command)

install-library: $(BUILT)/libcamlease.so
	$(INSTALL) -d '$(DESTDIR)$(LIBDIR)/pkgconfig' '$(DESTDIR)$(LIBDIR)/cmake/camlease' '$(DESTDIR)$(INCLUDEDIR)'
	$(INSTALL) -m 755 '$(BUILT)/libcamlease.so' '$(DESTDIR)$(LIBDIR)/libcamlease.so.$(VERSION)'
	ln -sf libcamlease.so.$(VERSION) '$(DESTDIR)$(LIBDIR)/libcamlease.so.$(SOVERSION)'
	ln -sf libcamlease.so.$(SOVERSION) '$(DESTDIR)$(LIBDIR)/libcamlease.so'
	$(INSTALL) -m 644 '$(BUILT)/libcamlease.a' '$(DESTDIR)$(LIBDIR)/libcamlease.a'
	$(INSTALL) -m 644 include/camlease.h '$(DESTDIR)$(INCLUDEDIR)/camlease.h'
# The folder of leases, made at every boot where systemd is.
	$(INSTALL) -d '$(DESTDIR)$(TMPFILESDIR)'
	$(INSTALL) -m 644 packaging/tmpfiles.d/camlease.conf '$(DESTDIR)$(TMPFILESDIR)/camlease.conf'
	$(FILL) packaging/camlease.pc.in >'$(DESTDIR)$(LIBDIR)/pkgconfig/camlease.pc'
	$(FILL) packaging/camleaseConfig.cmake.in >'$(DESTDIR)$(LIBDIR)/cmake/camlease/camleaseConfig.cmake'
	$(FILL) packaging/camleaseConfigVersion.cmake.in >'$(DESTDIR)$(LIBDIR)/cmake/camlease/camleaseConfigVersion.cmake'
# The loader finds a new library in its usual folders only after this.
	@if test -z '$(DESTDIR)'; then case '$(PREFIX)' in /usr|/usr/local) ldconfig;; esac; fi

install-command: $(COMMAND) $(SHARE)/made
	$(INSTALL) -d '$(DESTDIR)$(BINDIR)' '$(DESTDIR)$(MANDIR)/man1'
	$(INSTALL) -d '$(DESTDIR)$(BASHDIR)' '$(DESTDIR)$(ZSHDIR)' '$(DESTDIR)$(FISHDIR)'
	$(INSTALL) -m 755 '$(COMMAND)' '$(DESTDIR)$(BINDIR)/camlease'
	$(INSTALL) -m 644 '$(SHARE)'/man/*.1 '$(DESTDIR)$(MANDIR)/man1'
	$(INSTALL) -m 644 '$(SHARE)/camlease.bash' '$(DESTDIR)$(BASHDIR)/camlease'
	$(INSTALL) -m 644 '$(SHARE)/_camlease' '$(DESTDIR)$(ZSHDIR)/_camlease'
	$(INSTALL) -m 644 '$(SHARE)/camlease.fish' '$(DESTDIR)$(FISHDIR)/camlease.fish'
# "camlease serve" as a service, and its file to start from: /etc/camlease/cameras.toml is the machine's own.
	$(INSTALL) -d '$(DESTDIR)$(UNITDIR)' '$(DESTDIR)$(DOCDIR)'
	$(FILL) packaging/systemd/camlease.service.in >'$(DESTDIR)$(UNITDIR)/camlease.service'
	$(INSTALL) -m 644 packaging/cameras.toml '$(DESTDIR)$(DOCDIR)/cameras.toml'

uninstall:
	$(RM) '$(DESTDIR)$(BINDIR)/camlease' '$(DESTDIR)$(MANDIR)'/man1/camlease.1 '$(DESTDIR)$(MANDIR)'/man1/camlease-*.1
	$(RM) '$(DESTDIR)$(BASHDIR)/camlease' '$(DESTDIR)$(ZSHDIR)/_camlease' '$(DESTDIR)$(FISHDIR)/camlease.fish'
	$(RM) '$(DESTDIR)$(UNITDIR)/camlease.service' '$(DESTDIR)$(DOCDIR)/cameras.toml'
	$(RM) '$(DESTDIR)$(LIBDIR)/libcamlease.so.$(VERSION)' '$(DESTDIR)$(LIBDIR)/libcamlease.so.$(SOVERSION)'
	$(RM) '$(DESTDIR)$(LIBDIR)/libcamlease.so' '$(DESTDIR)$(LIBDIR)/libcamlease.a'
	$(RM) '$(DESTDIR)$(TMPFILESDIR)/camlease.conf'
	$(RM) '$(DESTDIR)$(INCLUDEDIR)/camlease.h' '$(DESTDIR)$(LIBDIR)/pkgconfig/camlease.pc'
	$(RM) '$(DESTDIR)$(LIBDIR)/cmake/camlease/camleaseConfig.cmake'
	$(RM) '$(DESTDIR)$(LIBDIR)/cmake/camlease/camleaseConfigVersion.cmake'
	-rmdir '$(DESTDIR)$(LIBDIR)/cmake/camlease'

# The header and the list of exported names, out of the code.
header:
	CAMLEASE_WRITE_HEADER=1 $(CARGO) test --test header

# Against the library as it was built here, without installing it.
examples: $(BUILT)/libcamlease.so
	ln -sf libcamlease.so '$(BUILT)/libcamlease.so.$(SOVERSION)'
	@mkdir -p '$(EXAMPLES)'
	$(MAKE) --no-print-directory -C examples-c OUT='$(abspath $(EXAMPLES))' HEADER='$(abspath include/camlease.h)' \
		CAMLEASE_CFLAGS='-I$(abspath include)' \
		CAMLEASE_LIBS='-L$(abspath $(BUILT)) -lcamlease -Wl,-rpath,$(abspath $(BUILT))'

demo:
	scripts/demo

test:
	scripts/test

# The C interface for a browser: target/doc-c/html/index.html
doc:
	@mkdir -p '$(TARGET)'
	{ cat Doxyfile; echo 'OUTPUT_DIRECTORY = $(TARGET)/doc-c'; echo 'PROJECT_NUMBER = $(VERSION)'; } | $(DOXYGEN) -
	@echo 'See $(TARGET)/doc-c/html/index.html'

clean:
	$(CARGO) clean

help:
	@echo 'make            builds the library and the command (release)'
	@echo 'make deps       installs what building and testing need'
	@echo 'make demo       shows the main job on this machine; DEVICE=/dev/video0 on a real camera'
	@echo 'make test       all checks and tests'
	@echo 'make install    library, header, pkg-config and CMake files, command, its man pages, completions and service;'
	@echo '                PREFIX=, LIBDIR=, INCLUDEDIR=, BINDIR=, MANDIR=, DESTDIR=; install-library, install-command: one alone'
	@echo 'make uninstall  takes them away again'
	@echo 'make examples   builds examples-c into $(EXAMPLES)'
	@echo 'make header     writes include/camlease.h and camlease.symbols out of the code'
	@echo 'make doc        the C interface for a browser (Doxygen)'

.PHONY: all deps install install-library install-command uninstall header examples demo test doc clean help
