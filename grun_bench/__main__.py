from grun_bench.cli import main

main()
