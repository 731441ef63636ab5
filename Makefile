# Everything a newcomer needs: each target makes the environment first, if it is not there yet.
PYTHON ?= python3
VENV   ?= .venv
BIN     = $(VENV)/bin
NICE    = OMP_NUM_THREADS=1

.PHONY: help reproduce benchmark quick lint test test-notebooks test-browser test-faults test-fullsize test-gpu \
        quick-lowest mutants bench worlds webclip lab labs-full course course-stats slides clips site pretrain readme export \
        clean

help:
	@echo "make reproduce   the whole method and its benchmarks on the drawn VOC, with few pictures, in five minutes: tables, figures and a page in runs/minivoc (no download, no GPU)"
	@echo "make benchmark   the same in full: 23 to 24 minutes on two idle cores"
	@echo "make quick       the formulas, the doors and the command line's errors: under a minute"
	@echo "make test        tests, and every notebook from top to bottom"
	@echo "make lint        ruff over modules, notebooks, tests, benchmarks and docs"
	@echo "make bench       how much faster than the published way of computing, each result checked equal first (10 minutes)"
	@echo "make test-fullsize  the paper's presets with full-size networks (random weights) on drawn photos: under 20 minutes"
	@echo "make test-faults    a run killed at twenty moments, faults put in, any bytes to the parsers: under 40 minutes"
	@echo "make test-gpu    the day a card is there: parity, tolerances, seconds, memory and a plan in one table (DRY=1: reduced, on the CPU)"
	@echo "make mutants     wrong formulas on purpose: how many of them the quick tests notice"
	@echo "make quick-lowest  'quick' with the lowest versions of settings.ini in an environment of its own"
	@echo "make webclip     train webclip again: a text tower that reads captions as the web writes them (minutes)"
	@echo "make worlds      when do learned prompts matter? A map over nine worlds, rare words x polluted words (an hour)"
	@echo "make lab         JupyterLab at the first page"
	@echo "make course      the students' edition of the labs in build/course (LAB=q01: only that lab)"
	@echo "make labs-full   the labs with more pictures and three seeds: nbs/labs/results (LAB=q01: only that lab)"
	@echo "make course-stats  how long the path is: lines, cells, figures"
	@echo "make slides      a lecture of 90 minutes and four weeks as slides in docs/_build/slides, no network needed"
	@echo "make site        the notebooks as a web site in docs/_build/html"
	@echo "make test-browser  JupyterLab, the site, the slides and the report in a real Chromium; pictures in runs/browser"
	@echo "make export      nbs/*.ipynb -> fmwsss/*.py, notebooks cleaned"
	@echo "make readme      results of the last run into nbs/index.ipynb, and that into README.md"
	@echo "make pretrain    train the miniature CLIP and SAM again (hours; the trained ones are in fmwsss/weights)"

$(VENV)/installed: settings.ini setup.py
	@$(PYTHON) -c 'import sys; v = sys.version_info; sys.exit(0 if v >= (3, 11) else f"Python 3.11 or newer is needed, this is {v[0]}.{v[1]}: make PYTHON=python3.11 ...")'
	$(PYTHON) -m venv $(VENV)
	$(BIN)/pip install --quiet --editable ".[dev]"
	@touch $@

# One thread a process: two threads of torch beside another process are many times slower than one.
reproduce: $(VENV)/installed
	$(NICE) $(BIN)/fmwsss reproduce minivoc --quick --out runs/minivoc

benchmark: $(VENV)/installed
	$(NICE) $(BIN)/fmwsss reproduce minivoc

# The formulas, the doors, the command line's errors.
QUICK = parity formulas names cam affinity superpixels sams losses evaluation prompts models sources refiner_door crf pamr \
        faults_command_line
quick: $(VENV)/installed
	$(NICE) $(BIN)/python -m pytest $(QUICK:%=tests/test_%.py) -n 2 -q -m "not slow and not unhurried"

# Modules are checked in their notebooks.
lint: $(VENV)/installed
	$(BIN)/ruff check .

test: $(VENV)/installed
	$(NICE) $(BIN)/python -m pytest tests -n 2 --dist loadfile -q
	$(MAKE) --no-print-directory test-notebooks

