"""Small, tested library behind the notebooks: predicting DRGs from clinical text, and what that is worth.

One room for each idea, in the order in which data meet them. None knows a room further down.

Machinery
    study           paths, studies, whole files, strict parameters, the notebook runner, the graph: no science
    provenance      what each file was made from
    flow            counted steps; tables checked when they are written and read
    sheets          sheets that people fill in
    disclosure      small counts of credentialed data, masked

Facts and tables
    drgs            DRGs: titles, weights, MDC, base DRG, CC/MCC label, target spaces
    titles          the known titles of all years, their spelling, and the published rules for them
    harmonize       billed titles of any year, and the v34 DRG that each is
    csv_stream      CSV tables of any length, in batches
    mimic           MIMIC's tables: where they lie, their columns, whose data they are
    notes           the hospital course in a discharge summary

Cohorts
    cohort          labelled discharge stays and their splits
    icu_cohort      the early-DRG study's ICU stays, their notes and folds
    measurements    hourly measurements
    people          whose stay it was, and when: sex, age, race, insurance, language, year
    synthetic       a hospital and its ICU in MIMIC's shapes

Models
    labels          one label, or a base DRG and a CC/MCC label
    inputs          what is known of an ICU stay at an hour
    predictions     the predictions file: write, read, select
    checkpoints     resuming, progress, what training costs
    training        the trainer's settings and loops
    models          a file for each model behind one protocol
    runs            training once, by key, for both studies
    plan            which runs make will train, and why; keeping one
    release         predictions that git holds, so that nobody must train again

Statistics
    metrics         the six metrics, for many resamples at once
    bootstrap       resampled test stays, and paired differences
    spline          the smoothing spline of Figure 2
    calibration     confidence, coverage, temperature
    casemix         relative weights, the case-mix index, dollars
    errors          kinds of error
    attribution     which words moved a prediction
    undiagnosed     what the early study's models say without the admitting diagnosis

What is said
    plots           the figures
    published       what both papers print
    names           what a run is called in print
    results         long tables: predictions in, rows out
    tables          tables as printed and written; numbers.json
    comparisons     differences, and the sentences that say them
    findings        what is said of case mix, weights and trust
    claims          the papers' claims, and a verdict for each
    evidence        what they claim, measured on this run's predictions
    levels          right DRG, right base DRG, right MDC
    drift           what changes by year
    positions       where the deciding word stands, and whether models miss it there
    served          who is served worse
    coder           sets of DRGs with a guaranteed coverage, and what answering alone saves and misbills
    cards           what each model and the data are, for who meets them without the report
    explore         the page on which readers search, brush and slide
    trainings       all trainings of a profile, side by side
    notebook_pages  the page of an executed notebook
    headline        what the report's first screen says
    exhibits        tables and figures as the pages number them
    report          the pages
    guard           the search for leaks
    verify          is my rerun the same?
    doctor          what is missing on this machine; runs alone, before anything is installed
"""

__version__ = "0.1.0"

import sys

# jsonschema, which nbformat imports, would compile a grammar of URLs here, for two seconds in each process; no notebook needs it.
sys.modules.setdefault("rfc3987_syntax", None)
