//! The calls that make a cluster of machines: etcd's bootstrap, what etcd has on its disk, and the kubeconfig.

use std::io::Read;

use flate2::read::GzDecoder;
use secrecy::SecretString;
use tonic::{Code, Response, Status};
use zeroize::Zeroizing;

use super::client::{Node, status_is_theirs};
use crate::error::{self, Error, Result};
use crate::model::said::{self, By};
use crate::talos::proto::common::Data;
use crate::talos::proto::machine;

/// Where a control plane's etcd keeps its data (siderolabs/talos, pkg/machinery/constants, `EtcdDataPath`).
const ETCD_DATA: &str = "/var/lib/etcd";
/// A kubeconfig is a few KiB; a machine that sends more than this, packed or unpacked, is not believed.
const LONGEST: usize = 1 << 20;

/// What a machine says to being the one that a new etcd begins with.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Bootstrap {
    Taken,
    /// It is not so far yet, and says why.
    NotYet(String),
    /// There is data of etcd on it.
    HasData,
}

impl Node {
    /// Asks the machine to begin a new etcd. It must be asked of one machine of a cluster only, ever.
    ///
    /// # Errors
    /// `Kind::Unavailable` when the reply was lost, and it may have been taken.
    pub async fn bootstrap(&self) -> Result<Bootstrap> {
        let mut client = self.machine();
        let request = self.request(machine::BootstrapRequest::default());
        let call = async move {
            match client.bootstrap(request).await {
                Err(status) if status_is_theirs(&status) => match status.code() {
                    Code::FailedPrecondition => {
                        Ok(Response::new(Bootstrap::NotYet(status.message().to_owned())))
                    }
                    Code::AlreadyExists => Ok(Response::new(Bootstrap::HasData)),
                    _ => Err(status),
                },
                other => other.map(|_| Response::new(Bootstrap::Taken)),
            }
        };
        self.unary(call).await
    }

    /// Whether there is anything in the folder of etcd's data: it was bootstrapped, or has joined another.
    pub async fn has_etcd_data(&self) -> Result<bool> {
        self.reading(|| async {
            let request = self.request(machine::ListRequest { root: ETCD_DATA.into(), ..Default::default() });
            let missing = |text: &str| said::code(By::Talos, text) == Some(error::Code::NoSuchFile);
            let mut entries = match self.machine().list(request).await {
                Ok(entries) => entries.into_inner(),
                Err(status) if missing(status.message()) => return Ok(Response::new(false)),
                Err(status) => return Err(status),
            };
            loop {
                match entries.message().await {
                    Ok(None) => return Ok(Response::new(false)),
                    Ok(Some(entry)) if missing(&entry.error) => {}
                    Ok(Some(entry)) if !entry.error.is_empty() => return Err(Status::unknown(entry.error)),
                    Ok(Some(entry)) if entry.relative_name == "." || entry.name == ETCD_DATA => {}
                    Ok(Some(_)) => return Ok(Response::new(true)),
                    Err(status) if missing(status.message()) => return Ok(Response::new(false)),
                    Err(status) => return Err(status),
                }
            }
        })
        .await
    }

    /// A kubeconfig with the rights of an administrator, good for a year, as the control plane makes it.
    pub async fn kubeconfig(&self) -> Result<SecretString> {
        let packed = self.reading(|| async {
            let mut chunks = self.machine().kubeconfig(self.request(())).await?.into_inner();
            let mut packed = Zeroizing::new(Vec::new());
            while let Some(Data { bytes, .. }) = chunks.message().await? {
                packed.extend(bytes);
                if packed.len() > LONGEST {
                    return Err(Status::out_of_range("a kubeconfig of more than a MiB"));
                }
            }
            Ok(Response::new(packed))
        });
        unpack(&packed.await?).map_err(|why| {
            Error::failed(format!("node {}: sent a kubeconfig that can't be read: {why}", self.address()))
        })
    }
}

/// The file `kubeconfig` of a gzipped tar archive.
fn unpack(packed: &[u8]) -> Result<SecretString, String> {
    let mut archive = tar::Archive::new(GzDecoder::new(packed).take(LONGEST as u64));
    for entry in archive.entries().map_err(|error| error.to_string())? {
        let mut entry = entry.map_err(|error| error.to_string())?;
        let named = entry.path().is_ok_and(|path| path.ends_with("kubeconfig"));
        if named {
            let mut text = String::new();
            entry.read_to_string(&mut text).map_err(|error| error.to_string())?;
            let whole = text.len() as u64 == entry.size();
            return if whole { Ok(text.into()) } else { Err("the archive is cut short".to_owned()) };
        }
    }
    Err("the archive holds no file of that name".to_owned())
}

#[cfg(test)]
#[expect(clippy::unwrap_used)]
mod tests {
    use flate2::Compression;
    use flate2::write::GzEncoder;
    use proptest::prelude::*;
    use secrecy::ExposeSecret;

    use super::*;

    fn packed(name: &str, text: &str) -> Vec<u8> {
        let mut archive = tar::Builder::new(GzEncoder::new(Vec::new(), Compression::fast()));
        let mut header = tar::Header::new_gnu();
        header.set_size(text.len() as u64);
        header.set_mode(0o600);
        archive.append_data(&mut header, name, text.as_bytes()).unwrap();
        archive.into_inner().unwrap().finish().unwrap()
    }

    #[test]
    fn the_kubeconfig_is_found_in_its_archive() {
        for name in ["kubeconfig", "./kubeconfig"] {
            assert_eq!(unpack(&packed(name, "kind: Config")).unwrap().expose_secret(), "kind: Config");
        }
        assert!(unpack(&packed("config", "kind: Config")).unwrap_err().contains("no file of that name"));
        assert!(unpack(&packed("kubeconfig", &"x".repeat(2 << 20))).is_err(), "too long");
        assert!(unpack(b"").is_err());
    }

    proptest! {
        #[test]
        fn no_archive_makes_it_panic(
            cut in 0_usize..120, flip in 0_usize..120, bytes in proptest::collection::vec(any::<u8>(), 0..200)
        ) {
            let mut good = packed("kubeconfig", "kind: Config");
            let at = flip % good.len();
            good[at] ^= 0x55;
            good.truncate(good.len().saturating_sub(cut));
            let _ = (unpack(&good), unpack(&bytes));
        }
    }
}
