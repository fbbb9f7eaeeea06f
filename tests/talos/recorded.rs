//! Replies of a real Talos v1.11.5 in QEMU, kept as the bytes it sent in `tests/wire/`: our protos and specs must read
//! them. One file per type holds the replies of a List one after another, each with its length before it.

use std::path::PathBuf;

use nodeprep::talos::proto::cosi::resource as cosi;
use nodeprep::talos::resources::{
    BlockDevice, DiscoveredVolume, DiskSpec, Item, MachineStatus, MachineType, Member, MountStatus,
    NodeLabel, NodeStatus, Nodename, PlatformMetadata, Resource, SecurityState, Spec, SystemDisk,
    VolumeMount, VolumeStatus,
};
use prost::Message;
use prost::bytes::Buf;

mod record;

fn folder() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("tests/wire")
}

/// The recorded replies of a file, without their lengths.
fn replies(name: &str) -> Vec<Vec<u8>> {
    let bytes =
        std::fs::read(folder().join(format!("{name}.bin"))).unwrap_or_else(|error| panic!("{name}: {error}"));
    let mut rest = &bytes[..];
    let mut replies = Vec::new();
    while rest.has_remaining() {
        let length = prost::decode_length_delimiter(&mut rest).unwrap();
        replies.push(rest.copy_to_bytes(length).to_vec());
    }
    replies
}

fn items<T: Spec>() -> Vec<Item<T>> {
    let read = |reply: Vec<u8>| {
        let reply = cosi::ListResponse::decode(&reply[..]).unwrap();
        let resource = Resource::from(reply.resource.unwrap());
        assert_eq!((resource.namespace.as_str(), resource.kind.as_str()), (T::NAMESPACE, T::TYPE));
        resource.decode().unwrap_or_else(|error| panic!("{error}: {}", resource.yaml))
    };
    replies(T::TYPE).into_iter().map(read).collect()
}
