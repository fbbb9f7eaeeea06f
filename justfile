# What a developer runs. `.ci/run` does all of it in one go.

# Format, lint, test: everything that needs no cluster.
check:
    cargo fmt --all --check
    cargo clippy --workspace --all-targets --locked -- -D warnings
    cargo test --locked

# The real Talos and the real Kubernetes; builds them the first time.
e2e *ARGS:
    e2e/run {{ARGS}}

# Dependencies: what is banned, licences, sources.
deny:
    cargo deny check bans licenses sources

# Size of the stripped binary, and its start-up beside kubectl's.
size:
    e2e/size

# What two commits are compared by: lines, build, size, start-up, planning, tests; `first-run` is from clone to proof.
figures *ARGS:
    e2e/figures {{ARGS}}
