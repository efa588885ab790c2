# camlease: build, install, demo, test. "make help" lists the targets.

PREFIX ?= /usr/local
LIBDIR ?= $(PREFIX)/lib
INCLUDEDIR ?= $(PREFIX)/include
DESTDIR ?=

CARGO ?= cargo
INSTALL ?= install
DOXYGEN ?= doxygen

TARGET := $(or $(CARGO_TARGET_DIR),target)
# Where libcamlease.so and libcamlease.a are. Another folder than the release build's is taken as it is.
BUILT ?= $(TARGET)/release
EXAMPLES := $(TARGET)/examples-c

VERSION := $(shell sed -n 's/^version = "\(.*\)"/\1/p' Cargo.toml | head -n 1)
# The SONAME's number, as build.rs sets it.
SOVERSION := $(firstword $(subst ., ,$(VERSION)))

SOURCES := Cargo.toml $(wildcard Cargo.lock) build.rs $(shell find src -name '*.rs')

all: $(TARGET)/release/libcamlease.so

# Cargo decides what is to be built anew; make only whether to ask it, so that "sudo make install" need not.
$(TARGET)/release/libcamlease.so: $(SOURCES)
	@command -v $(CARGO) >/dev/null || { echo "cargo is missing: make deps" >&2; exit 1; }
	$(CARGO) build --release --lib
	@touch $@

deps:
	scripts/install-deps

# What a path is below another, or else the path itself: keeps the pkg-config file movable.
below = $(patsubst $(1)/%,$${prefix}/%,$(2))
FILL = sed -e 's|@PREFIX@|$(PREFIX)|' -e 's|@VERSION@|$(VERSION)|' -e 's|@SOVERSION@|$(SOVERSION)|' \
	-e 's|@PC_LIBDIR@|$(call below,$(PREFIX),$(LIBDIR))|' \
	-e 's|@PC_INCLUDEDIR@|$(call below,$(PREFIX),$(INCLUDEDIR))|' \
	-e "s|@INCLUDE_FROM_LIB@|$$(realpath -m --relative-to='$(LIBDIR)' '$(INCLUDEDIR)')|"

install: $(BUILT)/libcamlease.so
	$(INSTALL) -d '$(DESTDIR)$(LIBDIR)/pkgconfig' '$(DESTDIR)$(LIBDIR)/cmake/camlease' '$(DESTDIR)$(INCLUDEDIR)'
	$(INSTALL) -m 755 '$(BUILT)/libcamlease.so' '$(DESTDIR)$(LIBDIR)/libcamlease.so.$(VERSION)'
	ln -sf libcamlease.so.$(VERSION) '$(DESTDIR)$(LIBDIR)/libcamlease.so.$(SOVERSION)'
	ln -sf libcamlease.so.$(SOVERSION) '$(DESTDIR)$(LIBDIR)/libcamlease.so'
	$(INSTALL) -m 644 '$(BUILT)/libcamlease.a' '$(DESTDIR)$(LIBDIR)/libcamlease.a'
	$(INSTALL) -m 644 include/camlease.h '$(DESTDIR)$(INCLUDEDIR)/camlease.h'
	$(FILL) packaging/camlease.pc.in >'$(DESTDIR)$(LIBDIR)/pkgconfig/camlease.pc'
	$(FILL) packaging/camleaseConfig.cmake.in >'$(DESTDIR)$(LIBDIR)/cmake/camlease/camleaseConfig.cmake'
	$(FILL) packaging/camleaseConfigVersion.cmake.in >'$(DESTDIR)$(LIBDIR)/cmake/camlease/camleaseConfigVersion.cmake'
# The loader finds a new library in its usual folders only after this.
	@if test -z '$(DESTDIR)'; then case '$(PREFIX)' in /usr|/usr/local) ldconfig;; esac; fi

uninstall:
	$(RM) '$(DESTDIR)$(LIBDIR)/libcamlease.so.$(VERSION)' '$(DESTDIR)$(LIBDIR)/libcamlease.so.$(SOVERSION)'
	$(RM) '$(DESTDIR)$(LIBDIR)/libcamlease.so' '$(DESTDIR)$(LIBDIR)/libcamlease.a'
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
	@echo 'make            builds the library (release)'
	@echo 'make deps       installs what building and testing need'
	@echo 'make demo       shows the main job on this machine; DEVICE=/dev/video0 on a real camera'
	@echo 'make test       all checks and tests'
	@echo 'make install    library, header, pkg-config and CMake files; PREFIX=, LIBDIR=, INCLUDEDIR=, DESTDIR='
	@echo 'make uninstall  takes them away again'
	@echo 'make examples   builds examples-c into $(EXAMPLES)'
	@echo 'make header     writes include/camlease.h and camlease.symbols out of the code'
	@echo 'make doc        the C interface for a browser (Doxygen)'

.PHONY: all deps install uninstall header examples demo test doc clean help
