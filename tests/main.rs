//! All tests of the crate's outside, in one program: each further one would compile and link the crate's generics anew.
//! What needs a real cluster or a real machine is `#[ignore]`d and named `*_live` and `record`.

#![expect(clippy::unwrap_used, reason = "a test stops at the first surprise")]
#![expect(clippy::print_stderr, reason = "what a cluster says is what a live test is for")]

mod architecture;
mod check_live;
mod cli;
mod config_doc;
mod plan_disks;
mod sops;
mod stack_live;
mod stack_plan;
mod stack_render;
mod talos;
