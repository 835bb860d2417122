"""The engine room of the command line: what a run does besides its steps, and what it leaves behind.

`recipes` finds packaged recipes, `run_folder` is where a run lives, `callbacks` watch the training,
`run_record` writes the files of the run folder, `pictures` draws them, `environment` describes the machine,
`command` is LightningCLI with the options of a run, `session` its manners. This module imports nothing, so
that describing a machine does not load Lightning.
"""
