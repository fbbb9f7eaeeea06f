//! The machine API of Talos (siderolabs/talos): its messages, compiled from `proto/`, and its limits.

/// The port of the machine API (siderolabs/talos, pkg/machinery/constants).
pub const PORT: u16 = 50000;

/// The longest message of either side, 32 MiB (siderolabs/talos, `GRPCMaxMessageSize`).
pub const MAX_MESSAGE: usize = 32 << 20;

/// Messages, clients and servers.
#[allow(clippy::all, clippy::use_self, clippy::unwrap_used, missing_debug_implementations)]
pub mod proto {
    pub mod cluster {
        tonic::include_proto!("cluster");
    }
    pub mod common {
        tonic::include_proto!("common");
    }
    pub mod machine {
        tonic::include_proto!("machine");
    }
    pub mod storage {
        tonic::include_proto!("storage");
    }
    pub mod time {
        tonic::include_proto!("time");
    }
    pub mod config {
        tonic::include_proto!("talos.resource.definitions.config");
    }
    pub mod cosi {
        pub mod resource {
            tonic::include_proto!("cosi.resource");
            pub mod meta {
                tonic::include_proto!("cosi.resource.meta");
            }
        }
    }
}