# The lower bounds of settings.ini, each at its lowest, in an environment of its own.
LOWEST ?= .venv-lowest
quick-lowest:
	$(PYTHON) -m venv $(LOWEST)
	$(PYTHON) tests/lowest.py > $(LOWEST)/lowest.txt
	$(LOWEST)/bin/pip install --quiet --requirement $(LOWEST)/lowest.txt $(PIP_OPTIONS)
	$(LOWEST)/bin/pip install --quiet --no-deps --editable .
	$(NICE) $(LOWEST)/bin/python -m pytest $(QUICK:%=tests/test_%.py) -n 2 -q -m "not slow and not unhurried"

mutants: $(VENV)/installed
	$(NICE) $(BIN)/python tests/mutants.py

# On a machine with a card: about ten minutes, no download. DRY=1: everything reduced, on the CPU.
test-gpu: $(VENV)/installed
	$(BIN)/python tests/gpu.py $(if $(DRY),--dry)

webclip: $(VENV)/installed
	mkdir -p runs/pretrain
	$(NICE) $(BIN)/papermill benchmarks/pretrain_webclip.ipynb runs/pretrain/pretrain_webclip.ipynb -k python3


clips: $(VENV)/installed
	$(BIN)/python docs/clips.py

# Finished worlds are kept in runs/worlds, so a stopped run goes on where it was.
worlds: $(VENV)/installed
	mkdir -p runs/worlds
	$(NICE) $(BIN)/papermill benchmarks/worlds.ipynb runs/worlds/worlds.ipynb -k python3 -p out benchmarks/results/worlds

labs-full: $(VENV)/installed
	$(NICE) $(BIN)/python nbs/labs/full.py $(LAB)

course-stats: $(VENV)/installed
	$(BIN)/python nbs/course_stats.py

slides: $(VENV)/installed
	$(BIN)/python nbs/slides/make.py

# The paper's presets at full size, with random weights in the published file formats: needs 16 GB of memory and 3 GB of disk.
test-fullsize: $(VENV)/installed
	$(BIN)/python tests/fullsize.py

test-notebooks: $(VENV)/installed
	$(NICE) $(BIN)/python tests/notebooks.py

lab: $(VENV)/installed
	$(BIN)/jupyter lab $(if $(filter 0,$(shell id -u)),--allow-root) nbs/index.ipynb

pretrain: $(VENV)/installed
	mkdir -p runs/pretrain
	$(BIN)/papermill benchmarks/pretrain_clip.ipynb runs/pretrain/pretrain_clip.ipynb -k python3
	$(BIN)/papermill benchmarks/pretrain_sam.ipynb runs/pretrain/pretrain_sam.ipynb -k python3

export: $(VENV)/installed
	$(BIN)/nbdev_export
	$(BIN)/nbdev_clean

readme: $(VENV)/installed
	$(BIN)/python nbs/readme.py --take
	cd nbs && ../$(BIN)/jupyter nbconvert --to notebook --execute --inplace index.ipynb && ../$(BIN)/nbdev_clean --fname index.ipynb
	$(BIN)/python nbs/readme.py

clean:
	rm -rf runs build dist *.egg-info $(LOWEST)

# The site needs the extra packages of `docs` (Jupyter Book 1), the students' edition needs nbgrader, which is in `dev`.
$(VENV)/docs: $(VENV)/installed
	$(BIN)/pip install --quiet --editable ".[dev,docs]"
	@touch $@

site: $(VENV)/docs
	$(BIN)/python docs/build.py

course: $(VENV)/installed
	$(BIN)/python nbs/labs/course.py $(LAB)

# Debian's Chromium; elsewhere Chromium or Chrome with its chromedriver must be on the PATH.
test-browser: site
	@if ! command -v chromedriver >/dev/null; then \
	  if [ "$$(id -u)" = 0 ] && command -v apt-get >/dev/null; then apt-get update -qq && apt-get install -y -qq chromium chromium-driver; \
	  else echo "Chromium and its driver are needed: sudo apt-get install chromium chromium-driver" >&2; exit 1; fi; fi
	$(NICE) $(BIN)/python -m pytest tests/browser -m browser -q -rs

# Kills a run twenty times, puts faults in, gives any bytes to the parsers; the last line counts them.
test-faults: $(VENV)/installed
	$(NICE) $(BIN)/python -m pytest tests -m "fault or kill" -q

# The library against the published way of computing: equal results first, then CPU seconds of both, as ratios; about 10 minutes.
bench: $(VENV)/installed
	$(NICE) $(BIN)/python -W ignore benchmarks/speed.py
