# The front door. Everything below is CMake and Ninja (CMakeLists.txt); `make help` lists the targets.
#
#   BUILD=folder      where to build (build)          PREFIX=folder   where to install (/usr/local); DESTDIR is honoured
#   PEERS="options"   of bench/peers.py
#   FUZZ_SECONDS=n    per target of `make fuzz` (60)  CC=compiler     taken when a build folder is made

BUILD  ?= build
PREFIX ?= /usr/local
FUZZ_SECONDS ?= 60
CONFIGURE = cmake -G Ninja -S . -DCMAKE_BUILD_TYPE=RelWithDebInfo

.PHONY: all deps check demo bench bench-peers install asan tsan ubsan arm fuzz clean help
.DEFAULT_GOAL := all

all: $(BUILD)/build.ninja    ## build the program, the libraries, the examples (default)
	@ninja -C $(BUILD)

$(BUILD)/build.ninja:
	@mkdir -p $(BUILD)
	@$(CONFIGURE) -B $(BUILD) >$(BUILD)/configure.log 2>&1 || { cat $(BUILD)/configure.log; echo "Something missing? Try: make deps"; exit 1; }

deps:    ## install the Debian packages that are missing
	@tools/install_deps.sh

check: deps    ## install what is missing, build, run all tests and checks
	@tests/run.sh $(BUILD)

demo: deps all    ## compress SmolLM2-135M, learn a prompt, show the table (under 20 minutes on 2 cores)
	@tools/demo.sh

bench: all    ## measure this machine, the models and every inner loop on it
	@bench/run.sh

bench-peers: all    ## the same models here and on llama.cpp, pairs of runs: docs/results/speed.csv, speed.md (an hour or two)
	@bench/peers.py $(PEERS)

install: all    ## install under PREFIX: program, libraries, header, manual pages, completions, package files
	@cmake --install $(BUILD) --prefix $(PREFIX)

asan:    ## all unit tests and fuzz replays under address + undefined-behaviour sanitizer, in BUILD/asan
	@tests/sanitize.sh address,undefined $(BUILD)/asan

tsan:    ## all unit tests under the thread sanitizer, in BUILD/tsan
	@tests/sanitize.sh thread $(BUILD)/tsan

ubsan:    ## all unit tests and fuzz replays under the undefined-behaviour sanitizer, in BUILD/ubsan
	@tests/sanitize.sh undefined $(BUILD)/ubsan

arm:    ## unit tests of kernels and operators for 64-bit Arm, cross-built, under QEMU, in BUILD/arm
	@tests/arm/run.sh $(BUILD)

fuzz:    ## each fuzz target with libFuzzer (clang) for FUZZ_SECONDS, in BUILD/fuzz
	@tests/fuzz.sh $(BUILD)/fuzz $(FUZZ_SECONDS)

clean:    ## remove the build folder
	@rm -rf $(BUILD)

help:    ## list the targets
	@sed -n 's/^\([a-z-]*\):[^#]*## \(.*\)/  make \1	\2/p' Makefile | expand -t 18
