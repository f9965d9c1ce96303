# hotlogfs. `make help` lists the targets.

SANITIZER ?=
CC ?= cc
PKG_CONFIG ?= pkg-config
CLANG_FORMAT ?= clang-format
CLANG_TIDY ?= clang-tidy
CPPCHECK ?= cppcheck

ifeq ($(SANITIZER),)
BUILD ?= build
else
BUILD ?= build-$(SANITIZER)
endif

# ---- flags ----

WARNINGS := -Wall -Wextra -Werror -Wshadow -Wstrict-prototypes -Wmissing-prototypes -Wpointer-arith \
	-Wcast-qual -Wwrite-strings -Wvla -Wformat=2 -Wundef
LIBRARIES := fuse3 lmdb libisal libsystemd mount
TEST_LIBRARIES := cmocka jansson yajl

# Headers of others are no business of our warnings.
system_headers = $(patsubst -I%,-isystem %,$(shell $(PKG_CONFIG) --cflags $(1)))

OPTIMIZE ?= -O2 -g
ifeq ($(SANITIZER),)
HARDEN := -fstack-protector-strong -D_FORTIFY_SOURCE=2
else ifeq ($(SANITIZER),address)
HARDEN := -fsanitize=address -fno-omit-frame-pointer
else ifeq ($(SANITIZER),undefined)
HARDEN := -fsanitize=undefined -fno-sanitize-recover=all
else ifeq ($(SANITIZER),thread)
HARDEN := -fsanitize=thread
else ifeq ($(SANITIZER),address,undefined)
HARDEN := -fsanitize=address,undefined -fno-sanitize-recover=all -fno-omit-frame-pointer
else
$(error SANITIZER is address, undefined, thread or address,undefined)
endif

# What must hold whatever CFLAGS and LDFLAGS somebody sets.
OUR_CFLAGS = -std=gnu11 -D_GNU_SOURCE $(WARNINGS) $(HARDEN) -pthread -MMD -MP
CFLAGS ?= $(OPTIMIZE)
FUSE_HEADERS = $(call system_headers,$(LIBRARIES))
TEST_HEADERS = $(call system_headers,$(LIBRARIES) $(TEST_LIBRARIES))
LIBS = $(shell $(PKG_CONFIG) --libs $(LIBRARIES))
STORE_LIBS = $(shell $(PKG_CONFIG) --libs lmdb libisal)
TEST_LIBS = $(shell $(PKG_CONFIG) --libs $(TEST_LIBRARIES))

# ---- files ----

