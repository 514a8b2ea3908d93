# Two commands: `make demo` and `make test`. Both set up what they need in .venv and build/.
# The rest is for developers: `make help` lists it.

PYTHON ?= python3
comma := ,
VENV := .venv
BIN := $(VENV)/bin
JOBS ?= $(shell nproc)
# Not one for each processor: the tests fill the page cache, and look at what is in it.
TEST_PROCESSES ?= 2
ENVIRONMENTS ?= build/engines
ENGINES ?= sglang sglang-previous vllm vllm-previous
PACKAGING := build/packaging/venv/bin
SOURCES := $(shell find csrc python benchmarks/bench -type f -not -name '*.pyc' -not -name '*_test.cpp') \
  CMakeLists.txt pyproject.toml
IN_PARALLEL = --numprocesses $(TEST_PROCESSES) --dist worksteal
# Of the wheels: a compiler that is newer than ours may warn, and must not keep anyone from a demo.
WERROR ?= OFF
# Of a function, until clang-tidy's analyzer gives it up.
TIDY_STATES ?= 100000
FUZZ_SECONDS ?= 60
SMOKE_SECONDS ?= 10
FUZZ_RUNS ?= 0
CXX_FILES = $(shell find csrc tests/cpp tests/fuzz benchmarks -name '*.cpp' -o -name '*.h' | grep -v third_party)
CMAKE_FLAGS = -G Ninja -DCMAKE_MAKE_PROGRAM=$(abspath $(BIN)/ninja) -DSHARDAHEAD_WERROR=ON

# Of `make soak`. The seeds differ from run to run; each failure names its own.
ROUNDS ?= 100
SEEDS ?= 100000
FIRST_SEED ?= $(shell date +%s)

.PHONY: help demo compare first-token nfs filesystems cluster test test-cpp test-python test-python-debug soak wheel-test sdist wheels interpreters engines test-engines lint lint-core lint-package format docs sanitize fuzz fuzz-smoke compile-libcxx compile-musl fuse clean
.DEFAULT_GOAL := help

help: ## list the commands
	@grep -hE '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:[^#]*## /\t/' | expand -t 14

# No more than it needs: no tests, no tools of developers, no shardahead-bench. What `make test` has built
# serves as well.
demo: | fuse ## a checkpoint on a slow filesystem, loaded by 4 ranks
	@echo "setting up: a virtual environment, the wheel, the slow filesystem ..."
	@$(MAKE) --no-print-directory -j3 build/slowfs/.built \
	  $(if $(wildcard $(VENV)/.installed),$(VENV)/.installed,$(VENV)/.demo)
	$(BIN)/python benchmarks/demo/demo.py $(DEMO)

compare: $(VENV)/.installed build/release/.built ## ways to load a checkpoint cold, side by side: COMPARE="--case ranks"
	$(BIN)/python benchmarks/compare/compare.py --environments $(ENVIRONMENTS) $(COMPARE)

