"""Runner "federated": clients are taken out of federated models, by every method, beside retraining without them.

* partition, backdoor: who has which examples, and what a leaver with a backdoor does to its own.
* problem: a config's data and model as federations, one for each seed.
* training: a federation trained, and what its server has kept.
* methods, archives: the ways of taking the leavers out; each gives a model and what it cost.
* scoring: what a model has of the leavers, and how far it is from retraining.
* calibration: settings of methods, chosen on clients of other federations.
* trial, rows, report, figures, run: one seed, all seeds as rows, the page, and the run.
"""