STORE_SOURCES := $(sort $(wildcard store/*.c))
FS_SOURCES := $(sort $(filter-out fs/main.c,$(wildcard fs/*.c)))
FSCK_SOURCES := $(sort $(wildcard fsck/*.c))
TEST_SOURCES := $(sort $(wildcard tests/unit/test_*.c))
HELPER_SOURCES := $(sort $(filter-out $(TEST_SOURCES),$(wildcard tests/unit/*.c)))
CRASH_TEST_SOURCES := $(sort $(wildcard tests/crash/test_*.c))
CRASH_HELPER_SOURCES := $(sort $(filter-out $(CRASH_TEST_SOURCES),$(wildcard tests/crash/*.c)))
OUR_FILES := $(sort $(wildcard tests/fuzz/*.[ch] store/*.[ch] fs/*.[ch] fsck/*.[ch] tests/unit/*.[ch] tests/crash/*.[ch] tests/bench/*.[ch]))

objects = $(patsubst %.c,$(BUILD)/obj/%.o,$(1))
STORE_OBJECTS := $(call objects,$(STORE_SOURCES))
FS_OBJECTS := $(call objects,$(FS_SOURCES))
MAIN_OBJECT := $(call objects,fs/main.c)
FSCK_OBJECTS := $(call objects,$(FSCK_SOURCES))
TEST_OBJECTS := $(call objects,$(TEST_SOURCES))
HELPER_OBJECTS := $(call objects,$(HELPER_SOURCES))
CRASH_TEST_OBJECTS := $(call objects,$(CRASH_TEST_SOURCES))
CRASH_HELPER_OBJECTS := $(call objects,$(CRASH_HELPER_SOURCES))
CRASH_PROGRAMS := $(patsubst tests/crash/%.c,$(BUILD)/tests/%,$(CRASH_TEST_SOURCES))
TEST_PROGRAMS := $(patsubst tests/unit/%.c,$(BUILD)/tests/%,$(TEST_SOURCES)) $(CRASH_PROGRAMS)

BENCH_PROGRAMS := $(addprefix $(BUILD)/bench/,nullfs load_file load_sqlite load_redis)

STORE_ARCHIVE := $(BUILD)/libhotlog.a
FS_ARCHIVE := $(BUILD)/libhotlogfs-fs.a
PROGRAM := $(BUILD)/hotlogfs
FSCK_PROGRAM := $(BUILD)/fsck.hotlogfs
PROGRAMS := $(PROGRAM) $(FSCK_PROGRAM)

# Always by clang, whose libFuzzer it is, whatever CC is.
FUZZ_CC ?= clang
FUZZ_BUILD ?= build-fuzz
FUZZ_PROGRAMS := $(patsubst tests/fuzz/%.c,$(FUZZ_BUILD)/%,$(sort $(wildcard tests/fuzz/fuzz_*.c)))
VERSION := $(shell sed -n 's/^.define HL_VERSION "\(.*\)".*/\1/p' store/store.h)

# ---- where `make install` puts them, below DESTDIR ----

PREFIX ?= /usr/local
BINDIR ?= $(PREFIX)/bin
SBINDIR ?= $(PREFIX)/sbin
MANDIR ?= $(PREFIX)/share/man
DOCDIR ?= $(PREFIX)/share/doc/hotlogfs
SCRIPTDIR ?= $(PREFIX)/share/hotlogfs
COMPLETIONDIR ?= $(PREFIX)/share/bash-completion/completions
UNITDIR ?= $(PREFIX)/lib/systemd/system
USERUNITDIR ?= $(PREFIX)/lib/systemd/user
# mount(8) looks for mount.hotlogfs nowhere else. Empty: it is left out.
HELPERDIR ?= /sbin

# Programs for administrators: those that were built are installed, each with its man page.
ADMIN_NAMES := fsck.hotlogfs
ADMIN_PROGRAMS = $(shell ls $(addprefix $(BUILD)/,$(ADMIN_NAMES)) 2>/dev/null)
ADMIN_PAGES = $(ADMIN_NAMES:%=man/%.8)
MAN_PAGES = $(filter-out $(ADMIN_PAGES),$(sort $(wildcard man/*.[1-8]))) \
	$(patsubst %,man/%.8,$(notdir $(ADMIN_PROGRAMS)))
page_targets = $(foreach page,$(1),$(MANDIR)/man$(patsubst .%,%,$(suffix $(page)))/$(notdir $(page)))
UNITS := $(BUILD)/dist/hotlogfs@.service $(BUILD)/dist/hotlogfs@.user.service

# MODE:FILE:TARGET, one for each file that is installed.
to_directory = $(foreach file,$(2),$(1):$(file):$(3)/$(notdir $(file)))
INSTALLED = $(call to_directory,755,$(PROGRAM),$(BINDIR)) \
	$(call to_directory,755,$(ADMIN_PROGRAMS),$(SBINDIR)) \
	$(join $(MAN_PAGES:%=644:%:),$(call page_targets,$(MAN_PAGES))) \
	644:dist/completion.bash:$(COMPLETIONDIR)/hotlogfs \
	644:$(BUILD)/dist/hotlogfs@.service:$(UNITDIR)/hotlogfs@.service \
	644:$(BUILD)/dist/hotlogfs@.user.service:$(USERUNITDIR)/hotlogfs@.service \
	$(call to_directory,644,README.md $(wildcard CHANGELOG.md) $(sort $(wildcard docs/*.md docs/*.svg)),$(DOCDIR)) \
	$(call to_directory,644,dist/example.conf,$(DOCDIR)/examples) \
	$(call to_directory,755,$(sort $(wildcard scripts/import-*)),$(SCRIPTDIR)) \
	$(call to_directory,644,$(sort $(wildcard scripts/lib/*.py)),$(SCRIPTDIR)/lib)

# ---- targets ----

.PHONY: all check unit mount soak fuzz fuzz-programs every-bit soak-crash soak-power bench bench-programs lint tidy cppcheck format-check format install uninstall deb deb-check clean help FORCE
.DEFAULT_GOAL := all

all: $(PROGRAMS) ## build build/hotlogfs and build/fsck.hotlogfs

install: all $(UNITS) ## install below PREFIX=/usr/local (and DESTDIR); mount.hotlogfs in HELPERDIR=/sbin
	@set -e; for line in $(INSTALLED); do \
		rest=$${line#*:}; \
		install -D -m "$${line%%:*}" "$${rest%%:*}" "$(DESTDIR)$${rest#*:}"; \
	done
	@ln -sfn hotlogfs "$(DESTDIR)$(COMPLETIONDIR)/mount.hotlogfs"
ifneq ($(HELPERDIR),)
	@install -d "$(DESTDIR)$(HELPERDIR)"
	@ln -sfn $(BINDIR)/hotlogfs "$(DESTDIR)$(HELPERDIR)/mount.hotlogfs"
endif

uninstall: ## remove what `make install` with the same variables installed
	@set -e; for line in $(INSTALLED); do \
		rm -f "$(DESTDIR)$${line##*:}"; \
	done
	@set -e; for file in $(addprefix $(SBINDIR)/,$(ADMIN_NAMES)) $(call page_targets,$(ADMIN_PAGES)) \
		$(COMPLETIONDIR)/mount.hotlogfs $(addsuffix /mount.hotlogfs,$(HELPERDIR)); do \
		rm -f "$(DESTDIR)$$file"; \
	done
	@for directory in $(DOCDIR)/examples $(DOCDIR) $(SCRIPTDIR)/lib $(SCRIPTDIR); do \
		[ ! -d "$(DESTDIR)$$directory" ] || rmdir --ignore-fail-on-non-empty "$(DESTDIR)$$directory"; \
	done

# In a copy of the tree, with nothing of ours in the environment: the package decides for itself.
DEB_TREE = $(BUILD)/deb/hotlogfs-$(VERSION)
deb: ## make a Debian package in build/deb (needs scripts/install-deps deb)
	@rm -rf $(BUILD)/deb && mkdir -p $(DEB_TREE)
	@{ git ls-files -z --cached --others --exclude-standard 2>/dev/null || \
		find . \( -path ./.git -o -path './build*' \) -prune -o -type f -print0; } | \
		xargs -0 sh -c 'for file; do [ ! -e "$$file" ] || printf "%s\0" "$$file"; done' - | \
		tar --null -T - -cf - | tar -xf - -C $(DEB_TREE)
	@cd $(DEB_TREE) && env -u MAKEFLAGS -u MAKELEVEL -u MFLAGS -u BUILD -u SANITIZER -u CC -u CFLAGS -u LDFLAGS \
		DEB_BUILD_OPTIONS="$(strip $(DEB_BUILD_OPTIONS) nocheck parallel=$(shell nproc))" DEB_BUILD_PROFILES=nocheck \
		dpkg-buildpackage -us -uc -b >../build.log 2>&1 || { tail -n 40 ../build.log >&2; exit 1; }
	@rm -rf $(DEB_TREE)
	@ls $(BUILD)/deb/hotlogfs_*.deb

deb-check: deb ## make the Debian package, check it, install it in an overlay, and boot systemd with it
	BUILD=$(BUILD) tests/run -d $(TESTS)

check: $(PROGRAMS) $(TEST_PROGRAMS) $(BENCH_PROGRAMS) $(if $(SANITIZER),,fuzz-programs) ## build and run every test; TESTS='name…' picks some, JOBS=N at a time
	BUILD=$(BUILD) tests/run $(TESTS)

unit: $(TEST_PROGRAMS) ## only the unit tests
	BUILD=$(BUILD) tests/run -u $(TESTS)

mount: $(PROGRAMS) $(BENCH_PROGRAMS) ## only the tests on real mounts
	BUILD=$(BUILD) tests/run -m $(TESTS)

MINUTES ?= 10
soak: $(PROGRAM) ## everything at once on mounts that come and go, for MINUTES=10
	BUILD=$(BUILD) SOAK_SECONDS=$$(($(MINUTES) * 60)) TIME_LIMIT=$$(($(MINUTES) * 60 + 600)) tests/run -v -m test_soak

STATES ?= 5000000
soak-crash: $(CRASH_PROGRAMS) ## recover from STATES=5000000 states that power cuts may leave (about an hour)
	BUILD=$(BUILD) STATES=$(STATES) TIME_LIMIT=86400 tests/run -v -u test_crash_states

CUTS ?= 10000
ROUNDS ?= 1000
soak-power: $(PROGRAM) ## CUTS=10000 power cuts below a busy mount, and ROUNDS=1000 times SIGKILL (about three hours)
	BUILD=$(BUILD) CUTS=$(CUTS) ROUNDS=$(ROUNDS) TIME_LIMIT=86400 tests/run -v -m power_cut kill_load

BENCH_SIZE := $(if $(QUICK),quick,full)
bench: ## measure beside what people would pick instead; QUICK=1: in two minutes
	scripts/install-deps run bench
	$(MAKE) --no-print-directory BUILD=$(BUILD) all bench-programs
	tests/bench/run $(BUILD)/bench $(PROGRAM) --size $(BENCH_SIZE) --json $(BUILD)/bench/result.json $(BENCH_OPTIONS)

# Where SEED and the default stride leave some out: each state that is written to, too. Over an hour on two cores.
every-bit: $(BUILD)/tests/test_every_bit $(BUILD)/tests/test_index_live ## each bit and length of a small log, in each way it can be opened
	EVERY_BIT_STRIDE=1 $(BUILD)/tests/test_every_bit
	INDEX_ROUNDS=5000 $(BUILD)/tests/test_index_live

SECONDS ?= 60
fuzz: fuzz-programs ## hostile bytes for each parser, SECONDS=60 each, two at a time; FUZZ='json line' picks some
	FUZZ_BUILD=$(FUZZ_BUILD) tests/fuzz/run $(SECONDS) $(FUZZ)

lint: format-check cppcheck tidy ## clang-format --dry-run, cppcheck, clang-tidy

format-check:
	$(CLANG_FORMAT) --dry-run -Werror $(OUR_FILES)

cppcheck:
	$(CPPCHECK) --quiet --error-exitcode=1 --inline-suppr --std=c11 -D_GNU_SOURCE \
		--enable=warning,performance,portability --suppressions-list=.cppcheck-suppressions \
		-j $(shell nproc) store fs fsck

TIDY_SOURCES := $(STORE_SOURCES) $(FS_SOURCES) fs/main.c $(FSCK_SOURCES)
tidy: $(addprefix tidy/,$(TIDY_SOURCES))
tidy/%: FORCE
	$(CLANG_TIDY) --quiet $* -- -std=gnu11 -D_GNU_SOURCE $(FUSE_HEADERS) 2>$(TIDY_NOISE)
TIDY_NOISE := /dev/null

format: ## format the sources in place
	$(CLANG_FORMAT) -i $(OUR_FILES)

clean: ## remove every build directory
	rm -rf build build-fuzz build-clang build-address build-undefined build-thread build-address,undefined

help: ## list the targets
	@sed -n 's/^\([a-z][a-z-]*\):.*## \(.*\)/  make \1\t\2/p' $(firstword $(MAKEFILE_LIST)) | expand -t 22
	@echo
	@echo 'SANITIZER=address, undefined, thread or address,undefined builds into build-SANITIZER,'
	@echo 'so `make check SANITIZER=thread` runs the same tests on that build. CC=clang works too.'

# ---- rules ----

$(PROGRAM): $(MAIN_OBJECT) $(FS_ARCHIVE) $(STORE_ARCHIVE) $(BUILD)/flags
	$(CC) $(CFLAGS) $(HARDEN) -pthread $(LDFLAGS) -o $@ $(MAIN_OBJECT) $(FS_ARCHIVE) $(STORE_ARCHIVE) $(LIBS)

$(BUILD)/dist/%: dist/%.in FORCE
	@mkdir -p $(@D)
	@sed 's|@BINDIR@|$(BINDIR)|g' $< >$@

$(FSCK_PROGRAM): $(FSCK_OBJECTS) $(STORE_ARCHIVE) $(BUILD)/flags $(BUILD)/sources
	$(CC) $(CFLAGS) $(HARDEN) -pthread $(LDFLAGS) -o $@ $(FSCK_OBJECTS) $(STORE_ARCHIVE) $(STORE_LIBS)

# Made anew, so that no object of a source that is gone stays in it.
$(STORE_ARCHIVE): $(STORE_OBJECTS) $(BUILD)/sources
	rm -f $@ && $(AR) rcs $@ $(STORE_OBJECTS)
$(FS_ARCHIVE): $(FS_OBJECTS) $(BUILD)/sources
	rm -f $@ && $(AR) rcs $@ $(FS_OBJECTS)

$(BUILD)/tests/%: $(BUILD)/obj/tests/unit/%.o $(HELPER_OBJECTS) $(FS_ARCHIVE) $(STORE_ARCHIVE)
	@mkdir -p $(@D)
	$(CC) $(CFLAGS) $(HARDEN) -pthread $(LDFLAGS) -o $@ $< $(HELPER_OBJECTS) $(FS_ARCHIVE) $(STORE_ARCHIVE) \
		$(LIBS) $(TEST_LIBS)

# What tests/crash looks at, or makes fail, beyond the table of system calls (tests/crash/wrap.c).
CRASH_WRAPPED := clock_gettime getrandom getpid mkdir fsync malloc calloc realloc strdup __asprintf_chk asprintf \
	index_check_in_child mdb_env_open mdb_env_close mdb_env_sync mdb_txn_begin mdb_txn_commit mdb_put
comma := ,
$(CRASH_PROGRAMS): $(BUILD)/tests/%: $(BUILD)/obj/tests/crash/%.o $(CRASH_HELPER_OBJECTS) $(STORE_ARCHIVE)
	@mkdir -p $(@D)
	$(CC) $(CFLAGS) $(HARDEN) -pthread $(LDFLAGS) $(CRASH_WRAPPED:%=-Wl$(comma)--wrap=%) -o $@ $< \
		$(CRASH_HELPER_OBJECTS) $(STORE_ARCHIVE) $(STORE_LIBS)

# ---- fuzzing ----

FUZZ_FLAGS = -std=gnu11 -D_GNU_SOURCE -DHL_FUZZ $(WARNINGS) -O1 -g -fno-omit-frame-pointer -pthread -MMD -MP \
	-fsanitize=address,undefined -fno-sanitize-recover=all
FUZZ_OBJECTS = $(patsubst %.c,$(FUZZ_BUILD)/obj/%.o,$(STORE_SOURCES) $(FS_SOURCES))
FUZZ_ARCHIVE := $(FUZZ_BUILD)/libhotlog-all.a

fuzz-programs: $(FUZZ_PROGRAMS)

$(FUZZ_BUILD)/obj/%.o: %.c $(FUZZ_BUILD)/flags
	@mkdir -p $(@D)
	$(FUZZ_CC) $(FUZZ_FLAGS) -fsanitize=fuzzer-no-link $(TEST_HEADERS) -c -o $@ $<
$(FUZZ_ARCHIVE): $(FUZZ_OBJECTS) $(FUZZ_BUILD)/sources
	rm -f $@ && $(AR) rcs $@ $(FUZZ_OBJECTS)
$(FUZZ_BUILD)/fuzz_%: $(FUZZ_BUILD)/obj/tests/fuzz/fuzz_%.o $(FUZZ_ARCHIVE)
	$(FUZZ_CC) $(FUZZ_FLAGS) -fsanitize=fuzzer -o $@ $< $(FUZZ_ARCHIVE) $(LIBS)
$(FUZZ_BUILD)/flags: FORCE
	$(call remember,$(FUZZ_CC) $(FUZZ_FLAGS))
$(FUZZ_BUILD)/sources: FORCE
	$(call remember,$(STORE_SOURCES) $(FS_SOURCES))

# ---- what is measured beside us, and what works on it ----

BENCH_FLAGS = $(filter-out -MMD -MP,$(OUR_CFLAGS)) $(OPTIMIZE)
bench_headers = $(call system_headers,$(1)) -Itests/bench
bench_libs = $(shell $(PKG_CONFIG) --libs $(1))

bench-programs: $(BENCH_PROGRAMS)
	@# libfuse's own example, where the package brings it.
	@example=/usr/share/doc/libfuse3-dev/examples/passthrough_ll.c; [ ! -f $$example ] || \
		$(CC) -O2 -w -pthread $(call system_headers,fuse3) -o $(BUILD)/bench/passthrough_ll $$example $(call bench_libs,fuse3)

$(BUILD)/bench/nullfs: tests/bench/nullfs.c
	@mkdir -p $(@D)
	$(CC) $(BENCH_FLAGS) $(call bench_headers,fuse3) -o $@ $< $(call bench_libs,fuse3)
$(BUILD)/bench/load_file: tests/bench/load_file.c tests/bench/load.c tests/bench/load.h
	@mkdir -p $(@D)
	$(CC) $(BENCH_FLAGS) -Itests/bench -o $@ $(filter %.c,$^)
$(BUILD)/bench/load_sqlite: tests/bench/load_sqlite.c tests/bench/load.c tests/bench/load.h
	@mkdir -p $(@D)
	$(CC) $(BENCH_FLAGS) $(call bench_headers,sqlite3) -o $@ $(filter %.c,$^) $(call bench_libs,sqlite3)
$(BUILD)/bench/load_redis: tests/bench/load_redis.c tests/bench/load.c tests/bench/load.h
	@mkdir -p $(@D)
	$(CC) $(BENCH_FLAGS) $(call bench_headers,hiredis) -o $@ $(filter %.c,$^) $(call bench_libs,hiredis)

$(BUILD)/obj/tests/%.o: tests/%.c $(BUILD)/flags
	@mkdir -p $(@D)
	$(CC) $(OUR_CFLAGS) $(TEST_HEADERS) $(CPPFLAGS) $(CFLAGS) -c -o $@ $<

$(BUILD)/obj/%.o: %.c $(BUILD)/flags
	@mkdir -p $(@D)
	$(CC) $(OUR_CFLAGS) $(FUSE_HEADERS) $(CPPFLAGS) $(CFLAGS) -c -o $@ $<

# Files that change only when what they say changes: other flags, or another set of sources, build anew.
define remember
	@mkdir -p $(@D)
	@printf '%s\n' '$(1)' | cmp -s - $@ || printf '%s\n' '$(1)' >$@
endef
$(BUILD)/flags: FORCE
	$(call remember,$(CC) $(OUR_CFLAGS) $(CPPFLAGS) $(CFLAGS) $(LDFLAGS))
$(BUILD)/sources: FORCE
	$(call remember,$(STORE_SOURCES) $(FS_SOURCES) $(FSCK_SOURCES))
FORCE:

.SECONDARY: $(FUZZ_OBJECTS) $(patsubst $(FUZZ_BUILD)/%,$(FUZZ_BUILD)/obj/tests/fuzz/%.o,$(FUZZ_PROGRAMS)) $(TEST_OBJECTS) $(HELPER_OBJECTS) $(CRASH_TEST_OBJECTS) $(CRASH_HELPER_OBJECTS)
-include $(STORE_OBJECTS:.o=.d) $(FS_OBJECTS:.o=.d) $(MAIN_OBJECT:.o=.d) $(FSCK_OBJECTS:.o=.d) $(TEST_OBJECTS:.o=.d) $(HELPER_OBJECTS:.o=.d) $(FUZZ_OBJECTS:.o=.d) \
	$(CRASH_TEST_OBJECTS:.o=.d) $(CRASH_HELPER_OBJECTS:.o=.d)