# Of the engines as `make engines` makes them, and what their servers need on processors.
first-token: build/wheel/.built $(VENV)/.installed build/release/.built ## real servers to their first token: FIRST_TOKEN="--rounds 3"
	@sh tests/integrations/make-engines.sh $(ENVIRONMENTS) build/wheel/*.whl sglang vllm
	@sh benchmarks/first_token/make-serving.sh $(ENVIRONMENTS) sglang vllm
	$(BIN)/python benchmarks/first_token/first_token.py --environments $(ENVIRONMENTS) $(FIRST_TOKEN)

nfs: $(VENV)/.installed ## loads from a real NFS server, cell by cell; NFS="--size-mib 1024 --rounds 2" for figures
	$(BIN)/python benchmarks/nfs/matrix.py $(or $(NFS),--size-mib 64 --rounds 1)

filesystems: $(VENV)/.installed build/slowfs/.built ## loads from real filesystems, cold; FILESYSTEMS="sshfs rclone-s3", "--list"
	$(BIN)/python benchmarks/filesystems/filesystems.py $(FILESYSTEMS)

cluster: $(VENV)/.installed build/slowfs/.built ## nodes with links of their own load from one storage; CLUSTER="--nodes 4 --fault kill"
	$(BIN)/python benchmarks/cluster/cluster.py $(or $(CLUSTER),--nodes 2 --size-mib 64 --rounds 1)

test: test-cpp test-python ## set up, build, run the C++ and the Python tests

test-cpp: build/release/.built
	$(BIN)/ctest --test-dir build/release --output-on-failure -j $(JOBS)

test-python: $(VENV)/.installed build/release/.built
	$(BIN)/python -m pytest $(IN_PARALLEL) $(PYTEST)

# Python's own objects are fenced, freed memory is overwritten, and the development mode tells what is
# silent else: here and in every process that a test starts.
test-python-debug: $(VENV)/.installed build/release/.built ## the Python tests under debug allocators
	PYTHONMALLOC=debug PYTHONDEVMODE=1 MALLOC_PERTURB_=165 $(BIN)/python -m pytest $(IN_PARALLEL) $(PYTEST)

soak: $(VENV)/.installed build/release/.built ## faults for as long as you like: ROUNDS=100, SEEDS=100000
	build/release/tests/cpp/shardahead_simulate --seeds $(SEEDS) --first-seed $(FIRST_SEED)
	SOAK_ROUNDS=$(ROUNDS) $(BIN)/python -m pytest -m soak --reruns 0 --timeout 86400 -s $(PYTEST)

wheel-test: build/wheel/.built ## build the wheel, use it in a virtual environment of its own
	$(PYTHON) -m venv --clear build/wheel/venv
	build/wheel/venv/bin/python -m pip install --quiet build/wheel/*.whl
	build/wheel/venv/bin/python tests/wheel_check.py

sdist: build/packaging/.ready ## the source distribution, in build/dist, its contents checked
	rm -f build/dist/*.tar.gz
	$(PACKAGING)/python -m build --quiet --sdist --outdir build/dist .
	$(PACKAGING)/python tests/sdist_check.py build/dist/*.tar.gz

wheels: build/packaging/.ready ## in build/dist a wheel for each Python that is found here, tagged and used; GLIBC=2.28
	rm -f build/dist/*.whl
	$(PACKAGING)/python tests/interpreters.py --repair --pythons $(PYTHONS) --tests $(or $(TESTS),none) \
	  $(if $(GLIBC),--glibc $(GLIBC))

# Each in an environment of its own, whose wheel comes from the source distribution. BUILT=build/cmake-wheel
# spares them the compiling of the core, once there is a wheel.
interpreters: build/packaging/.ready ## Python tests in other Pythons: PYTHONS="3.10 newest /path/to/python3.14t" TESTS=smoke|all
	$(PACKAGING)/python tests/interpreters.py --pythons $(PYTHONS) --tests $(or $(TESTS),smoke) \
	  $(if $(BUILT),--built $(BUILT))

engines: build/wheel/.built ## SGLang and vLLM with the built wheel, in environments of their own (3 GB each)
	@sh tests/integrations/make-engines.sh $(ENVIRONMENTS) build/wheel/*.whl $(ENGINES)

# By file: an engine imports for long, and does so once for each process of pytest that uses it.
# ENGINE_SOURCES: a folder with checkouts of the releases, named as in ENGINES, whose own tests are run
# as well. Those that are in a package come by themselves.
test-engines: engines $(VENV)/.installed build/release/.built ## the integrations, in the released engines
	@sh tests/integrations/make-own-tests.sh $(ENVIRONMENTS) "$(ENGINE_SOURCES)" $(ENGINES)
	SHARDAHEAD_ENGINES=$(abspath $(ENVIRONMENTS)) SHARDAHEAD_ENGINE_SOURCES=$(abspath $(ENGINE_SOURCES)) \
	  $(BIN)/python -m pytest --numprocesses $(TEST_PROCESSES) --dist loadfile tests/integrations $(PYTEST)

# Two halves, for `make -j2`: the tools for Python use one processor each.
lint: lint-core lint-package ## every check that does not run the code

lint-core: $(VENV)/.installed build/lint/compile_commands.json
	$(BIN)/python tests/rooms.py
	$(BIN)/clang-format --dry-run --Werror $(CXX_FILES)
	$(BIN)/python tests/clang_tidy.py $(BIN)/clang-tidy build/lint $(JOBS) $(TIDY_STATES)
	$(BIN)/python tests/seams.py

lint-package: $(VENV)/.installed
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/python -m mypy.stubtest shardahead._core --allowlist tests/stubtest_allowlist.txt
	$(BIN)/basedpyright --level error
	$(BIN)/python tests/type_completeness.py $(BIN)/basedpyright

format: $(VENV)/.ready ## let clang-format and ruff lay out the code
	$(BIN)/clang-format -i $(CXX_FILES)
	$(BIN)/ruff check --fix --quiet .
	$(BIN)/ruff format .

docs: $(VENV)/.docs ## these pages as a site, build/site; a warning or a dead link is an error
	rm -rf build/site
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --strict
	$(BIN)/python docs/site/pictures.py --check
	$(BIN)/python docs/site/check_site.py build/site

sanitize: build/asan/.built build/tsan/.built ## the C++ tests under ASan+UBSan and under TSan
	$(BIN)/ctest --test-dir build/asan --output-on-failure -j $(JOBS)
	$(BIN)/ctest --test-dir build/tsan --output-on-failure -j $(JOBS)

fuzz: $(VENV)/.installed ## look for inputs that break parsers, plan and board: FUZZ_SECONDS=600 each
	$(BIN)/python tests/fuzz/fuzz.py --seconds $(FUZZ_SECONDS) --runs $(FUZZ_RUNS) --jobs $(JOBS) -- $(CMAKE_FLAGS)

# The targets in C++ alone, which need no wheel: fuzz_headers.py runs among the Python tests.
fuzz-smoke: $(VENV)/.ready ## the same with libFuzzer for SMOKE_SECONDS=10 each; skips, and says so, without it
	$(BIN)/python tests/fuzz/fuzz.py --smoke --seconds $(SMOKE_SECONDS) --jobs $(JOBS) -- $(CMAKE_FLAGS)

compile-libcxx: ## the core for arm64 with libc++ and an old glibc, by the Clang of Zig; skips, and says so, without it
	$(PYTHON) tests/compile_elsewhere.py aarch64-linux-gnu.2.28 --jobs $(JOBS)

compile-musl: ## the core with musl, in the same way
	$(PYTHON) tests/compile_elsewhere.py x86_64-linux-musl --precompiled --jobs $(JOBS)

fuse: ## install libfuse3 from the distribution, where that is allowed
	@sh benchmarks/slowfs/install-fuse.sh

clean: ## remove everything that was built
	rm -rf build $(VENV)

build/packaging/.ready: tests/packaging-requirements.txt
	$(PYTHON) -m venv --clear build/packaging/venv
	$(PACKAGING)/python -m pip install --quiet -r $<
	touch $@

$(VENV)/.made:
	$(PYTHON) -m venv $(VENV)
	touch $@

$(VENV)/.runs: benchmarks/demo/requirements.txt | $(VENV)/.made
	$(BIN)/python -m pip install --quiet -r $<
	touch $@

$(VENV)/.docs: docs/requirements.txt | $(VENV)/.made
	$(BIN)/python -m pip install --quiet -r $<
	touch $@

$(VENV)/.ready: tests/requirements.txt benchmarks/demo/requirements.txt docs/requirements.txt | $(VENV)/.made
	$(BIN)/python -m pip install --quiet -r $<
	touch $(VENV)/.runs $(VENV)/.docs $@

$(VENV)/.installed: build/wheel/.built $(VENV)/.ready
	$(BIN)/python -m pip install --quiet --no-deps --force-reinstall build/wheel/*.whl
	touch $@

# Built as a user's pip would, apart from the environment: what it needs must be in pyproject.toml. Objects
# are kept, for the wheel of the demo and that of the tests differ in shardahead-bench alone.
PIP_WHEEL = $(BIN)/python -m pip wheel --quiet --no-deps --config-settings=build-dir=build/cmake-wheel \
  --config-settings=cmake.define.SHARDAHEAD_WERROR=$(WERROR)
build/wheel/.built: $(SOURCES) | $(VENV)/.made
	rm -rf build/wheel
	$(PIP_WHEEL) --wheel-dir build/wheel .
	touch $@

build/demo-wheel/.built: $(SOURCES) | $(VENV)/.made
	rm -rf build/demo-wheel
	$(PIP_WHEEL) --wheel-dir build/demo-wheel --config-settings=cmake.define.SHARDAHEAD_BENCH=OFF .
	touch $@

$(VENV)/.demo: build/demo-wheel/.built $(VENV)/.runs
	$(BIN)/python -m pip install --quiet --no-deps --force-reinstall build/demo-wheel/*.whl
	touch $@

# By CMake of its own project, which builds no tests.
build/slowfs/.built: $(VENV)/.runs $(wildcard benchmarks/slowfs/*) | fuse
	$(BIN)/cmake -S benchmarks/slowfs -B build/slowfs -G Ninja -DCMAKE_MAKE_PROGRAM=$(abspath $(BIN)/ninja) \
	  -DBUILD_TESTING=OFF --log-level=NOTICE
	$(BIN)/cmake --build build/slowfs --parallel $(JOBS)
	touch $@

# $(1): folder below build/, $(2): CMake options, $(3): what else it needs
define cmake_build
build/$(1)/.built: $$(VENV)/.ready $(3) $$(SOURCES) $$(CXX_FILES) $$(wildcard tests/*/CMakeLists.txt benchmarks/*/CMakeLists.txt) | fuse
	mkdir -p build/$(1)
	$$(BIN)/cmake -S . -B build/$(1) $$(CMAKE_FLAGS) $(2) --log-level=NOTICE
	$$(BIN)/cmake --build build/$(1) --parallel $$(JOBS)
	touch $$@
endef

WITH_PYTHON = -DSHARDAHEAD_PYTHON=ON -DPython_EXECUTABLE=$(abspath $(BIN)/python) \
  -Dpybind11_DIR=$$($(BIN)/python -m pybind11 --cmakedir)
# What is tested is what is in the wheel, and is not compiled a second time.
$(eval $(call cmake_build,release,-DSHARDAHEAD_TESTS=ON -DSHARDAHEAD_BENCH=ON -DSHARDAHEAD_BENCHMARKS=ON -DSHARDAHEAD_BUILT=$(abspath build/cmake-wheel),build/wheel/.built))
$(eval $(call cmake_build,asan,-DSHARDAHEAD_TESTS=ON -DSHARDAHEAD_BENCH=ON -DSHARDAHEAD_FUZZ=ON -DCMAKE_BUILD_TYPE=None -DSHARDAHEAD_SANITIZE=address$$(comma)undefined))
$(eval $(call cmake_build,tsan,-DSHARDAHEAD_TESTS=ON -DCMAKE_BUILD_TYPE=None -DSHARDAHEAD_SANITIZE=thread))

# How each file is compiled is all that clang-tidy asks for: nothing is built.
build/lint/compile_commands.json: $(VENV)/.ready $(wildcard CMakeLists.txt tests/*/CMakeLists.txt benchmarks/*/CMakeLists.txt) Makefile | fuse
	mkdir -p build/lint
	$(BIN)/cmake -S . -B build/lint $(CMAKE_FLAGS) -DSHARDAHEAD_TESTS=ON -DSHARDAHEAD_FUZZ=ON -DSHARDAHEAD_BENCH=ON \
	  -DSHARDAHEAD_BENCHMARKS=ON -DCMAKE_DISABLE_PRECOMPILE_HEADERS=ON $(WITH_PYTHON) --log-level=NOTICE
	touch $@
