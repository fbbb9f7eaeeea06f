//! The machine API of Talos (siderolabs/talos): its messages, which `generated/` holds as they are compiled from `proto/`, and its
//! limits.

/// The port of the machine API (siderolabs/talos, pkg/machinery/constants).
pub const PORT: u16 = 50000;

/// The longest message of either side, 32 MiB (siderolabs/talos, `GRPCMaxMessageSize`).
pub const MAX_MESSAGE: usize = 32 << 20;

/// Messages, clients and servers.
#[allow(clippy::all, clippy::use_self, clippy::unwrap_used, missing_debug_implementations)]
pub mod proto {
    pub mod cluster {
        include!("../generated/cluster.rs");
    }
    pub mod common {
        include!("../generated/common.rs");
    }
    pub mod machine {
        include!("../generated/machine.rs");
    }
    pub mod storage {
        include!("../generated/storage.rs");
    }
    pub mod time {
        include!("../generated/time.rs");
    }
    pub mod config {
        include!("../generated/talos.resource.definitions.config.rs");
    }
    pub mod cosi {
        pub mod resource {
            include!("../generated/cosi.resource.rs");
            pub mod meta {
                include!("../generated/cosi.resource.meta.rs");
            }
        }
    }
}
