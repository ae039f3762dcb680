#!/bin/sh
# Wraps rustc for the crates of this workspace. Crates that parse input from others report which
# branches run and check their arithmetic. All flags are stable.
for argument in "$@"; do
    case $argument in
    tightrope_data | tightrope_emulator | tightrope_fuzz | tightrope_model | tightrope_packing | tightrope_run | tightrope_train | fuzz)
        exec "$@" -Cpasses=sancov-module -Cllvm-args=-sanitizer-coverage-level=4 \
            -Cllvm-args=-sanitizer-coverage-inline-8bit-counters \
            -Cllvm-args=-sanitizer-coverage-pc-table \
            -Cllvm-args=-sanitizer-coverage-trace-compares \
            -Cdebug-assertions=on -Coverflow-checks=on
        ;;
    esac
done
exec "$@"
