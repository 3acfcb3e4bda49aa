# Every target sets up .venv first when that is needed (infra/setup.sh). GNU make 3.81 or newer, any POSIX sh.
.DEFAULT_GOAL := help
SHELL := /bin/sh
MAKEFLAGS += --no-print-directory

# Settings come from make's command line alone: WSL, for one, exports NAME=<the machine> to everything. They reach the recipes
# unexpanded through the environment, where the shell treats them as data, whatever they hold.
SETTINGS := NAME SUBMISSION SEED KEEP BACKEND REPEAT BUSY JOBS SAMPLE LOCAL FIX PYTHON
take = $(if $(filter command,$(firstword $(origin $(1)))),$(value $(1)))
$(foreach setting,$(SETTINGS),$(eval override $(setting) := $$(call take,$(setting))))
export $(SETTINGS)
# A setting that is misspelled would else be no setting, and something else would be judged.
unknown := $(strip $(foreach name,$(filter-out $(SETTINGS) SHELL MAKEFLAGS,$(.VARIABLES)),$(if $(filter command,$(firstword $(origin $(name)))),$(name))))
$(if $(unknown),$(error there is no setting $(unknown); there are $(SETTINGS): see `make help`))

labs := .venv/bin/labs
is_on = $(filter-out 0 no off false,$($(1)))
run_flags = $${SUBMISSION:+--submission="$$SUBMISSION"} $${SEED:+--seed="$$SEED"} $${BACKEND:+--backend="$$BACKEND"}

.PHONY: help setup setup-dev setup-browser setup-docs docs tour lab hint watch debug reset solution debrief next ui load verify list new images doctor compare test test-docker test-browser lint clean named named-new

help: ## this page
	@printf 'backend-labs: production incidents that you can run\n\n'
	@sed -n 's/^\([a-z-]*\):.*## \(.*\)/  make \1|\2/p' Makefile | awk -F'|' '{ printf "%-18s %s\n", $$1, $$2 }'
	@printf '\nSettings, such as `make lab NAME=cache-stampede SUBMISSION=solution`:\n'
	@sed -n 's/^#: //p' Makefile
	@printf '\nmake turns every failure into exit code 2; `.venv/bin/labs` tells FAIL 1, INCONCLUSIVE 2 and ERROR 3 apart.\n'
#:   NAME        a lab, as `make list` shows it (new: topic/name; images: one image)
#:   SUBMISSION  starter, solution, wrong/<bug>, mine or a folder (default: mine, which is my/<lab>/; verify: only this one)
#:   SEED        repeat the random choices of an earlier run
#:   KEEP=1      lab: leave everything up after the checks, and print the addresses
#:   BACKEND     where it runs: docker, embedded, or auto: docker when it is prepared (default)
#:   REPEAT      verify: run each submission that often
#:   BUSY=1      verify: keep every core busy meanwhile
#:   JOBS        verify: labs side by side
#:   SAMPLE=n    verify: of each lab only the starter, the solution and n wrong answers, others each day
#:   LOCAL=1     images: from distribution packages, without an image registry
#:   FIX=1       doctor: remove what is left over
#:   PYTHON      the Python to make .venv with (default: the newest of 3.11 to 3.14)

setup:
	@sh infra/setup.sh kit

setup-docs:
	@sh infra/setup.sh docs

setup-browser:
	@sh infra/setup.sh browser

setup-dev:
	@sh infra/setup.sh dev

tour: setup ## start here: see the kit in a minute
	@$(labs) tour $${BACKEND:+--backend="$$BACKEND"} "$${NAME:-cache-stampede}"

lab: named setup ## run your version of a lab and get its verdict
	@$(labs) run --demonstrate $(run_flags) $(if $(call is_on,KEEP),--keep) "$$NAME"

hint: named setup ## the next of a lab's three hints
	@$(labs) hint "$$NAME"

watch: named setup ## judge your version again at each save
	@$(labs) watch $${BACKEND:+--backend="$$BACKEND"} "$$NAME"

debug: named setup-dev ## your version under a debugger, which attaches to 127.0.0.1:5678
	@$(labs) run --debug-app --backend=embedded $${SUBMISSION:+--submission="$$SUBMISSION"} $${SEED:+--seed="$$SEED"} "$$NAME"

reset: named setup ## begin a lab anew; your version is kept
	@$(labs) reset "$$NAME"

solution: named setup ## after a pass: what the solution does otherwise than your version
	@$(labs) solution "$$NAME"

debrief: named setup ## after a pass: why it works, and what it costs
	@$(labs) debrief "$$NAME"

next: setup ## what to do now
	@$(labs) next

ui: setup ## all of it as pages for a browser, on this machine alone
	@$(labs) ui $${BACKEND:+--backend="$$BACKEND"}

load: named setup ## keep a lab up and open Locust's own page on it
	@$(labs) load $(run_flags) "$$NAME"

verify: setup ## prove labs: starters fail, solutions pass, wrong answers are caught
	@$(labs) verify $(if $(call is_on,BUSY),--busy) $${SAMPLE:+--sample="$$SAMPLE"} $${REPEAT:+--repeat="$$REPEAT"} $${JOBS:+--jobs="$$JOBS"} \
	    $${SEED:+--seed="$$SEED"} $${BACKEND:+--backend="$$BACKEND"} $${SUBMISSION:+--only="$$SUBMISSION"} $${NAME:+"$$NAME"}

list: setup ## the labs, and where you stand
	@$(labs) list

new: named-new setup ## write the template of a new lab, NAME=topic/name
	@$(labs) new "$$NAME"

images: setup ## prepare the Docker backend: pull or build the images that are missing
	@$(labs) images $(if $(call is_on,LOCAL),--local) $${NAME:+"$$NAME"}

compare: setup ## a page with the last two runs side by side
	@$(labs) compare

doctor: setup ## look at this machine and the set-up
	@$(labs) doctor $(if $(call is_on,FIX),--fix)

test: setup-dev ## the kit's own tests
	@.venv/bin/pytest -q

test-docker: setup-dev ## the tests of the Docker backend; needs an engine and `make images`
	@.venv/bin/pytest -q tests/docker

test-browser: setup-browser ## the pages in a real browser; needs Chromium on PATH
	@.venv/bin/pytest -q tests/browser

docs: setup-docs ## the docs as a site, in .labs/site/
	@.venv/bin/python infra/site.py

lint: setup-dev ## ruff and mypy
	@.venv/bin/ruff check --quiet --output-format concise .
	@.venv/bin/ruff format --quiet --check .
	@.venv/bin/mypy

clean: ## remove .venv, runs and the tools' caches; my/, your progress and the fetched servers stay
	@rm -rf .venv .labs/runs .labs/verify .labs/setup.log .mypy_cache .ruff_cache .pytest_cache .hypothesis
	@find runner labs tests infra -name __pycache__ -type d -prune -exec rm -rf {} +

# Before any set-up: a missing name is said at once.
named:
	@test -n "$$NAME" || { printf 'say which lab: make $(firstword $(filter lab hint watch debug reset solution debrief load,$(MAKECMDGOALS))) NAME=<one of these>\n\n'; \
	    for lab in labs/*/*/lab.toml; do lab=$${lab%/lab.toml}; printf '  %s\n' "$${lab##*/}"; done; exit 2; } >&2

named-new:
	@test -n "$$NAME" || { printf 'say what to call it: make new NAME=topic/name\n' >&2; exit 2; }
