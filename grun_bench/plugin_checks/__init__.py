"""The contracts of plugins as checks that anybody can run: `grun-bench test NAME`, and the project's own tests.

A check is a function of a plugin's name that raises `ContractBroken` where the contract is broken; the first line of
its docstring says what it checks. All run on a random model of six small layers, in seconds.
"""
